//! The product as it is shipped: its release binary, with the repository's config.toml and variables for this run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dev::process::{Process, Program};
use dev::stack::{Java, Options, Stack, free_ports};

use crate::load;
use crate::workload::Topics;

/// What a Standard Webhooks secret looks like; it guards nothing.
pub const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Which parts of the product run.
#[derive(Clone, Copy)]
pub enum Part {
    All,
    Ingest,
    Writers,
}

/// The binary, found and up to date.
#[derive(Clone)]
pub struct Product {
    binary: PathBuf,
}

/// Kafka as its own scripts start it, and two shards.
pub async fn start_servers() -> Result<Stack> {
    eprintln!("starting Kafka and two shards");
    let options = Options {
        java: Java::Shipped,
        ..Options::default()
    };
    Stack::start(options).await
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

impl Product {
    /// Has cargo bring the binary up to date, unless told not to.
    pub async fn find(no_build: bool) -> Result<Self> {
        let here = std::env::current_exe()?;
        let binary = here.with_file_name("hookmill");
        if no_build {
            if !binary.exists() {
                bail!("there is no {}: leave --no-build out", binary.display());
            }
            return Ok(Self { binary });
        }
        eprintln!("building hookmill (release)");
        let target = here.parent().and_then(Path::parent).context("no target directory")?;
        let status = tokio::process::Command::new("cargo")
            .args(["build", "--quiet", "--release", "--bin", "hookmill", "--target-dir"])
            .arg(target)
            .current_dir(root())
            .kill_on_drop(true)
            .status()
            .await
            .context("cargo cannot be started")?;
        if !status.success() {
            bail!("hookmill cannot be built");
        }
        Ok(Self { binary })
    }

    fn program(&self, stack: &Stack, name: &str, deployment: &Deployment) -> Program {
        let log = stack.dir().join("logs").join(format!("{name}.log"));
        let Deployment { topics, shard_urls, .. } = deployment;
        let mut program = Program::new(name, &self.binary, log)
            .args(["-c".into(), root().join("config.toml").into_os_string()])
            .env("HOOKMILL_KAFKA__BROKERS", stack.brokers())
            .env("HOOKMILL_KAFKA__GROUP_PREFIX", &deployment.group)
            .env("HOOKMILL_TOPICS__ORDERS__NAME", &topics.orders.0)
            .env("HOOKMILL_TOPICS__ORDERS__PARTITIONS", topics.orders.1.to_string())
            .env("HOOKMILL_TOPICS__DISPUTES__NAME", &topics.disputes.0)
            .env("HOOKMILL_TOPICS__DISPUTES__PARTITIONS", topics.disputes.1.to_string())
            .env("HOOKMILL_POSTGRES__LANES", deployment.lanes.to_string())
            .env("HOOKMILL_SHARD_URLS", shard_urls.join(","));
        for source in dev::send::SOURCES {
            program = program.env(format!("HOOKMILL_SECRET_{}", source.to_uppercase()), SECRET);
        }
        for (name, value) in &deployment.env {
            program = program.env(*name, value);
        }
        program
    }

    /// Creates the topics.
    pub async fn create_topics(&self, stack: &Stack, deployment: &Deployment) -> Result<()> {
        let program = self.program(stack, "topics", deployment);
        let process = Process::spawn(program.args(["topics", "create"]))?;
        match process.wait(Duration::from_secs(60)).await {
            Some(status) if status.success() => Ok(()),
            _ => Err(process.obituary()).context("the topics cannot be created"),
        }
    }

    /// Starts an instance named `name` and does not wait for it.
    pub fn start(&self, stack: &Stack, name: &str, part: Part, deployment: &Deployment) -> Result<Instance> {
        let ports = free_ports(2)?;
        let [ingest, admin] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
        let (takes, writes) = match part {
            Part::All => ("true", "true"),
            Part::Ingest => ("true", "false"),
            Part::Writers => ("false", "true"),
        };
        let program = self
            .program(stack, name, deployment)
            .args(["serve"])
            .env("HOOKMILL_SERVICES__INGEST", takes)
            .env("HOOKMILL_SERVICES__ORDERS", writes)
            .env("HOOKMILL_SERVICES__DISPUTES", writes)
            .env("HOOKMILL_INGEST__LISTEN", &ingest)
            .env("HOOKMILL_ADMIN__LISTEN", &admin);
        let process = Process::spawn(program)?;
        Ok(Instance { process, ingest, admin })
    }

    /// The same, and waits until it is ready.
    pub async fn serve(&self, stack: &Stack, name: &str, part: Part, deployment: &Deployment) -> Result<Instance> {
        let instance = self.start(stack, name, part, deployment)?;
        until_ready(&instance.process, &instance.admin, "/health/ready").await?;
        Ok(instance)
    }
}

/// What instances share.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Their consumer groups' prefix.
    pub group: String,
    /// Their topics.
    pub topics: Topics,
    /// Their shards.
    pub shard_urls: Vec<String>,
    /// Writers for each shard.
    pub lanes: usize,
    /// Further settings.
    pub env: Vec<(&'static str, String)>,
}

impl Deployment {
    /// With the shipped settings.
    pub fn new(group: &str, topics: &Topics, shard_urls: Vec<String>) -> Self {
        Self {
            group: group.to_owned(),
            topics: topics.clone(),
            shard_urls,
            lanes: 2,
            env: Vec::new(),
        }
    }
}

/// Waits until `address` answers 200 to a GET of `path`.
pub async fn until_ready(process: &Process, address: &str, path: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok((200, _)) = load::get(address, path).await {
            return Ok(());
        }
        if !process.is_running() || Instant::now() > deadline {
            return Err(process.obituary()).context("it did not get ready");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until these instances read all partitions of `topics` and of their dead-letter topics between them, and each some.
pub async fn until_shared(instances: &[Instance], topics: &Topics) -> Result<()> {
    let wanted = 2 * usize::try_from(topics.orders.1 + topics.disputes.1)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut owned = Vec::new();
        for instance in instances {
            if !instance.process.is_running() {
                return Err(instance.process.obituary()).context("it ended");
            }
            // It may have no listener yet.
            let stats = load::get(&instance.admin, "/stats").await;
            owned.push(stats.map_or(Ok(0), |(_, text)| running_partitions(&text))?);
        }
        if owned.iter().sum::<usize>() == wanted && owned.iter().all(|n| *n > 0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let least = instances.iter().zip(&owned).min_by_key(|(_, owned)| **owned);
            let (instance, _) = least.context("no instances")?;
            return Err(instance.process.obituary())
                .with_context(|| format!("of {wanted} partitions they read {owned:?} after 60 s"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many partitions an instance reads, by what it says at /stats.
fn running_partitions(stats: &str) -> Result<usize> {
    let stats: serde_json::Value = serde_json::from_str(stats).context("/stats is not JSON")?;
    let partitions = stats["partitions"].as_array();
    let running = |view: &&serde_json::Value| view["state"] == "running";
    Ok(partitions.map_or(0, |partitions| partitions.iter().filter(running).count()))
}

/// A running instance. Dropping it kills it.
pub struct Instance {
    /// Its process.
    pub process: Process,
    /// Where it takes webhooks.
    pub ingest: String,
    /// Where it answers operators.
    pub admin: String,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.process.kill();
    }
}
