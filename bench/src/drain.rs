//! From full topics to the shards.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dev::process::Process;
use dev::stack::{Options, Stack};
use hookmill_schema::shard::connect_upkeep;
use hookmill_schema::{ConnectSettings, migrations, partitions};
use serde_json::json;
use tokio_postgres::{Client, NoTls};

use crate::Amount;
use crate::limit::Limit;
use crate::product::{Part, Product};
use crate::records::{self, Filled};
use crate::report::{Figures, Meter, summary};

/// Without a commit for so long, something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the comparison.
pub async fn run(amount: Amount) -> Result<()> {
    let product = Product::find(amount.no_build).await?;
    eprintln!("starting Kafka and two shards");
    let stack = Stack::start(Options::default()).await?;
    product.create_topics(&stack).await?;
    let (brokers, events) = (stack.brokers(), amount.events);
    let filled = tokio::task::spawn_blocking(move || records::fill(brokers, events)).await??;
    eprintln!("warming the servers up");
    measure(&product, &stack, "warm_up", false, filled).await?;
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for round in 1..=amount.rounds {
        // Neither side always comes after the other.
        for is_ours in [round % 2 == 1, round % 2 == 0] {
            let side = if is_ours { "ours" } else { "limit" };
            let figures = measure(&product, &stack, &format!("{side}_{round}"), is_ours, filled)
                .await
                .with_context(|| format!("round {round}, {side}"))?;
            figures.print("drain", round, side);
            if is_ours { &mut ours } else { &mut limit }.push(figures);
        }
    }
    let more = json!({ "orders": filled.orders, "disputes": filled.disputes, "shards": stack.shards().len() });
    summary("drain", events, &ours, &limit, more);
    stack.stop().await;
    Ok(())
}

/// One side, with fresh databases named `name`.
async fn measure(product: &Product, stack: &Stack, name: &str, is_ours: bool, filled: Filled) -> Result<Figures> {
    let urls = stack.create_databases(name).await?;
    for url in &urls {
        migrations::run(url, &ConnectSettings::default()).await?;
        let mut connection = connect_upkeep(url, &ConnectSettings::default()).await?;
        partitions::ensure_ahead(&mut connection, 1).await?;
    }
    for shard in stack.shards() {
        // What the side before left to be written is not this one's to pay for.
        shard.execute("postgres", "CHECKPOINT").await?;
    }
    let watch = Watch::start(&urls).await?;
    let figures = if is_ours {
        let instance = product.serve(stack, name, Part::Writers, &urls).await?;
        watch.until_written(&instance.process, stack, filled).await?
    } else {
        let (brokers, urls) = (stack.brokers(), urls.join(","));
        let limit = Limit::start(
            stack,
            name,
            ["limit-drain", "--brokers", &brokers, "--shard-urls", &urls],
        )?;
        watch.until_written(&limit.0, stack, filled).await?
    };
    watch.check(filled).await?;
    drop(watch);
    for shard in stack.shards() {
        shard
            .execute("postgres", &format!("DROP DATABASE {name} WITH (FORCE)"))
            .await?;
    }
    Ok(figures)
}

/// Looks on from outside, in the same way for both sides.
struct Watch(Vec<Client>);

impl Watch {
    async fn start(urls: &[String]) -> Result<Self> {
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

    async fn written(&self) -> Result<u64> {
        self.sum("SELECT coalesce(sum(next_offset), 0)::int8 FROM consumer_offsets")
            .await
    }

    /// Measures from the first movement of an offset to the last.
    async fn until_written(&self, process: &Process, stack: &Stack, filled: Filled) -> Result<Figures> {
        let total = filled.orders + filled.disputes;
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
