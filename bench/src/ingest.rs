//! From signed webhooks to Kafka's acknowledgement.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use dev::process::Process;
use dev::stack::{Stack, free_ports};
use hookmill_actors::kafka::{KafkaSettings, Probe};
use serde_json::json;

use crate::limit::{Limit, Sending};
use crate::load::Answered;
use crate::product::{self, Deployment, Part, Product, until_ready};
use crate::report::{Comparison, Figures, Meter};
use crate::workload::{self, Topics};
use crate::{Amount, load};

/// One in so many events is sent before the measurement, so that threads, buffers and Kafka's session are there.
const WARM_UP: u64 = 20;

/// How the bare handler may send: what suits it depends on the connections.
const SENDINGS: [Sending; 4] = [sending(2, "0"), sending(3, "0"), sending(5, "0"), sending(5, "1")];

const fn sending(in_flight: u8, linger_ms: &'static str) -> Sending {
    Sending { in_flight, linger_ms }
}

/// Who is measured.
#[derive(Clone, Copy)]
enum Side {
    Ours,
    /// The bare handler, which sends in this way.
    Limit(Sending),
}

impl Side {
    fn name(self) -> String {
        match self {
            Side::Ours => "ours".to_owned(),
            Side::Limit(Sending { in_flight, linger_ms }) => format!("limit{in_flight}_{linger_ms}"),
        }
    }
}

/// Runs one comparison.
pub async fn run(amount: Amount, connections: usize) -> Result<()> {
    let product = Product::find(amount.no_build).await?;
    let bench = Bench::start(product).await?;
    let comparison = bench.compare(connections, amount.events, amount.rounds).await?;
    println!("{}", comparison.json("ingest"));
    bench.stop().await;
    Ok(())
}

/// Servers that run.
pub struct Bench {
    product: Product,
    probe: Probe,
    stack: Stack,
    topics: Topics,
}

impl Bench {
    /// Starts the servers.
    pub async fn start(product: Product) -> Result<Self> {
        let stack = product::start_servers().await?;
        let topics = Topics::shipped("ingest");
        let deployment = Deployment::new("topics", &topics, stack.shard_urls());
        product.create_topics(&stack, &deployment).await?;
        let kafka = KafkaSettings {
            brokers: stack.brokers(),
            ..KafkaSettings::default()
        };
        let bench = Self {
            product,
            probe: Probe::new(&kafka)?,
            stack,
            topics,
        };
        // Until Java has compiled what a Kafka that takes records does all day; those of the two sides are not alike.
        eprintln!("warming the servers up");
        for (name, side) in [
            ("warm_up_ours", Side::Ours),
            ("warm_up_limit", Side::Limit(sending(3, "0"))),
        ] {
            bench.measure(name, side, 64, 400_000).await?;
        }
        Ok(bench)
    }

    /// Measures both sides `rounds` times, alternating; the bare handler in each of [`SENDINGS`], of which the best is the limit.
    pub async fn compare(&self, connections: usize, events: u64, rounds: usize) -> Result<Comparison> {
        let name = format!("ingest, connections {connections}");
        let mut ours = Comparison::new(name.clone(), json!({ "connections": connections, "events": events }));
        let mut limits = SENDINGS.map(|sending| {
            let Sending { in_flight, linger_ms } = sending;
            let settings = json!({
                "connections": connections, "events": events,
                "limit_in_flight": in_flight, "limit_linger_ms": linger_ms,
            });
            let name = format!("{name}, {in_flight} in flight, linger {linger_ms} ms");
            (sending, Comparison::new(name, settings))
        });
        let mut sides = vec![Side::Ours];
        sides.extend(SENDINGS.map(Side::Limit));
        for round in 1..=rounds {
            // None always comes first, or after the same one.
            sides.rotate_left(1);
            let mut order = sides.clone();
            if round % 2 == 0 {
                order.reverse();
            }
            for side in order {
                let name = format!("{}_{connections}_{round}", side.name());
                let figures = self.measure(&name, side, connections, events).await;
                let figures = figures.with_context(|| name)?;
                match side {
                    Side::Ours => ours.add(round, true, figures),
                    Side::Limit(sending) => {
                        let limit = limits.iter_mut().find(|(of, _)| *of == sending);
                        limit.context("a limit nobody asked for")?.1.add(round, false, figures);
                    }
                }
            }
        }
        let limits = limits.into_iter().map(|(_, limit)| limit);
        let best = limits.max_by(|a, b| a.limit_rate().total_cmp(&b.limit_rate()));
        let best = best.context("a limit")?;
        Ok(Comparison {
            name,
            ours: ours.ours,
            ..best
        })
    }

    /// Stops the servers.
    pub async fn stop(self) {
        self.stack.stop().await;
    }

    /// Presses `webhooks` through so many connections at once on a fresh instance, 503 being an answer as well.
    pub async fn press(&self, name: &str, connections: usize, webhooks: u64) -> Result<Vec<Answered>> {
        let deployment = Deployment::new(name, &self.topics, self.stack.shard_urls());
        let instance = self.product.serve(&self.stack, name, Part::Ingest, &deployment).await?;
        let warm_up = requests(64, webhooks / WARM_UP, &format!("{name}w")).await?;
        load::send(&instance.ingest, warm_up).await?;
        let requests = requests(connections, webhooks, name).await?;
        let before = self.on_topics().await?;
        let answers = load::press(&instance.ingest, requests).await;
        let answers = answers.map_err(|error| told(error, &instance.process))?;
        let accepted = answers.iter().filter(|answer| answer.is_accepted).count() as u64;
        let held = self.on_topics().await? - before;
        if held < accepted {
            bail!("{accepted} webhooks were acknowledged, the topics hold {held} of them");
        }
        Ok(answers)
    }

    /// Measures the product with further settings.
    pub async fn ours(
        &self,
        name: &str,
        connections: usize,
        events: u64,
        env: Vec<(&'static str, String)>,
    ) -> Result<Figures> {
        let mut deployment = Deployment::new(name, &self.topics, self.stack.shard_urls());
        deployment.env = env;
        let instance = self.product.serve(&self.stack, name, Part::Ingest, &deployment).await?;
        self.load(name, &instance.process, &instance.ingest, connections, events)
            .await
    }

    /// Where Kafka, of one broker, is `delay` farther away, each way.
    pub fn distant_brokers(&self, delay: Duration) -> String {
        self.stack.kafka(0).proxy().delay(delay);
        self.stack.proxied_brokers()
    }

    async fn measure(&self, name: &str, side: Side, connections: usize, events: u64) -> Result<Figures> {
        match side {
            Side::Ours => self.ours(name, connections, events, Vec::new()).await,
            Side::Limit(sending) => {
                let listen = format!("127.0.0.1:{}", free_ports(1)?[0]);
                let limit = Limit::ingest(&self.stack, name, &self.topics, &listen, sending)?;
                until_ready(&limit.0, &listen, "/health/ready").await?;
                self.load(name, &limit.0, &listen, connections, events).await
            }
        }
    }

    async fn load(
        &self,
        name: &str,
        process: &Process,
        address: &str,
        connections: usize,
        events: u64,
    ) -> Result<Figures> {
        let warm_up = requests(connections, events / WARM_UP, &format!("{name}w")).await?;
        let requests = requests(connections, events, name).await?;
        load::send(address, warm_up)
            .await
            .map_err(|error| told(error, process))?;
        let before = self.on_topics().await?;
        let meter = Meter::start(process.pid(), &self.stack)?;
        let times = load::send(address, requests)
            .await
            .map_err(|error| told(error, process))?;
        let mut figures = meter.read(events)?;
        let held = self.on_topics().await? - before;
        if held < events {
            bail!("{events} webhooks were acknowledged, the topics hold {held} of them");
        }
        let percentile = |p: usize| times[(times.len() - 1) * p / 100].as_secs_f64() * 1e3;
        figures.latency_ms = Some((percentile(50), percentile(99)));
        Ok(figures)
    }

    async fn on_topics(&self) -> Result<u64> {
        let mut sum = 0;
        for (topic, partitions) in self.topics.both() {
            let ends = self
                .probe
                .high_watermarks(topic, *partitions, Duration::from_secs(20))
                .await?;
            sum += ends.iter().sum::<i64>();
        }
        Ok(u64::try_from(sum)?)
    }
}

/// Signed requests for each connection; made shortly before they are sent, because signatures age.
async fn requests(connections: usize, count: u64, run_id: &str) -> Result<Vec<Vec<Vec<u8>>>> {
    let senders = workload::generators(&["standard"], connections as u64, count, run_id);
    let make = move || {
        senders
            .into_iter()
            .map(|sender| sender.map(|webhook| load::request(&webhook)).collect())
            .collect()
    };
    tokio::task::spawn_blocking(make).await?
}

/// With the last words of the process that was asked.
fn told(error: anyhow::Error, process: &Process) -> anyhow::Error {
    error.context(process.obituary())
}
