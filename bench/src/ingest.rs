//! From signed webhooks to Kafka's acknowledgement.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use dev::process::Process;
use dev::stack::{Options, Stack, free_ports};
use hookmill_actors::kafka::{KafkaSettings, Probe};
use serde_json::json;

use crate::limit::Limit;
use crate::product::{DISPUTES, ORDERS, Part, Product, until_ready};
use crate::report::{Figures, Meter, hundredths, median, summary};
use crate::{Amount, load, records};

/// One in so many events is sent before the measurement, so that threads, buffers and Kafka's session are there.
const WARM_UP: u64 = 20;

/// Runs the comparison.
pub async fn run(amount: Amount, connections: usize) -> Result<()> {
    let product = Product::find(amount.no_build).await?;
    eprintln!("starting Kafka and two shards");
    let stack = Stack::start(Options::default()).await?;
    product.create_topics(&stack).await?;
    let kafka = KafkaSettings {
        brokers: stack.brokers(),
        ..KafkaSettings::default()
    };
    let bench = Bench {
        product,
        probe: Probe::new(&kafka)?,
        stack,
        events: amount.events,
        connections,
    };
    eprintln!("warming the servers up");
    bench.measure("warm_up", false).await?;
    let (mut ours, mut limit): (Vec<Measured>, Vec<Measured>) = (Vec::new(), Vec::new());
    for round in 1..=amount.rounds {
        // Neither side always comes after the other.
        for is_ours in [round % 2 == 1, round % 2 == 0] {
            let side = if is_ours { "ours" } else { "limit" };
            let measured = bench.measure(&format!("{side}_{round}"), is_ours).await;
            let measured = measured.with_context(|| format!("round {round}, {side}"))?;
            measured.figures.print("ingest", round, side);
            if is_ours { &mut ours } else { &mut limit }.push(measured);
        }
    }
    let latency = |side: &[Measured], what: fn(&Measured) -> f64| hundredths(median(side.iter().map(what).collect()));
    let more = json!({
        "connections": connections,
        "ours_p50_ms": latency(&ours, |m| m.p50_ms),
        "ours_p99_ms": latency(&ours, |m| m.p99_ms),
        "limit_p50_ms": latency(&limit, |m| m.p50_ms),
        "limit_p99_ms": latency(&limit, |m| m.p99_ms),
    });
    let figures = |side: &[Measured]| side.iter().map(|m| m.figures).collect::<Vec<Figures>>();
    summary("ingest", amount.events, &figures(&ours), &figures(&limit), more);
    bench.stack.stop().await;
    Ok(())
}

struct Bench {
    product: Product,
    probe: Probe,
    stack: Stack,
    events: u64,
    connections: usize,
}

struct Measured {
    figures: Figures,
    p50_ms: f64,
    p99_ms: f64,
}

impl Bench {
    async fn measure(&self, name: &str, is_ours: bool) -> Result<Measured> {
        if is_ours {
            let urls = self.stack.shard_urls();
            let instance = self.product.serve(&self.stack, name, Part::Ingest, &urls).await?;
            self.load(name, &instance.process, &instance.ingest).await
        } else {
            let listen = format!("127.0.0.1:{}", free_ports(1)?[0]);
            let brokers = self.stack.brokers();
            let args = ["limit-ingest", "--brokers", &brokers, "--listen", &listen];
            let limit = Limit::start(&self.stack, name, args)?;
            until_ready(&limit.0, &listen, "/health/ready").await?;
            self.load(name, &limit.0, &listen).await
        }
    }

    async fn load(&self, name: &str, process: &Process, address: &str) -> Result<Measured> {
        let warm_up = self.requests(self.events / WARM_UP, &format!("{name}w")).await?;
        let requests = self.requests(self.events, name).await?;
        load::send(address, warm_up)
            .await
            .map_err(|error| told(error, process))?;
        let before = self.on_topics().await?;
        let meter = Meter::start(process.pid(), &self.stack)?;
        eprintln!("{name}: sending {} webhooks", self.events);
        let times = load::send(address, requests)
            .await
            .map_err(|error| told(error, process))?;
        let figures = meter.read(self.events)?;
        let held = self.on_topics().await? - before;
        if held < self.events {
            bail!(
                "{} webhooks were acknowledged, the topics hold {held} of them",
                self.events
            );
        }
        let percentile = |p: usize| times[(times.len() - 1) * p / 100].as_secs_f64() * 1e3;
        Ok(Measured {
            figures,
            p50_ms: percentile(50),
            p99_ms: percentile(99),
        })
    }

    /// Signed requests for each connection; made shortly before they are sent, because signatures age.
    async fn requests(&self, count: u64, run_id: &str) -> Result<Vec<Vec<Vec<u8>>>> {
        let senders = records::generators(&["standard"], self.connections as u64, count, run_id);
        let make = move || {
            senders
                .into_iter()
                .map(|sender| sender.map(|webhook| load::request(&webhook)).collect())
                .collect()
        };
        tokio::task::spawn_blocking(make).await?
    }

    async fn on_topics(&self) -> Result<u64> {
        let mut sum = 0;
        for (topic, partitions) in [ORDERS, DISPUTES] {
            let marks = self
                .probe
                .all_watermarks(topic, partitions, Duration::from_secs(20))
                .await?;
            sum += marks.iter().map(|marks| marks.high).sum::<i64>();
        }
        Ok(u64::try_from(sum)?)
    }
}

/// With the last words of the process that was asked.
fn told(error: anyhow::Error, process: &Process) -> anyhow::Error {
    error.context(process.obituary())
}
