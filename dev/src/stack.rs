//! The stack: one or three Kafka brokers (KRaft) and any number of Postgres shards, each a process of its own.

mod kafka;
mod postgres;
mod secure;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use kafka::{Broker, Java};
pub use postgres::Shard;
pub use secure::Secure;

use crate::fetch;
use crate::process::Process;
use crate::proxy::Proxy;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// 1, or 3 with replication 3 and two in-sync replicas required; 0 where somebody else has them.
    pub brokers: usize,
    /// Postgres servers.
    pub shards: usize,
    /// Where data and logs go; a temporary folder, removed at the end, unless given.
    pub dir: Option<PathBuf>,
    /// Ways with proxies of their own by which clients can reach the servers, so that one can be broken for some only.
    pub ways: usize,
    /// Whether brokers come to each other by way of proxies too.
    pub between_brokers: bool,
    /// Bytes of the file system that each shard has for itself, in memory, so that it can be filled; needs root. `None`
    /// for none of its own.
    pub shard_space: Option<u64>,
    /// Ways in that ask for TLS and a password, beside the open ones.
    pub secure: Option<Secure>,
    /// How Java is started for the brokers.
    pub java: Java,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: 1,
            shards: 2,
            dir: None,
            ways: 1,
            between_brokers: false,
            shard_space: None,
            secure: None,
            java: Java::Small,
        }
    }
}

/// A running stack. Dropping it kills the servers.
#[derive(Debug)]
pub struct Stack {
    brokers: Vec<Broker>,
    shards: Vec<Shard>,
    dir: PathBuf,
    temporary: bool,
}

impl Stack {
    /// Starts all servers and waits until they answer.
    pub async fn start(options: Options) -> Result<Self> {
        if !matches!(options.brokers, 0 | 1 | 3) {
            bail!("a stack has 1 or 3 brokers, or none, not {}", options.brokers);
        }
        let programs = tokio::task::spawn_blocking(fetch::programs).await??;
        let temporary = options.dir.is_none();
        let dir = options.dir.clone().unwrap_or_else(temporary_dir);
        std::fs::create_dir_all(dir.join("logs"))?;
        let dir = dir.canonicalize()?;
        let ways = kafka::Ways {
            clients: options.ways.max(1),
            between: options.between_brokers,
        };
        let secure = options.secure.as_ref();
        let ports = free_ports(options.brokers * ways.ports() + options.shards)?;
        let (for_brokers, for_shards) = ports.split_at(options.brokers * ways.ports());
        let brokers = kafka::start(&programs, &dir, for_brokers, ways, options.java, secure);
        let servers = postgres::Servers {
            ways: ways.clients,
            space: options.shard_space,
            secure,
        };
        let shards = postgres::start(&programs, &dir, for_shards, servers);
        let (brokers, shards) = tokio::try_join!(brokers, shards)?;
        Ok(Self {
            brokers,
            shards,
            dir,
            temporary,
        })
    }

    /// Bootstrap servers.
    pub fn brokers(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(|b| b.address().to_string()).collect();
        addresses.join(",")
    }

    /// Bootstrap servers, by way of the first proxies before them.
    pub fn proxied_brokers(&self) -> String {
        self.proxied_brokers_of(0)
    }

    /// Bootstrap servers on one of the ways.
    pub fn proxied_brokers_of(&self, way: usize) -> String {
        let address = |broker: &Broker| broker.proxy_of(way).address().to_string();
        let addresses: Vec<String> = self.brokers.iter().map(address).collect();
        addresses.join(",")
    }

    /// All brokers.
    pub fn kafkas(&self) -> &[Broker] {
        &self.brokers
    }

    /// Bootstrap servers that ask for TLS and a password, under the name `host`; only of a stack with [`Secure`].
    pub fn secure_brokers(&self, host: &str) -> String {
        let ports = self.brokers.iter().filter_map(Broker::secure_port);
        let addresses: Vec<String> = ports.map(|port| format!("{host}:{port}")).collect();
        addresses.join(",")
    }

    /// A broker.
    pub fn kafka(&self, i: usize) -> &Broker {
        &self.brokers[i]
    }

    /// A shard.
    pub fn shard(&self, i: usize) -> &Shard {
        &self.shards[i]
    }

    /// All shards in their order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shards' URLs, in their order, for the database that each has from the start.
    pub fn shard_urls(&self) -> Vec<String> {
        self.shards.iter().map(|s| s.url("hookmill")).collect()
    }

    /// The same by way of the proxies.
    pub fn proxied_shard_urls(&self, database: &str) -> Vec<String> {
        self.proxied_shard_urls_of(0, database)
    }

    /// The same on one of the ways.
    pub fn proxied_shard_urls_of(&self, way: usize, database: &str) -> Vec<String> {
        self.shards.iter().map(|s| s.proxied_url_of(way, database)).collect()
    }

    /// A fresh database of this name on every shard; the URLs in the shards' order.
    pub async fn create_databases(&self, name: &str) -> Result<Vec<String>> {
        for shard in &self.shards {
            shard.execute("postgres", &format!("CREATE DATABASE {name}")).await?;
        }
        Ok(self.shards.iter().map(|s| s.url(name)).collect())
    }

    /// Every server process, brokers first.
    pub fn processes(&self) -> Vec<&Process> {
        self.brokers
            .iter()
            .map(Broker::process)
            .chain(self.shards.iter().map(Shard::process))
            .collect()
    }

    /// Where data and logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stops the servers in good order.
    pub async fn stop(&self) {
        for process in self.processes() {
            if let Err(error) = process.stop(Duration::from_secs(20)).await {
                eprintln!("{error:#}");
            }
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for process in self.processes() {
            process.kill();
        }
        if self.temporary {
            // What stays in the temporary folder harms nobody.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn temporary_dir() -> PathBuf {
    let unique = format!("hookmill-stack-{}-{:08x}", std::process::id(), rand::random::<u32>());
    std::env::temp_dir().join(unique)
}

/// Ports that nobody listens on, and that this process does not give out twice. They are kept from others only until
/// their server listens, so they are taken high above the range for outgoing connections' usual start.
pub fn free_ports(n: usize) -> Result<Vec<u16>> {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut ports = Vec::with_capacity(n);
    for _ in 0..10_000 {
        if ports.len() == n {
            return Ok(ports);
        }
        // Below the kernel's range of ephemeral ports (from 32768), so no outgoing connection takes one in between.
        let port = rand::random_range(10_000..32_000);
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.push(port);
            ports.push(port);
        }
    }
    bail!("there are no {n} free ports")
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Waits until `probe` says yes; fails with the process' own words if that ends or does not come up.
async fn until_ready(process: &Process, patience: Duration, mut probe: impl AsyncFnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        if probe().await {
            return Ok(());
        }
        if !process.is_running() || Instant::now() > deadline {
            return Err(process.obituary()).context("a server did not come up");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A proxy on a port of its own before `target`.
async fn proxy_before(port: u16, target: u16) -> Result<Proxy> {
    // A child that is just being started has copies of this process' sockets until it is another program, among them the one
    // that has tried whether the port is free.
    let mut tries = 0..40;
    let listener = loop {
        match tokio::net::TcpListener::bind(local(port)).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries.next().is_some() => {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            other => break other.with_context(|| format!("a proxy cannot listen on port {port}"))?,
        }
    };
    Proxy::on(listener, local(target))
}
