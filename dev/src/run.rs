//! `dev run`: from nothing to the running product, with webhooks in its tables; and what goes with it.

mod background;
mod files;
mod landed;
mod product;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

pub use background::{down, start, status};

use crate::process::Process;
use crate::send::{SendArgs, send_all};
use crate::stack::{Options, Stack};
use files::Dir;
use product::Product;

/// Starts Kafka, Postgres shards and the product, sends a first hundred webhooks of every source, and runs until Ctrl-C.
///
/// Brokers and shards that the environment gives are used instead: HOOKMILL_KAFKA__BROKERS (host:port, commas between)
/// and HOOKMILL_SHARD_URLS (postgres://…, commas between, in shard order). Data, logs and secrets are kept in --dir.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub servers: ServerArgs,
    /// Instances of the product, in the same consumer groups.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub instances: u16,
    /// Send no webhooks.
    #[arg(long)]
    pub no_samples: bool,
    /// Return when all is running; `dev/stop` stops it.
    #[arg(long)]
    pub detach: bool,
    /// Start the servers only.
    #[arg(long, hide = true)]
    pub servers_only: bool,
}

/// Starts Kafka and Postgres shards in the background, without the product.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub dir: DirArgs,
    /// Kafka brokers to start: 1, or 3 with replication.
    #[arg(long, default_value_t = 1, value_parser = brokers)]
    pub brokers: usize,
    /// Postgres servers to start.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub shards: u16,
}

fn brokers(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("use 1 or 3".to_owned()),
    }
}

/// Where things are kept.
#[derive(Clone, Debug, clap::Args)]
pub struct DirArgs {
    /// Data, logs, secrets, `env` and `pids`; `.dev` in the repository unless said.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

impl DirArgs {
    /// The folder, made if need be.
    fn open(&self) -> Result<Dir> {
        Dir::open(&self.path())
    }

    fn path(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| repository().join(".dev"))
    }
}

/// A command of ours that speaks to the run in `dir`, to be copied from a message.
fn command(dir: &Dir, what: &str) -> String {
    let usual = repository()
        .join(".dev")
        .canonicalize()
        .is_ok_and(|usual| usual == dir.path());
    let place = if usual {
        String::new()
    } else {
        format!(" --dir '{}'", dir.path().display())
    };
    format!("{} {what}{place}", crate::COMMAND)
}

/// The repository's root.
fn repository() -> PathBuf {
    let dev = Path::new(env!("CARGO_MANIFEST_DIR"));
    dev.parent().unwrap_or(dev).to_owned()
}

/// How long the product may take to be ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs until Ctrl-C or SIGTERM, or starts that in the background.
pub async fn run(args: RunArgs) -> Result<()> {
    let dir = args.servers.dir.open()?;
    if args.detach {
        return background::detach(&dir, &args).await;
    }
    let _lock = dir.lock()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut session = Session::default();
    let begun = tokio::select! {
        begun = session.begin(&args, &dir) => begun,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("told to stop")),
    };
    if let Err(error) = begun {
        session.end(&dir).await;
        return Err(error);
    }
    dir.mark_ready()?;
    let mut tick = tokio::time::interval(Duration::from_millis(300));
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = tick.tick() => session.look_after(&dir).await?,
        }
    }
    println!("stopping …");
    session.end(&dir).await;
    println!("stopped; what is in {} is kept", dir.path().display());
    Ok(())
}

/// What is running.
#[derive(Default)]
struct Session {
    stack: Option<Stack>,
    product: Option<Product>,
    /// Names of processes whose end was told.
    ended: Vec<String>,
}

impl Session {
    async fn begin(&mut self, args: &RunArgs, dir: &Dir) -> Result<()> {
        dir.clear()?;
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let (brokers, shard_urls) = (given("HOOKMILL_KAFKA__BROKERS"), given("HOOKMILL_SHARD_URLS"));
        let options = Options {
            brokers: if brokers.is_some() { 0 } else { args.servers.brokers },
            shards: if shard_urls.is_some() {
                0
            } else {
                usize::from(args.servers.shards)
            },
            dir: Some(dir.path().to_owned()),
            ..Options::default()
        };
        match (options.brokers, options.shards) {
            (0, 0) => println!("using the brokers and shards of the environment"),
            (k, s) => println!("starting {k} Kafka broker(s) and {s} Postgres shard(s) …"),
        }
        let stack = Stack::start(options).await?;
        let brokers = brokers.unwrap_or_else(|| stack.brokers());
        let shard_urls = shard_urls.unwrap_or_else(|| stack.shard_urls().join(","));
        self.stack = Some(stack);
        let mut env = dir.secrets()?;
        env.push(("HOOKMILL_KAFKA__BROKERS".to_owned(), brokers));
        env.push(("HOOKMILL_SHARD_URLS".to_owned(), shard_urls));
        let binary = if args.servers_only { None } else { Some(build(dir)?) };
        let addresses = product::addresses(args.instances, &dir.logs())?;
        dir.write_env(&env, &addresses[0], binary.as_deref())?;
        dir.write_pids(&self.processes())?;
        let Some(binary) = binary else {
            println!(
                "running; `{}` stops it. Its addresses: {}",
                command(dir, "down"),
                dir.env_file().display()
            );
            return Ok(());
        };
        println!("migrating the shards …");
        product::migrate(&binary, &env, dir).await?;
        println!("starting {} instance(s) of hookmill …", args.instances);
        self.product = Some(Product::start(&binary, &env, &addresses, dir)?);
        dir.write_pids(&self.processes())?;
        if let Some(product) = &self.product {
            product.ready(PATIENCE).await?;
        }
        if !args.no_samples {
            self.send_samples(&env, &addresses).await?;
        }
        say_what_next(dir, &addresses);
        Ok(())
    }

    /// A first hundred of every source, and where they landed.
    async fn send_samples(&self, env: &[(String, String)], addresses: &[product::Address]) -> Result<()> {
        println!("sending 100 signed webhooks of every source …");
        let shards: Vec<String> = value(env, "HOOKMILL_SHARD_URLS")
            .split(',')
            .map(|url| url.trim().to_owned())
            .collect();
        let visible = !shards.iter().any(|url| landed::only_by_tls(url));
        let before = if visible { landed::count(&shards).await? } else { 0 };
        let urls = addresses.iter().map(product::Address::url).collect();
        let args = SendArgs {
            url: urls,
            quiet: true,
            retry_for: 30,
            ..SendArgs::default()
        };
        let secrets = crate::send::SOURCES.iter().map(|source| {
            let name = format!("HOOKMILL_SECRET_{}", source.to_uppercase());
            ((*source).to_owned(), value(env, &name).to_owned())
        });
        let (ledger, _acks) = tokio::sync::mpsc::unbounded_channel();
        let summary = send_all(&args, secrets.collect(), ledger).await?;
        if summary.refused + summary.given_up > 0 {
            bail!(
                "{} webhooks were refused and {} not acknowledged: see {}",
                summary.refused,
                summary.given_up,
                addresses[0].log.display()
            );
        }
        println!(
            "{} acknowledged in {:.1} s (p50 {:.1} ms, p99 {:.1} ms)",
            summary.acked, summary.seconds, summary.p50_ms, summary.p99_ms
        );
        if !visible {
            println!("the shards are asked by TLS only, which this command does not speak: look into them with psql");
            return Ok(());
        }
        let wanted = before + i64::try_from(summary.acked)?;
        landed::wait(&shards, wanted, PATIENCE).await?;
        println!("\n{}", landed::table(&shards).await?);
        Ok(())
    }

    fn processes(&self) -> Vec<Process> {
        let servers = self.stack.iter().flat_map(Stack::processes).cloned();
        let instances = self.product.iter().flat_map(|p| p.instances().iter().cloned());
        servers.chain(instances).collect()
    }

    /// Tells of what ended by itself, and starts again what somebody asked for.
    async fn look_after(&mut self, dir: &Dir) -> Result<()> {
        for process in self.processes() {
            let name = process.name().to_owned();
            if process.is_running() || self.ended.contains(&name) {
                continue;
            }
            let how = process.ending();
            println!(
                "{name} ended ({how}); its log: {}; `{}` starts it again",
                process.log().display(),
                command(dir, &format!("start {name}"))
            );
            self.ended.push(name);
            dir.write_pids(&self.processes())?;
        }
        for name in dir.requests()? {
            let result = self.start_again(&name).await;
            dir.answer(&name, result.as_ref().err())?;
            if result.is_ok() {
                println!("{name} runs again");
                self.ended.retain(|ended| *ended != name);
                dir.write_pids(&self.processes())?;
            }
        }
        Ok(())
    }

    async fn start_again(&self, name: &str) -> Result<()> {
        let processes = self.processes();
        let Some(process) = processes.iter().find(|p| p.name() == name) else {
            let names: Vec<&str> = processes.iter().map(Process::name).collect();
            bail!("there is no {name}: there are {}", names.join(", "));
        };
        if process.is_running() {
            bail!("{name} is running");
        }
        let number = name.rsplit_once('-').and_then(|(_, n)| n.parse::<usize>().ok());
        match (&self.stack, number) {
            (Some(stack), Some(i)) if name.starts_with("kafka-") => stack.kafka(i).restart().await,
            (Some(stack), Some(i)) if name.starts_with("shard-") => stack.shard(i).restart().await,
            _ => {
                process.restart()?;
                match &self.product {
                    Some(product) => product.ready(PATIENCE).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Stops the product in good order, then the servers.
    async fn end(&mut self, dir: &Dir) {
        if let Some(product) = self.product.take() {
            product.stop(PATIENCE).await;
        }
        if let Some(stack) = self.stack.take() {
            stack.stop().await;
        }
        if let Err(error) = dir.clear() {
            eprintln!("{error:#}");
        }
    }
}

fn value<'a>(env: &'a [(String, String)], name: &str) -> &'a str {
    env.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// Builds the product, in the profile that this command was built in; returns a copy of its own in the folder, which
/// later builds do not change under a running process.
fn build(dir: &Dir) -> Result<PathBuf> {
    println!("building hookmill …");
    let me = std::env::current_exe()?;
    let target = me.parent().context("this program lies in no folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(repository())
        .args(["build", "--package", "hookmill", "--bin", "hookmill"]);
    if target.ends_with("release") {
        command.arg("--release");
    }
    if !command
        .status()
        .context("cargo cannot be started: install Rust from https://rustup.rs")?
        .success()
    {
        bail!("the product does not build: see above");
    }
    dir.keep_binary(&target.join("hookmill"))
}

fn say_what_next(dir: &Dir, addresses: &[product::Address]) {
    let first = &addresses[0];
    println!(
        "running. Look at
  {admin}/            what is going on, for people
  {admin}/stats       the same for programs; also /metrics, /health/ready
  {logs}        logs
  {env}         addresses and secrets; load them with: set -a; . '{env}'; set +a
then try
  {command} send --count 1000 --duplicates 5 --poison 3
  {status}
  kill -9 $(awk '$1 == \"shard-1\" {{ print $2 }}' '{pids}')   and   {start}
  HOOKMILL_INGEST__LISTEN=127.0.0.1:8090 HOOKMILL_ADMIN__LISTEN=127.0.0.1:8091 $HOOKMILL_BIN serve -c config.toml   one more instance",
        admin = first.admin_url(),
        logs = dir.logs().display(),
        env = dir.env_file().display(),
        pids = dir.pids_file().display(),
        command = crate::COMMAND,
        status = command(dir, "status"),
        start = command(dir, "start shard-1"),
    );
}
