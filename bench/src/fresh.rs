//! How fresh the tables are: from received to committed, in steady state.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::Utc;
use dev::send::Webhook;
use dev::stack::Stack;
use hookmill_actors::kafka::KafkaSettings;
use hookmill_schema::Kind;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

use crate::drain::{Watch, drop_databases, prepare};
use crate::limit::Limit;
use crate::product::{self, Deployment, Part, Product};
use crate::report::{Comparison, Figures, Meter, Spread, hundredths};
use crate::workload::{self, Topics};

/// Settling before what counts.
const WARM_UP: Duration = Duration::from_secs(3);

/// Events a second while the servers warm up.
const WARM_UP_RATE: u32 = 4000;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Events a second, several with commas between.
    #[arg(long, value_delimiter = ',', default_value = "500,2000,5000")]
    pub rates: Vec<u32>,
    /// How long each side is measured at each rate.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// How often both sides are measured.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Use the release binary that is there, rather than have cargo bring it up to date.
    #[arg(long)]
    pub no_build: bool,
}

/// Runs the measurement.
pub async fn run(args: Args) -> Result<()> {
    let product = Product::find(args.no_build).await?;
    let Fresh { comparisons, beside } = compare(&product, &args).await?;
    println!("{}", beside.json());
    for comparison in comparisons {
        println!("{}", comparison.json("fresh"));
    }
    Ok(())
}

/// What was measured.
pub struct Fresh {
    /// Each rate.
    pub comparisons: Vec<Comparison>,
    /// While a shard is dead.
    pub beside: Beside,
}

/// What the events of a shard take beside another one, by round: p50 and p99 in ms.
#[derive(Default)]
pub struct Beside {
    /// While the other one lives.
    pub living: Vec<(f64, f64)>,
    /// While the other one is dead.
    pub dead: Vec<(f64, f64)>,
}

impl Beside {
    /// Events a second of both shards together.
    pub const RATE: u32 = 2000;

    /// Median and spread of the 99th percentiles, in ms: beside a living shard, beside a dead one, and the ratio.
    pub fn p99(&self) -> [Spread; 3] {
        let of = |rounds: &[(f64, f64)]| Spread::of(rounds.iter().map(|(_, p99)| *p99));
        let ratios = self
            .dead
            .iter()
            .zip(&self.living)
            .map(|(dead, living)| dead.1 / living.1);
        [of(&self.living), of(&self.dead), Spread::of(ratios)]
    }

    /// For the last line of output.
    pub fn json(&self) -> Value {
        let [living, dead, ratio] = self.p99().map(|spread| hundredths(spread.median));
        json!({ "bench": "fresh", "name": "one shard dead", "rate": Self::RATE, "p99_ms_beside_living": living,
            "p99_ms_beside_dead": dead, "ratio": ratio })
    }
}

/// Each rate in its own comparison, and then a shard beside a dead one.
pub async fn compare(product: &Product, args: &Args) -> Result<Fresh> {
    let stack = product::start_servers().await?;
    for shard in stack.shards() {
        // Postgres then knows when each row was committed.
        let set = "ALTER SYSTEM SET track_commit_timestamp = on";
        shard.execute("postgres", set).await?;
        shard.restart().await?;
    }
    // Until Java has compiled what a Kafka that is asked for records does all day.
    eprintln!("warming the servers up");
    for is_ours in [true, false] {
        let name = format!("fresh_warm_up_{is_ours}");
        measure(product, &stack, &name, is_ours, WARM_UP_RATE, WARM_UP * 4).await?;
    }
    let mut comparisons = Vec::new();
    for rate in &args.rates {
        let settings = json!({ "rate": rate, "seconds": args.seconds });
        let mut comparison = Comparison::new(format!("fresh, {rate} events/s"), settings);
        for round in 1..=args.rounds {
            for is_ours in [round % 2 == 1, round % 2 == 0] {
                let side = if is_ours { "ours" } else { "limit" };
                let name = format!("fresh_{side}_{rate}_{round}");
                let seconds = Duration::from_secs(args.seconds);
                let figures = measure(product, &stack, &name, is_ours, *rate, seconds).await;
                comparison.add(round, is_ours, figures.with_context(|| name)?);
            }
        }
        comparisons.push(comparison);
    }
    let mut beside = Beside::default();
    for round in 1..=args.rounds {
        let name = format!("beside_{round}");
        let [living, dead] = one_dead(product, &stack, &name, args.seconds).await.context(name)?;
        println!(
            "one shard dead, {} events/s, round {round}: the other one's p50 {:.2} ms, before {:.2}; p99 {:.2} ms, before {:.2}",
            Beside::RATE,
            dead.0,
            living.0,
            dead.1,
            living.1
        );
        beside.living.push(living);
        beside.dead.push(dead);
    }
    stack.stop().await;
    Ok(Fresh { comparisons, beside })
}

/// What the first shard's events take, p50 and p99 in ms: while the second one lives, and from its being killed on.
async fn one_dead(product: &Product, stack: &Stack, name: &str, seconds: u64) -> Result<[(f64, f64); 2]> {
    let topics = Topics::shipped(name);
    let urls = stack.create_databases(name).await?;
    prepare(stack, &urls).await?;
    let deployment = Deployment::new(name, &topics, urls.clone());
    product.create_topics(stack, &deployment).await?;
    let instance = product.serve(stack, name, Part::Writers, &deployment).await?;
    let sender = Sender::start(stack.brokers(), topics, Beside::RATE)?;
    until(&Watch::start(&urls).await?, 1).await?;
    let mut times = [(Utc::now(), Utc::now()); 2];
    for (is_dead, time) in [false, true].into_iter().zip(&mut times) {
        if is_dead {
            stack.shard(1).process().kill();
        } else {
            tokio::time::sleep(WARM_UP * 2).await;
        }
        time.0 = Utc::now();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        time.1 = Utc::now();
    }
    stack.shard(1).restart().await?;
    // Nothing is told of before all of it is there, or the slowest would be missing.
    let sent = sender.stop()?;
    until(&Watch::start(&urls).await?, sent)
        .await
        .with_context(|| instance.process.obituary().to_string())?;
    let mut measured = [(0.0, 0.0); 2];
    for ((from, to), measured) in times.into_iter().zip(&mut measured) {
        *measured = latencies(&urls[..1], from, to).await?;
    }
    drop(instance);
    drop_databases(stack, name).await?;
    Ok(measured)
}

async fn measure(
    product: &Product,
    stack: &Stack,
    name: &str,
    is_ours: bool,
    rate: u32,
    seconds: Duration,
) -> Result<Figures> {
    let topics = Topics::shipped(name);
    let urls = stack.create_databases(name).await?;
    prepare(stack, &urls).await?;
    let deployment = Deployment::new(name, &topics, urls.clone());
    product.create_topics(stack, &deployment).await?;
    let (ours, limit) = if is_ours {
        (
            Some(product.serve(stack, name, Part::Writers, &deployment).await?),
            None,
        )
    } else {
        (None, Some(Limit::drain(stack, name, &deployment)?))
    };
    let process = match (&ours, &limit) {
        (Some(instance), _) => &instance.process,
        (None, Some(limit)) => &limit.0,
        (None, None) => bail!("there are two sides"),
    };
    let sender = Sender::start(stack.brokers(), topics, rate)?;
    let watch = Watch::start(&urls).await?;
    until(&watch, 1).await?;
    tokio::time::sleep(WARM_UP).await;
    let (from, before) = (Utc::now(), watch.written().await?);
    let meter = Meter::start(process.pid(), stack)?;
    tokio::time::sleep(seconds).await;
    let to = Utc::now();
    let mut figures = meter.read(watch.written().await? - before)?;
    let sent = sender.stop()?;
    until(&watch, sent)
        .await
        .with_context(|| process.obituary().to_string())?;
    figures.latency_ms = Some(latencies(&urls, from, to).await?);
    drop((ours, limit, watch));
    drop_databases(stack, name).await?;
    Ok(figures)
}

/// Waits until so many records are written.
async fn until(watch: &Watch, records: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while watch.written().await? < records {
        if Instant::now() > deadline {
            bail!("{} of {records} are written after a minute", watch.written().await?);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Median and 99th percentile, in ms, over the events received between two times on all shards.
async fn latencies(urls: &[String], from: chrono::DateTime<Utc>, to: chrono::DateTime<Utc>) -> Result<(f64, f64)> {
    let mut all = Vec::new();
    for url in urls {
        let (client, connection): (Client, _) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let sql = format!(
            "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin) - received_at) * 1000)::float8 FROM order_events
             WHERE received_at BETWEEN '{}' AND '{}'",
            from.to_rfc3339(),
            to.to_rfc3339()
        );
        for row in client.query(&sql, &[]).await? {
            all.push(row.try_get::<_, f64>(0)?);
        }
    }
    if all.is_empty() {
        bail!("no event was received and committed in the measured time");
    }
    all.sort_by(f64::total_cmp);
    let percentile = |p: usize| all[(all.len() - 1) * p / 100];
    Ok((percentile(50), percentile(99)))
}

/// Puts events on the orders' topic at a steady rate, from a thread of its own.
pub struct Sender {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<Result<u64>>,
}

impl Sender {
    /// Starts sending.
    pub fn start(brokers: String, topics: Topics, rate: u32) -> Result<Self> {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let kafka = KafkaSettings {
            brokers,
            ..KafkaSettings::default()
        };
        let mut config = kafka.producer(Duration::from_secs(60), 2 << 20);
        // So that whoever polls without waiting keeps up.
        config.set("delivery.report.only.error", "true");
        let producer: BaseProducer = config.create()?;
        let thread = std::thread::Builder::new().name("sender".to_owned()).spawn(move || {
            let mut sender = workload::generators(&["standard"], 1, 1, &topics.orders.0).remove(0);
            let mut webhook = sender.next().context("a webhook")?;
            let began = Instant::now();
            let mut sent = 0_u64;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                // What is due by now: a late wake-up is made up for, as arrivals do not wait.
                let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                while sent < due {
                    send(&producer, &topics, &mut webhook, sent)?;
                    sent += 1;
                }
                producer.poll(Duration::ZERO);
                // Not in the poll: that waits for whole milliseconds and asks over and over for the rest, a core of the two.
                std::thread::sleep(Duration::from_millis(1));
            }
            producer.flush(Duration::from_secs(20))?;
            Ok(sent)
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it; how many it sent.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?
    }
}

fn send(producer: &BaseProducer, topics: &Topics, webhook: &mut Webhook, number: u64) -> Result<()> {
    // Four events for each order, close in time.
    let order = number / 4;
    let mixed = order.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    webhook.expect.order_id = format!("ord_{mixed:016x}");
    webhook.expect.event_id = format!("msg_{mixed:016x}s{}", number % 4);
    webhook.expect.occurred_at = Utc::now();
    let user = format!("user-{mixed:016x}");
    let value = workload::encode(webhook, Kind::Order, &user)?;
    let record = BaseRecord::to(&topics.orders.0)
        .key(&user)
        .payload(&value)
        .headers(workload::headers());
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(())
}
