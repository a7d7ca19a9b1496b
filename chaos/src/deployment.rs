//! A deployment of the product: topics, databases and consumer groups of one name, and how its instances are started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dev::process::{Process, Program};
use dev::send::{SOURCES, Secrets};
use dev::stack::Stack;

/// Guards nothing; every source takes it.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The secrets of all sources.
pub fn secrets() -> Secrets {
    SOURCES.map(|source| (source.to_owned(), SECRET.to_owned())).to_vec()
}

/// The product's binary, and where its logs go.
#[derive(Clone, Debug)]
pub struct Product {
    /// The binary.
    pub binary: PathBuf,
    /// The shipped configuration of its tree.
    pub config: PathBuf,
    /// Where logs go.
    pub logs: PathBuf,
}

/// What all instances of one deployment share.
#[derive(Clone, Debug)]
pub struct Deployment {
    product: Product,
    /// Part of the names of its topics and groups, and the name of its databases.
    pub name: String,
    /// Partitions of orders and disputes.
    pub partitions: (i32, i32),
}

/// A topic, as the checks know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// `order` or `dispute`: also of its dead letters.
    pub kind: &'static str,
    /// Whether it holds dead letters.
    pub dead: bool,
}

impl Deployment {
    /// A deployment with databases of its own on every shard.
    pub async fn new(product: &Product, stack: &Stack, name: &str, partitions: (i32, i32)) -> Result<Self> {
        stack.create_databases(name).await?;
        Ok(Self {
            product: product.clone(),
            name: name.to_owned(),
            partitions,
        })
    }

    /// Its topics, those of dead letters last.
    pub fn topics(&self) -> Vec<Topic> {
        let topic = |kind: &'static str, partitions, dead: bool| Topic {
            name: format!("{}.{kind}s{}", self.name, if dead { ".DLQ" } else { "" }),
            partitions,
            kind,
            dead,
        };
        let (orders, disputes) = self.partitions;
        vec![
            topic("order", orders, false),
            topic("dispute", disputes, false),
            topic("order", orders, true),
            topic("dispute", disputes, true),
        ]
    }

    /// The topic of events of this kind.
    pub fn topic(&self, kind: &str) -> Topic {
        let mut topics = self.topics();
        topics.swap_remove(usize::from(kind == "dispute"))
    }

    /// How many partitions its instances read in all.
    pub fn all_partitions(&self) -> usize {
        let all: i32 = self.topics().iter().map(|topic| topic.partitions).sum();
        usize::try_from(all).unwrap_or_default()
    }

    /// The program with the shipped configuration and this deployment's variables. Time-outs towards the shards are
    /// shorter than the shipped ones, so that a campaign does not mostly wait: 5 s for a statement, 2 s for a lock.
    pub fn program(&self, name: &str, command: &[&str], brokers: &str, shard_urls: &[String]) -> Program {
        let (Product { binary, config, logs }, topics) = (&self.product, self.topics());
        let log = logs.join(format!("{}-{name}.log", self.name));
        let mut program = Program::new(format!("{}-{name}", self.name), binary, log)
            .args(command.iter().copied())
            .args(["-c".into(), config.clone().into_os_string()]);
        let variables = [
            ("KAFKA__BROKERS", brokers.to_owned()),
            ("KAFKA__GROUP_PREFIX", self.name.clone()),
            ("TOPICS__ORDERS__NAME", topics[0].name.clone()),
            ("TOPICS__ORDERS__PARTITIONS", topics[0].partitions.to_string()),
            ("TOPICS__DISPUTES__NAME", topics[1].name.clone()),
            ("TOPICS__DISPUTES__PARTITIONS", topics[1].partitions.to_string()),
            ("TOPICS__PARKED__NAME", self.parked()),
            ("TOPICS__PARKED__PARTITIONS", "1".to_owned()),
            ("SHARD_URLS", shard_urls.join(",")),
            ("POSTGRES__STATEMENT_TIMEOUT", "5s".to_owned()),
            ("POSTGRES__LOCK_TIMEOUT", "2s".to_owned()),
            ("INGEST__WORKERS", "1".to_owned()),
            ("LOG__FORMAT", "json".to_owned()),
        ];
        for (variable, value) in variables {
            program = program.env(format!("HOOKMILL_{variable}"), value);
        }
        for (source, secret) in secrets() {
            program = program.env(format!("HOOKMILL_SECRET_{}", source.to_uppercase()), secret);
        }
        program
    }

    /// The topic where what is not understood is kept.
    pub fn parked(&self) -> String {
        format!("{}.parked", self.name)
    }

    /// Where its instances log.
    pub fn logs(&self) -> &Path {
        &self.product.logs
    }

    /// Runs a command to its good end.
    pub async fn run(&self, stack: &Stack, name: &str, command: &[&str]) -> Result<()> {
        let urls: Vec<String> = stack.shards().iter().map(|shard| shard.url(&self.name)).collect();
        let process = Process::spawn(self.program(name, command, &stack.brokers(), &urls))?;
        match process.wait(Duration::from_secs(90)).await {
            Some(status) if status.success() => Ok(()),
            _ => Err(process.obituary()).with_context(|| format!("`hookmill {}` failed", command.join(" "))),
        }
    }
}

/// Has cargo bring the product's binary up to date, in the profile and target directory of the running program.
pub async fn build(root: &Path) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    // Under `cargo test` the program stands one folder deeper.
    let folder = here
        .ancestors()
        .skip(1)
        .find(|dir| !dir.ends_with("deps"))
        .context("the program stands nowhere")?;
    let target = folder.parent().context("no target directory")?;
    eprintln!("building the product");
    let mut cargo = tokio::process::Command::new("cargo");
    cargo.args([
        "build",
        "--quiet",
        "-p",
        "hookmill",
        "--bin",
        "hookmill",
        "--target-dir",
    ]);
    cargo.arg(target).current_dir(root).kill_on_drop(true);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status().await.context("cargo cannot be started")?;
    if !status.success() {
        bail!("the product cannot be built: cargo's own message is above");
    }
    Ok(folder.join("hookmill"))
}
