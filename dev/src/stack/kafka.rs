//! Kafka brokers in KRaft mode, each broker and controller at once.

use std::fmt::Write as _;
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

/// A broker and the proxies before it.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    port: u16,
    secure_port: Option<u16>,
    proxies: Vec<Proxy>,
    between: Option<Proxy>,
}

/// How many proxies there are before each broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways {
    /// For clients.
    pub(super) clients: usize,
    /// One more, by which the other brokers come.
    pub(super) between: bool,
}

impl Ways {
    /// Ports that a broker listens on: one without a proxy, one for controllers, and one behind each proxy.
    pub(super) fn ports(self) -> usize {
        2 + self.clients + usize::from(self.between)
    }
}

/// The listener by which brokers come where they have proxies between them.
const BETWEEN: &str = "BETWEEN";

/// Any id will do that does not begin with '-', which the tool would take for an option; it only must be the same for the
/// brokers of one cluster.
fn cluster_id() -> String {
    use base64::Engine as _;
    let mut id = rand::random::<[u8; 16]>();
    id[0] &= 0x7f;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id)
}

/// Starts a cluster of a broker for every [`Ways::ports`] ports.
pub(super) async fn start(
    programs: &Programs,
    dir: &Path,
    given: &[u16],
    ways: Ways,
    java: Java,
    secure: Option<&Secure>,
) -> Result<Vec<Broker>> {
    if given.is_empty() {
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
        Err(_) => given.to_vec(),
    };
    let (there, wanted) = (ports.len() / ways.ports(), given.len() / ways.ports());
    if there != wanted {
        bail!(
            "the data in {} is of {there} broker(s), not of {wanted}: ask for {there}, or use another --dir",
            dir.display()
        );
    }
    std::fs::write(&saved, ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" "))?;
    let sets: Vec<&[u16]> = ports.chunks_exact(ways.ports()).collect();
    let voters: Vec<String> = (1..)
        .zip(&sets)
        .map(|(node, ports)| format!("{node}@127.0.0.1:{}", ports[1]))
        .collect();
    let cluster = Cluster {
        programs,
        dir,
        brokers: sets.len(),
        id: &id,
        voters: voters.join(","),
        ways,
        java,
        secure,
    };
    try_join_all(sets.iter().enumerate().map(|(i, ports)| one(&cluster, i, ports))).await
}

/// How Java is started for brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Java {
    /// Soon there, and small: for tests, and for trying things.
    #[default]
    Small,
    /// As Kafka's own scripts start it (`kafka-server-start.sh`, `kafka-run-class.sh`): for measurements. The small one
    /// collects garbage about once a second at 500 records a second, and everything waits for 4 to 12 ms meanwhile.
    Shipped,
}

impl Java {
    fn flags(self, brokers: usize) -> Vec<&'static str> {
        match self {
            Java::Small => vec![
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Xshare:auto",
                "-Xms128m",
                if brokers == 1 { "-Xmx512m" } else { "-Xmx384m" },
            ],
            Java::Shipped => vec![
                "-server",
                "-Xms1G",
                "-Xmx1G",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35",
                "-XX:+ExplicitGCInvokesConcurrent",
            ],
        }
    }
}

/// What the brokers have in common.
struct Cluster<'a> {
    programs: &'a Programs,
    dir: &'a Path,
    brokers: usize,
    id: &'a str,
    voters: String,
    ways: Ways,
    java: Java,
    secure: Option<&'a Secure>,
}

async fn one(cluster: &Cluster<'_>, i: usize, ports: &[u16]) -> Result<Broker> {
    let Cluster {
        programs,
        dir,
        brokers,
        id,
        voters,
        ways,
        java,
        secure,
    } = cluster;
    let [port, controller, inner @ ..] = ports else {
        bail!("a broker needs at least two ports")
    };
    let secure_port = secure.map(|_| free_ports(1)).transpose()?.map(|ports| ports[0]);
    let securely = secure
        .map(|secure| secure.of_broker(dir))
        .transpose()?
        .unwrap_or_default();
    let data = dir.join(format!("kafka-{i}"));
    let outer = free_ports(inner.len())?;
    let mut proxies = Vec::new();
    let (mut listeners, mut advertised, mut protocols) = (String::new(), String::new(), String::new());
    for (way, (inner, outer)) in inner.iter().zip(&outer).enumerate() {
        let name = if way < ways.clients {
            format!("PROXIED{way}")
        } else {
            BETWEEN.to_owned()
        };
        write!(listeners, ",{name}://127.0.0.1:{inner}")?;
        write!(advertised, ",{name}://127.0.0.1:{outer}")?;
        write!(protocols, ",{name}:PLAINTEXT")?;
        proxies.push(proxy_before(*outer, *inner).await?);
    }
    if let Some(port) = secure_port {
        write!(listeners, ",SECURE://127.0.0.1:{port}")?;
        // The name, so that the certificate's is checked against more than an address.
        write!(advertised, ",SECURE://localhost:{port}")?;
    }
    let between = ways.between.then(|| proxies.pop()).flatten();
    let among = if ways.between { BETWEEN } else { "DIRECT" };
    let config = dir.join(format!("kafka-{i}.properties"));
    let in_sync = if *brokers == 3 { 2 } else { 1 };
    std::fs::write(
        &config,
        format!(
            "process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=DIRECT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=DIRECT://127.0.0.1:{port}{advertised}
listener.security.protocol.map=DIRECT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL{protocols}
inter.broker.listener.name={among}
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
    let mut program = Program::new(format!("kafka-{i}"), "java", log);
    program = program.args(java.flags(*brokers));
    program = program.args(["-cp", &programs.class_path, "kafka.Kafka"]);
    program.args.push(config.into());
    let process = Process::spawn(program)?;
    let broker = Broker {
        process,
        port: *port,
        secure_port,
        proxies,
        between,
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

    /// The first proxy before it.
    pub fn proxy(&self) -> &Proxy {
        self.proxy_of(0)
    }

    /// The proxy before it on one of the clients' ways.
    pub fn proxy_of(&self, way: usize) -> &Proxy {
        &self.proxies[way]
    }

    /// The proxy by which the other brokers come, if they do.
    pub fn proxy_between(&self) -> Option<&Proxy> {
        self.between.as_ref()
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
