//! What must not grow: CPU for an event with the number of partitions and of instances; the time to the first write; the
//! silence while a partition changes hands.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dev::process::Signal;
use dev::stack::Stack;
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::Amount;
use crate::drain::{Watch, drop_databases, prepare};
use crate::fresh::Sender;
use crate::machine;
use crate::product::{self, Deployment, Instance, Part, Product, until_ready, until_shared};
use crate::report::{Spread, hundredths};
use crate::workload::{self, Mode, Topics};

/// Events a second while partitions change hands.
const RATE: u32 = 2000;

/// Partitions of orders, and instances: each case is drained once a round.
const CASES: [(i32, usize); 5] = [(24, 1), (6, 1), (96, 1), (24, 2), (24, 4)];

/// What was found, each with its unit in its name.
pub struct Flat {
    /// Those of [`CASES`].
    pub cases: Vec<Case>,
    /// Seconds from the start of the process to its first commit, of each instance that was alone.
    pub first_write_s: Vec<f64>,
    /// Protocol, event and the longest silence of a partition in seconds.
    pub hand_overs: Vec<(&'static str, &'static str, f64)>,
}

/// Drains of the same topics by as many instances.
pub struct Case {
    /// Partitions of orders.
    pub partitions: i32,
    /// Instances.
    pub instances: usize,
    /// CPU seconds of all instances per million events, of each round.
    pub cpu_s: Vec<f64>,
    /// The most memory that one instance ever had resident, in MB.
    pub peak_rss_mb: f64,
}

impl Flat {
    /// CPU for an event, by that of the first of [`CASES`] in the same round.
    pub fn cpu_ratio(&self, case: &Case) -> Spread {
        let of = self.cases.first().map_or(&[][..], |first| &first.cpu_s);
        Spread::of(case.cpu_s.iter().zip(of).map(|(cpu, of)| cpu / of))
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let line = |case: &Case| {
            let ratio = self.cpu_ratio(case);
            json!({
                "partitions": case.partitions,
                "instances": case.instances,
                "rounds": case.cpu_s.len(),
                "cpu_s_per_million": hundredths(Spread::of(case.cpu_s.iter().copied()).median),
                "ratio": hundredths(ratio.median),
                "ratio_min": hundredths(ratio.min),
                "ratio_max": hundredths(ratio.max),
                "peak_rss_mb": hundredths(case.peak_rss_mb),
            })
        };
        let hand_overs = self.hand_overs.iter();
        let hand_overs = hand_overs.map(|(protocol, event, s)| (format!("{protocol} {event}"), json!(hundredths(*s))));
        json!({
            "bench": "flat",
            "cases": self.cases.iter().map(line).collect::<Vec<_>>(),
            "first_write_s": self.first_write_s.iter().copied().map(hundredths).collect::<Vec<_>>(),
            "hand_over_s": hand_overs.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// Runs the measurements and prints them.
pub async fn run(amount: Amount) -> Result<()> {
    let product = Product::find(amount.no_build).await?;
    println!("{}", measure(&product, amount.events, amount.rounds).await?.json());
    Ok(())
}

/// Runs the measurements, with `events` for each drain, `rounds` times each.
pub async fn measure(product: &Product, events: u64, rounds: usize) -> Result<Flat> {
    let stack = product::start_servers().await?;
    for shard in stack.shards() {
        let set = "ALTER SYSTEM SET track_commit_timestamp = on";
        shard.execute("postgres", set).await?;
        shard.restart().await?;
    }
    let mut flat = Flat {
        cases: Vec::new(),
        first_write_s: Vec::new(),
        hand_overs: Vec::new(),
    };
    let mut filled = BTreeMap::new();
    for (partitions, instances) in CASES {
        if let Entry::Vacant(vacant) = filled.entry(partitions) {
            vacant.insert(fill(product, &stack, partitions, events).await?);
        }
        flat.cases.push(Case {
            partitions,
            instances,
            cpu_s: Vec::new(),
            peak_rss_mb: 0.0,
        });
    }
    // The servers' compilers and caches are not what is measured.
    drain(product, &stack, &filled[&CASES[0].0], "flat_warm_up", 1, events).await?;
    for round in 1..=rounds {
        let mut order: Vec<&mut Case> = flat.cases.iter_mut().collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for case in order {
            let Case {
                partitions,
                instances,
                cpu_s,
                peak_rss_mb,
            } = case;
            let name = format!("flat_{partitions}_{instances}_{round}");
            let drained = drain(product, &stack, &filled[partitions], &name, *instances, events).await?;
            let Drained {
                cpu_s: cpu,
                rss_mb,
                first_s,
            } = drained;
            println!(
                "flat, round {round}, partitions {partitions}, instances {instances}: {cpu:.1} CPU s per million, {rss_mb:.0} MB, first write after {first_s:.2} s"
            );
            cpu_s.push(cpu);
            *peak_rss_mb = peak_rss_mb.max(rss_mb);
            if *instances == 1 {
                flat.first_write_s.push(first_s);
            }
        }
    }
    for protocol in ["classic", "consumer"] {
        for (event, silence) in hand_overs(product, &stack, protocol).await? {
            println!(
                "flat, {protocol} protocol, an instance {event}: a partition was silent for {silence:.2} s at most"
            );
            flat.hand_overs.push((protocol, event, silence));
        }
    }
    stack.stop().await;
    Ok(flat)
}

async fn fill(product: &Product, stack: &Stack, partitions: i32, events: u64) -> Result<Topics> {
    let topics = Topics::new(&format!("flat{partitions}"), partitions, 6);
    let deployment = Deployment::new("topics", &topics, stack.shard_urls());
    product.create_topics(stack, &deployment).await?;
    let (brokers, names) = (stack.brokers(), topics.clone());
    let fill = move || workload::fill(brokers, &names, Mode::Uniform, events);
    tokio::task::spawn_blocking(fill).await??;
    Ok(topics)
}

/// What a drain took.
struct Drained {
    /// CPU seconds of all instances per million events, less those of a start that finds everything written. Were they counted
    /// from some later time on, many partitions would seem cheap: much of what is written then has been fetched before.
    cpu_s: f64,
    /// The most memory of an instance.
    rss_mb: f64,
    /// From the start of the processes to the first write.
    first_s: f64,
}

async fn drain(
    product: &Product,
    stack: &Stack,
    topics: &Topics,
    name: &str,
    instances: usize,
    events: u64,
) -> Result<Drained> {
    let urls = stack.create_databases(name).await?;
    prepare(stack, &urls).await?;
    let watch = Watch::start(&urls).await?;
    let deployment = Deployment::new(name, topics, urls);
    let began = Instant::now();
    let running: Vec<Instance> = (0..instances)
        .map(|i| product.start(stack, &format!("{name}_{i}"), Part::Writers, &deployment))
        .collect::<Result<_>>()?;
    let cpu = || -> Result<f64> { running.iter().map(|i| machine::cpu_seconds(i.process.pid())).sum() };
    let written = async |least: u64| -> Result<u64> {
        loop {
            let written = watch.written().await?;
            if written >= least {
                return Ok(written);
            }
            let ended = running.iter().find(|instance| !instance.process.is_running());
            if ended.is_some() || began.elapsed() > Duration::from_secs(300) {
                return Err(ended.unwrap_or(&running[0]).process.obituary())
                    .with_context(|| format!("{written} of {events} written, and no further"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    written(1).await?;
    let first_s = began.elapsed().as_secs_f64();
    until_shared(&running, topics).await?;
    let too_soon = watch.written().await?;
    if too_soon > events / 4 * 3 {
        bail!("{too_soon} of {events} events were written before all instances had partitions: take more (--events)");
    }
    written(events).await?;
    let drained = cpu()?;
    let mut rss_mb: f64 = 0.0;
    for instance in &running {
        rss_mb = rss_mb.max(machine::memory_mb(instance.process.pid(), "VmHWM")?);
        if !instance.process.stop(Duration::from_secs(40)).await?.success() {
            return Err(instance.process.obituary()).context("it did not end well");
        }
    }
    for instance in &running {
        instance.process.restart()?;
    }
    until_shared(&running, topics).await?;
    let cpu_s = (drained - cpu()?) / events as f64 * 1e6;
    drop(running);
    drop(watch);
    drop_databases(stack, name).await?;
    Ok(Drained { cpu_s, rss_mb, first_s })
}

/// The longest silence of a partition while an instance joins, and while one leaves in good order.
async fn hand_overs(product: &Product, stack: &Stack, protocol: &str) -> Result<[(&'static str, f64); 2]> {
    let name = format!("flat_{protocol}");
    let topics = Topics::shipped(&name);
    let urls = stack.create_databases(&name).await?;
    prepare(stack, &urls).await?;
    let mut deployment = Deployment::new(&name, &topics, urls.clone());
    deployment.env = vec![("HOOKMILL_KAFKA__CONSUMER__GROUP_PROTOCOL", protocol.to_owned())];
    product.create_topics(stack, &deployment).await?;
    let staying = product.serve(stack, &name, Part::Writers, &deployment).await?;
    let sender = Sender::start(stack.brokers(), topics, RATE)?;
    let settle = || tokio::time::sleep(Duration::from_secs(8));
    settle().await;
    let joined = chrono::Utc::now();
    let leaving = product.start(stack, &format!("{name}_2"), Part::Writers, &deployment)?;
    until_ready(&leaving.process, &leaving.admin, "/health/ready").await?;
    settle().await;
    let left = chrono::Utc::now();
    leaving.process.signal(Signal::SIGTERM);
    settle().await;
    let ended = chrono::Utc::now();
    sender.stop()?;
    let joining = silence(&urls, joined, left).await?;
    let leave = silence(&urls, left, ended).await?;
    drop((staying, leaving));
    drop_databases(stack, &name).await?;
    Ok([("joins", joining), ("leaves", leave)])
}

/// The longest time between two commits of one partition, by Postgres' own record of them.
async fn silence(
    urls: &[String],
    from: chrono::DateTime<chrono::Utc>,
    to: chrono::DateTime<chrono::Utc>,
) -> Result<f64> {
    let mut longest: f64 = 0.0;
    for url in urls {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let sql = format!(
            "SELECT max(extract(epoch FROM gap))::float8 FROM (
                SELECT at - lag(at) OVER (PARTITION BY kafka_partition ORDER BY kafka_offset) AS gap FROM (
                    SELECT kafka_partition, kafka_offset, pg_xact_commit_timestamp(xmin) AS at FROM order_events) e
                WHERE at BETWEEN '{}' AND '{}') g",
            from.to_rfc3339(),
            to.to_rfc3339()
        );
        let found: Option<f64> = client.query_one(&sql, &[]).await?.try_get(0)?;
        longest = longest.max(found.context("nothing was written meanwhile")?);
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let case = |instances, cpu_s: &[f64]| Case {
            partitions: 24,
            instances,
            cpu_s: cpu_s.to_vec(),
            peak_rss_mb: 50.0,
        };
        let flat = Flat {
            cases: vec![case(1, &[10.0, 20.0, 10.0]), case(4, &[11.0, 24.0, 15.0])],
            first_write_s: vec![1.0],
            hand_overs: vec![("classic", "joins", 0.25)],
        };
        assert_eq!(flat.cpu_ratio(&flat.cases[1]).text(1), "1.2 (1.1–1.5)");
        let json = flat.json();
        assert_eq!(json["cases"][0]["ratio"], 1.0);
        assert_eq!(json["cases"][1]["cpu_s_per_million"], 15.0);
        assert_eq!(json["hand_over_s"]["classic joins"], 0.25);
    }
}
