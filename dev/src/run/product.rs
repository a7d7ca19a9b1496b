//! Instances of the product as processes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::files::Dir;
use super::repository;
use crate::process::{Process, Program};
use crate::stack::free_ports;

/// Where an instance listens.
pub(super) struct Address {
    webhooks: SocketAddr,
    admin: SocketAddr,
    pub(super) log: PathBuf,
}

impl Address {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.webhooks)
    }

    pub(super) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }
}

/// The usual ports for the first instance where they are free, others for the rest.
pub(super) fn addresses(instances: u16, logs: &Path) -> Result<Vec<Address>> {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut ports = free_ports(usize::from(instances) * 2)?;
    if free(8080) && free(8081) {
        (ports[0], ports[1]) = (8080, 8081);
    }
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let address = |(i, pair): (usize, &[u16])| Address {
        webhooks: local(pair[0]),
        admin: local(pair[1]),
        log: logs.join(format!("hookmill-{i}.log")),
    };
    Ok(ports.chunks_exact(2).enumerate().map(address).collect())
}

/// The running instances.
pub(super) struct Product {
    instances: Vec<Process>,
    admin_urls: Vec<String>,
}

fn program(binary: &Path, name: String, command: &str, env: &[(String, String)], dir: &Dir) -> Program {
    let log = dir.logs().join(format!("{name}.log"));
    let program = Program::new(name, binary, log).args([command, "-c"]);
    let program = program.args([repository().join("config.toml")]);
    env.iter()
        .fold(program, |program, (name, value)| program.env(name, value))
}

/// Brings the shards' tables up to date.
pub(super) async fn migrate(binary: &Path, env: &[(String, String)], dir: &Dir) -> Result<()> {
    let process = Process::spawn(program(binary, "migrate".to_owned(), "migrate", env, dir))?;
    match process.wait(Duration::from_secs(120)).await {
        Some(status) if status.success() => Ok(()),
        _ => Err(process.obituary()).context("the shards cannot be migrated"),
    }
}

impl Product {
    pub(super) fn start(binary: &Path, env: &[(String, String)], addresses: &[Address], dir: &Dir) -> Result<Self> {
        let mut instances = Vec::new();
        for (i, address) in addresses.iter().enumerate() {
            let program = program(binary, format!("hookmill-{i}"), "serve", env, dir)
                .env("HOOKMILL_INGEST__LISTEN", address.webhooks.to_string())
                .env("HOOKMILL_ADMIN__LISTEN", address.admin.to_string());
            instances.push(Process::spawn(program)?);
        }
        let admin_urls = addresses.iter().map(Address::admin_url).collect();
        Ok(Self { instances, admin_urls })
    }

    pub(super) fn instances(&self) -> &[Process] {
        &self.instances
    }

    /// Waits until all that run say that they are ready; fails with the words of one that ended.
    pub(super) async fn ready(&self, patience: Duration) -> Result<()> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        let deadline = Instant::now() + patience;
        for (process, url) in self.instances.iter().zip(&self.admin_urls) {
            loop {
                let answer = client.get(format!("{url}/health/ready")).send().await;
                if answer.is_ok_and(|a| a.status().is_success()) {
                    break;
                }
                if !process.is_running() {
                    return Err(process.obituary()).context("hookmill did not start");
                }
                if Instant::now() > deadline {
                    bail!(
                        "{} is not ready after {} s: see {}",
                        process.name(),
                        patience.as_secs(),
                        process.log().display()
                    );
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Stops all at once, each in good order.
    pub(super) async fn stop(&self, patience: Duration) {
        let stops = self.instances.iter().map(|instance| async move {
            if instance.is_running()
                && let Err(error) = instance.stop(patience).await
            {
                eprintln!("{error:#}");
            }
        });
        futures_util::future::join_all(stops).await;
    }
}
