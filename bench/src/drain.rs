//! From full topics to the shards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dev::process::Process;
use dev::stack::Stack;
use hookmill_schema::shard::connect_upkeep;
use hookmill_schema::{ConnectSettings, migrations, partitions};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

use crate::Amount;
use crate::limit::Limit;
use crate::product::{self, Deployment, Part, Product};
use crate::report::{Comparison, Figures, Meter};
use crate::workload::{self, Filled, Mode, Topics};

/// Without a commit for so long, something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// One comparison: what is drained, and over how many connections.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Case {
    /// What is drained.
    #[arg(long, value_enum, default_value = "realistic")]
    pub mode: Mode,
    /// Over how many shards: 1 or 2.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub shards: u8,
    /// Over how many connections to each shard, on both sides.
    #[arg(long, default_value_t = 2)]
    pub lanes: usize,
}

/// Topics that were filled for a mode.
struct Full {
    topics: Topics,
    filled: Filled,
}

/// Servers that run, with topics that are full.
pub struct Bench {
    product: Product,
    stack: Stack,
    full: Vec<(Mode, Full)>,
    databases: u32,
}

impl Bench {
    /// Starts the servers and fills topics with `events` of each mode.
    pub async fn start(product: Product, modes: &[Mode], events: u64) -> Result<Self> {
        let stack = product::start_servers().await?;
        let mut full = Vec::new();
        for mode in modes {
            let topics = Topics::shipped(mode.as_str());
            let deployment = Deployment::new("topics", &topics, stack.shard_urls());
            product.create_topics(&stack, &deployment).await?;
            let (brokers, names, mode) = (stack.brokers(), topics.clone(), *mode);
            let filled = tokio::task::spawn_blocking(move || workload::fill(brokers, &names, mode, events)).await??;
            full.push((mode, Full { topics, filled }));
        }
        let mut bench = Self {
            product,
            stack,
            full,
            databases: 0,
        };
        // Until Java has compiled what a Kafka that is asked for records does all day: about half a minute of it.
        eprintln!("warming the servers up");
        let case = Case {
            mode: modes[0],
            shards: 2,
            lanes: 2,
        };
        for is_ours in [true, false, true, false] {
            bench.measure(case, is_ours).await?;
        }
        Ok(bench)
    }

    /// Measures both sides `rounds` times, alternating.
    pub async fn compare(&mut self, case: Case, rounds: usize) -> Result<Comparison> {
        let Case { mode, shards, lanes } = case;
        let mode = mode.as_str();
        let name = format!("drain, {mode}, shards {shards}, lanes {lanes}");
        let settings = json!({ "mode": mode, "shards": shards, "lanes": lanes });
        let mut comparison = Comparison::new(name, settings);
        for round in 1..=rounds {
            // Neither side always comes after the other.
            for is_ours in [round % 2 == 1, round % 2 == 0] {
                let figures = self.measure(case, is_ours).await;
                let side = if is_ours { "ours" } else { "limit" };
                let figures = figures.with_context(|| format!("{}, round {round}, {side}", comparison.name))?;
                comparison.add(round, is_ours, figures);
            }
        }
        Ok(comparison)
    }

    /// One side, with fresh databases.
    async fn measure(&mut self, case: Case, is_ours: bool) -> Result<Figures> {
        self.databases += 1;
        let name = format!("drain{}", self.databases);
        let Self {
            product, stack, full, ..
        } = self;
        let found = full.iter().find(|(mode, _)| *mode == case.mode);
        let Full { topics, filled } = found.map(|(_, full)| full).context("a mode without topics")?;
        let mut urls = stack.create_databases(&name).await?;
        urls.truncate(case.shards.into());
        prepare(stack, &urls).await?;
        let watch = Watch::start(&urls).await?;
        let mut deployment = Deployment::new(&name, topics, urls);
        deployment.lanes = case.lanes;
        let figures = if is_ours {
            let instance = product.serve(stack, &name, Part::Writers, &deployment).await?;
            watch.until_written(&instance.process, stack, *filled).await?
        } else {
            let limit = Limit::drain(stack, &name, &deployment)?;
            watch.until_written(&limit.0, stack, *filled).await?
        };
        watch.check(*filled).await?;
        drop(watch);
        drop_databases(stack, &name).await?;
        Ok(figures)
    }

    /// Stops the servers.
    pub async fn stop(self) {
        self.stack.stop().await;
    }
}

/// Makes tables, and writes out what the side before left behind, which is not this one's to pay for.
pub async fn prepare(stack: &Stack, urls: &[String]) -> Result<()> {
    for url in urls {
        migrations::run(url, &ConnectSettings::default()).await?;
        let mut connection = connect_upkeep(url, &ConnectSettings::default()).await?;
        partitions::ensure_ahead(&mut connection, 1).await?;
    }
    for shard in stack.shards() {
        shard.execute("postgres", "CHECKPOINT").await?;
    }
    Ok(())
}

/// Drops the databases of this name on every shard.
pub async fn drop_databases(stack: &Stack, name: &str) -> Result<()> {
    for shard in stack.shards() {
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        shard.execute("postgres", &drop).await?;
    }
    Ok(())
}

/// Runs one comparison.
pub async fn run(amount: Amount, case: Case) -> Result<()> {
    let product = Product::find(amount.no_build).await?;
    let mut bench = Bench::start(product, &[case.mode], amount.events).await?;
    let comparison = bench.compare(case, amount.rounds).await?;
    println!("{}", comparison.json("drain"));
    bench.stop().await;
    Ok(())
}

/// Looks on from outside, in the same way for both sides.
pub struct Watch(Vec<Client>);

impl Watch {
    /// Connects.
    pub async fn start(urls: &[String]) -> Result<Self> {
        let mut clients = Vec::new();
        for url in urls {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            clients.push(client);
        }
        Ok(Self(clients))
    }

    async fn sum(&self, sql: &str) -> Result<u64> {
        let mut sum = 0;
        for client in &self.0 {
            sum += client.query_one(sql, &[]).await?.try_get::<_, i64>(0)?;
        }
        Ok(u64::try_from(sum)?)
    }

    /// Records that are written by now.
    pub async fn written(&self) -> Result<u64> {
        self.sum("SELECT coalesce(sum(next_offset), 0)::int8 FROM consumer_offsets")
            .await
    }

    /// Measures from the first movement of an offset to the last.
    async fn until_written(&self, process: &Process, stack: &Stack, filled: Filled) -> Result<Figures> {
        let total = filled.records;
        let mut meter: Option<(Meter<'_>, u64)> = None;
        let (mut before, mut moved, mut told) = (0, Instant::now(), Instant::now());
        loop {
            let written = self.written().await?;
            if written > 0 && meter.is_none() {
                meter = Some((Meter::start(process.pid(), stack)?, written));
            }
            if let Some((meter, first)) = &meter
                && written >= total
            {
                if *first >= total {
                    bail!("all was written before anything could be measured: more --events");
                }
                return meter.read(total - first);
            }
            if written > before {
                (before, moved) = (written, Instant::now());
            }
            if moved.elapsed() > PATIENCE || !process.is_running() {
                return Err(process.obituary())
                    .with_context(|| format!("{written} of {total} written, and no further"));
            }
            if told.elapsed() > Duration::from_secs(2) {
                eprintln!("{}: {written} of {total}", process.name());
                told = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every event must be there exactly once.
    async fn check(&self, filled: Filled) -> Result<()> {
        let orders = self.sum("SELECT count(*) FROM order_events").await?;
        let disputes = self.sum("SELECT count(*) FROM dispute_events").await?;
        if (orders, disputes) != (filled.orders, filled.disputes) {
            bail!("the tables hold {orders} orders' and {disputes} disputes' events, the topics {filled:?}");
        }
        Ok(())
    }
}
