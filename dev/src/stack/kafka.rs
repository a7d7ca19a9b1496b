//! Kafka brokers in KRaft mode, each broker and controller at once.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;

use super::{Secure, free_ports, local, proxy_before, until_ready};
use crate::fetch::Programs;
use crate::process::{Process, Program};
use crate::proxy::Proxy;

/// A broker and the proxy before it.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    port: u16,
    secure_port: Option<u16>,
    proxy: Proxy,
}

/// Any id will do that does not begin with '-', which the tool would take for an option; it only must be the same for the
/// brokers of one cluster.
fn cluster_id() -> String {
    use base64::Engine as _;
    let mut id = rand::random::<[u8; 16]>();
    id[0] &= 0x7f;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id)
}

/// Starts a cluster of a broker for every three ports.
pub(super) async fn start(
    programs: &Programs,
    dir: &Path,
    ports: &[u16],
    secure: Option<&Secure>,
) -> Result<Vec<Broker>> {
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let id_file = dir.join("kafka-cluster-id");
    let id = match std::fs::read_to_string(&id_file) {
        Ok(id) => id,
        Err(_) => {
            let id = cluster_id();
            std::fs::write(&id_file, &id)?;
            id
        }
    };
    let saved = dir.join("kafka-ports");
    // Data that is there already knows its controllers by their ports.
    let ports: Vec<u16> = match std::fs::read_to_string(&saved) {
        Ok(text) => text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("kafka-ports")?,
        Err(_) => ports.to_vec(),
    };
    std::fs::write(&saved, ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" "))?;
    let brokers = ports.len() / 3;
    let voters: Vec<String> = (0..brokers)
        .map(|i| format!("{}@127.0.0.1:{}", i + 1, ports[i * 3 + 2]))
        .collect();
    let voters = voters.join(",");
    let cluster = Cluster {
        programs,
        dir,
        brokers,
        id: &id,
        voters: &voters,
        secure,
    };
    let cluster = &cluster;
    try_join_all((0..brokers).map(|i| one(cluster, i, &ports[i * 3..i * 3 + 3]))).await
}

/// What the brokers have in common.
struct Cluster<'a> {
    programs: &'a Programs,
    dir: &'a Path,
    brokers: usize,
    id: &'a str,
    voters: &'a str,
    secure: Option<&'a Secure>,
}

async fn one(cluster: &Cluster<'_>, i: usize, ports: &[u16]) -> Result<Broker> {
    let Cluster {
        programs,
        dir,
        brokers,
        id,
        voters,
        secure,
    } = *cluster;
    let [port, inner, controller] = *ports else {
        bail!("a broker needs three ports")
    };
    let secure_port = secure.map(|_| free_ports(1)).transpose()?.map(|ports| ports[0]);
    // The name, so that the certificate's is checked against more than an address.
    let (listens, advertised) = secure_port.map_or_else(Default::default, |port| {
        (format!(",SECURE://127.0.0.1:{port}"), format!(",SECURE://localhost:{port}"))
    });
    let securely = secure.map(|secure| secure.of_broker(dir)).transpose()?.unwrap_or_default();
    let data = dir.join(format!("kafka-{i}"));
    let proxy_port = free_ports(1)?[0];
    let config = dir.join(format!("kafka-{i}.properties"));
    let in_sync = if brokers == 3 { 2 } else { 1 };
    std::fs::write(
        &config,
        format!(
            "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=DIRECT://127.0.0.1:{port},PROXIED://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}{listens}
advertised.listeners=DIRECT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy_port}{advertised}
listener.security.protocol.map=DIRECT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
inter.broker.listener.name=DIRECT
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor={brokers}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={brokers}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={brokers}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.replication.factor={brokers}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
log.segment.bytes=67108864
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
{securely}",
            node = i + 1,
            data = data.display(),
        ),
    )?;
    let log = dir.join("logs").join(format!("kafka-{i}.log"));
    if !data.join("meta.properties").exists() {
        let mut format = Command::new("java");
        format.args([
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            "-cp",
            &programs.class_path,
        ]);
        format
            .args(["kafka.tools.StorageTool", "format", "-t", id, "-c"])
            .arg(&config);
        if let Some(secure) = secure {
            format.args(["--add-scram", &secure.scram()]);
        }
        let output = tokio::task::spawn_blocking(move || format.output())
            .await?
            .context("java cannot be started: install a JDK of 17 or later")?;
        if !output.status.success() {
            bail!(
                "Kafka's storage cannot be formatted: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    let heap = if brokers == 1 { "-Xmx512m" } else { "-Xmx384m" };
    let mut program = Program::new(format!("kafka-{i}"), "java", log);
    program = program.args([
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-Xms128m",
        heap,
        "-cp",
        &programs.class_path,
        "kafka.Kafka",
    ]);
    program.args.push(config.into());
    let process = Process::spawn(program)?;
    let proxy = proxy_before(proxy_port, inner).await?;
    let broker = Broker {
        process,
        port,
        secure_port,
        proxy,
    };
    broker.ready().await?;
    Ok(broker)
}

impl Broker {
    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        local(self.port)
    }

    /// Where it listens for those who come by TLS and a password.
    pub fn secure_port(&self) -> Option<u16> {
        self.secure_port
    }

    /// The proxy before it.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Waits until it takes connections; it listens only once it has its part of the cluster's metadata.
    pub async fn ready(&self) -> Result<()> {
        let address = self.address();
        until_ready(&self.process, Duration::from_secs(60), async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await
    }

    /// Starts it again with its data, and waits for it.
    pub async fn restart(&self) -> Result<()> {
        self.process.restart()?;
        self.ready().await
    }
}
