//! Postgres servers. They keep fsync on: a killed one must lose nothing.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use tokio_postgres::NoTls;

use super::{Secure, free_ports, local, proxy_before, until_ready};
use crate::disk::Disk;
use crate::fetch::{Programs, UNPRIVILEGED, reachable_by_others};
use crate::process::{Process, Program};
use crate::proxy::Proxy;

/// A shard's server and the proxies before it.
#[derive(Debug)]
pub struct Shard {
    process: Process,
    port: u16,
    proxies: Vec<Proxy>,
    disk: Option<Disk>,
}

/// How the servers are to be.
#[derive(Clone, Copy)]
pub(super) struct Servers<'a> {
    /// Proxies before each.
    pub(super) ways: usize,
    /// Bytes of a file system of its own; `None` for none.
    pub(super) space: Option<u64>,
    /// A way in that asks for TLS and a password.
    pub(super) secure: Option<&'a Secure>,
}

pub(super) async fn start(programs: &Programs, dir: &Path, ports: &[u16], servers: Servers<'_>) -> Result<Vec<Shard>> {
    let home = data_home(dir, unprivileged().is_some())?;
    let shards = ports.iter().enumerate();
    try_join_all(shards.map(|(i, port)| one(programs, (dir, &home), i, *port, servers))).await
}

/// Postgres refuses to run as root.
fn unprivileged() -> Option<u32> {
    Uid::effective().is_root().then_some(UNPRIVILEGED)
}

async fn one(
    programs: &Programs,
    (dir, home): (&Path, &Path),
    i: usize,
    port: u16,
    servers: Servers<'_>,
) -> Result<Shard> {
    let Servers { ways, space, secure } = servers;
    let user = unprivileged();
    let data = home.join(format!("shard-{i}"));
    let log = dir.join("logs").join(format!("shard-{i}.log"));
    let bin = programs.postgres.join("bin");
    let disk = match space {
        Some(bytes) => Some(Disk::mount(&data, bytes)?),
        None => None,
    };
    if !data.join("PG_VERSION").exists() {
        std::fs::create_dir_all(&data)?;
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700))?;
        if let Some(user) = user {
            chown(&data, Some(user), Some(user))?;
        }
        let mut init = Program::new(format!("initdb-{i}"), bin.join("initdb"), log.clone());
        init = init.args([
            "-U",
            "hookmill",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
            "-D",
        ]);
        init.args.push(data.clone().into());
        init.user = user;
        let init = Process::spawn(init)?;
        match init.wait(Duration::from_secs(60)).await {
            Some(status) if status.success() => {}
            _ => return Err(init.obituary()).context("a shard cannot be set up"),
        }
    }
    if let Some(secure) = secure {
        hand_over(&data, user, secure)?;
    }
    let mut program = Program::new(format!("shard-{i}"), bin.join("postgres"), log);
    program
        .args
        .extend(["-D".into(), data.into_os_string(), "-p".into(), port.to_string().into()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "shared_buffers=128MB",
        "max_connections=200",
        if disk.is_some() {
            "max_wal_size=256MB"
        } else {
            "max_wal_size=2GB"
        },
        "timezone=UTC",
        "log_min_messages=warning",
    ] {
        program = program.args(["-c", setting]);
    }
    if secure.is_some() {
        program = program.args(["-c", "ssl=on"]);
    }
    program.user = user;
    // "Fast": ends sessions and stops in good order.
    program.stop_signal = Signal::SIGINT;
    let process = Process::spawn(program)?;
    let mut proxies = Vec::new();
    for outer in free_ports(ways)? {
        proxies.push(proxy_before(outer, port).await?);
    }
    let shard = Shard {
        process,
        port,
        proxies,
        disk,
    };
    shard.ready().await?;
    let exists = shard
        .query_one(
            "postgres",
            "SELECT count(*) FROM pg_database WHERE datname = 'hookmill'",
        )
        .await?;
    if exists == 0 {
        shard.execute("postgres", "CREATE DATABASE hookmill").await?;
    }
    if let Some(secure) = secure {
        shard.execute("postgres", &secure.role()).await?;
    }
    Ok(shard)
}

/// Puts the certificate and who may come where the server looks for them; a key must be its own.
fn hand_over(data: &Path, user: Option<u32>, secure: &Secure) -> Result<()> {
    std::fs::copy(&secure.issued.certificate, data.join("server.crt"))?;
    let key = data.join("server.key");
    std::fs::copy(&secure.issued.key, &key)?;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    std::fs::write(data.join("pg_hba.conf"), secure.hba())?;
    for file in ["server.crt", "server.key", "pg_hba.conf"] {
        if let Some(user) = user {
            chown(data.join(file), Some(user), Some(user))?;
        }
    }
    Ok(())
}

/// The data's folder: `dir`, unless the user that Postgres runs as cannot come there.
fn data_home(dir: &Path, other_user: bool) -> Result<PathBuf> {
    if !other_user || reachable_by_others(dir) {
        return Ok(dir.to_owned());
    }
    // A link tells where, and ends with the folder: who makes that anew gets new servers, not what an old link led to.
    let link = dir.join("shards-data");
    if let Ok(home) = link.canonicalize() {
        return Ok(home);
    }
    let home = std::env::temp_dir().join(format!("hookmill-data-{:016x}", rand::random::<u64>()));
    std::fs::create_dir_all(&home)?;
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&home, &link)?;
    if !reachable_by_others(&home) {
        bail!(
            "Postgres must not run as root, and no other user can reach {}: choose another --dir",
            home.display()
        );
    }
    Ok(home)
}

impl Shard {
    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The first proxy before it.
    pub fn proxy(&self) -> &Proxy {
        self.proxy_of(0)
    }

    /// The proxy before it on one of the ways.
    pub fn proxy_of(&self, way: usize) -> &Proxy {
        &self.proxies[way]
    }

    /// The file system that it has for itself, if it has.
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://hookmill@{}/{database}", local(self.port))
    }

    /// The same on one of the ways with a proxy.
    pub fn proxied_url_of(&self, way: usize, database: &str) -> String {
        format!("postgres://hookmill@{}/{database}", self.proxy_of(way).address())
    }

    /// The URL by which somebody comes to a database under the server's name `host`; with `query`, which may say how.
    pub fn url_of(&self, user: &str, password: &str, host: &str, database: &str, query: &str) -> String {
        format!("postgres://{user}:{password}@{host}:{}/{database}?{query}", self.port)
    }

    /// A connection for tests and set-up.
    pub async fn connect(&self, database: &str) -> Result<tokio_postgres::Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs a statement.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<()> {
        self.connect(database)
            .await?
            .batch_execute(sql)
            .await
            .with_context(|| sql.to_owned())
    }

    /// The one number that a query answers with.
    pub async fn query_one(&self, database: &str, sql: &str) -> Result<i64> {
        let row = self
            .connect(database)
            .await?
            .query_one(sql, &[])
            .await
            .with_context(|| sql.to_owned())?;
        Ok(row.try_get(0)?)
    }

    /// Waits until it takes queries; after a crash that is when it has recovered.
    pub async fn ready(&self) -> Result<()> {
        until_ready(&self.process, Duration::from_secs(60), async || {
            self.connect("postgres").await.is_ok()
        })
        .await
    }

    /// Starts it again with its data, and waits for it. A killed server's sessions outlive it by a moment and hold its
    /// shared memory, so that a new one refuses to start; then it is tried again.
    pub async fn restart(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            self.process.restart()?;
            match self.ready().await {
                Err(_) if !self.process.is_running() && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                done => return done,
            }
        }
    }
}
