//! What must not grow: CPU for an event with the number of partitions and of instances; the time to the first write; the
//! silence while a partition changes hands.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dev::process::Signal;
use dev::stack::Stack;
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::drain::{Watch, drop_databases, prepare};
use crate::fresh::Sender;
use crate::machine;
use crate::product::{self, Deployment, Instance, Part, Product, until_ready};
use crate::report::hundredths;
use crate::workload::{self, Mode, Topics};

/// Events a second while partitions change hands.
const RATE: u32 = 2000;

/// What was found, each with its unit in its name.
pub struct Flat {
    /// Partitions and own CPU seconds per million events.
    pub partitions: Vec<(i32, f64)>,
    /// Instances and their CPU seconds together per million events.
    pub instances: Vec<(usize, f64)>,
    /// Seconds from the start of the process to its first commit, of each start.
    pub first_write_s: Vec<f64>,
    /// Protocol, event and the longest silence of a partition in seconds.
    pub hand_overs: Vec<(&'static str, &'static str, f64)>,
}

impl Flat {
    /// All of it.
    pub fn json(&self) -> Value {
        let pairs = |pairs: Vec<(String, f64)>| -> Value {
            pairs
                .into_iter()
                .map(|(k, v)| (k, json!(hundredths(v))))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        json!({
            "bench": "flat",
            "cpu_s_per_million_by_partitions": pairs(self.partitions.iter().map(|(n, v)| (n.to_string(), *v)).collect()),
            "cpu_s_per_million_by_instances": pairs(self.instances.iter().map(|(n, v)| (n.to_string(), *v)).collect()),
            "first_write_s": self.first_write_s.iter().copied().map(hundredths).collect::<Vec<_>>(),
            "hand_over_s": pairs(self.hand_overs.iter().map(|(p, e, v)| (format!("{p} {e}"), *v)).collect()),
        })
    }
}

/// Runs the measurements and prints them.
pub async fn run(no_build: bool, events: u64) -> Result<()> {
    let product = Product::find(no_build).await?;
    println!("{}", measure(&product, events).await?.json());
    Ok(())
}

/// Runs the measurements, with `events` for each drain.
pub async fn measure(product: &Product, events: u64) -> Result<Flat> {
    let stack = product::start_servers().await?;
    for shard in stack.shards() {
        let set = "ALTER SYSTEM SET track_commit_timestamp = on";
        shard.execute("postgres", set).await?;
        shard.restart().await?;
    }
    let mut flat = Flat {
        partitions: Vec::new(),
        instances: Vec::new(),
        first_write_s: Vec::new(),
        hand_overs: Vec::new(),
    };
    for partitions in [6, 24, 96] {
        let topics = fill(product, &stack, partitions, events).await?;
        let (cpu, first) = drain(product, &stack, &topics, 1, events).await?;
        println!("flat, partitions {partitions}: {cpu:.1} CPU s per million, first write after {first:.2} s");
        flat.partitions.push((partitions, cpu));
        flat.first_write_s.push(first);
        if partitions == 24 {
            flat.instances.push((1, cpu));
            for instances in [2, 4] {
                let (cpu, first) = drain(product, &stack, &topics, instances, events).await?;
                println!("flat, instances {instances}: {cpu:.1} CPU s per million, first write after {first:.2} s");
                flat.instances.push((instances, cpu));
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

/// CPU seconds of all instances per million events, from when all of them are ready and a third is written, and the seconds to
/// the first write.
async fn drain(product: &Product, stack: &Stack, topics: &Topics, instances: usize, events: u64) -> Result<(f64, f64)> {
    let name = format!("flat_{}_{instances}", topics.orders.1);
    let urls = stack.create_databases(&name).await?;
    prepare(stack, &urls).await?;
    let watch = Watch::start(&urls).await?;
    let deployment = Deployment::new(&name, topics, urls);
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
            if began.elapsed() > Duration::from_secs(300) {
                let obituary = running[0].process.obituary();
                bail!("{written} of {events} are written after 5 minutes; {obituary}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    written(1).await?;
    let first_s = began.elapsed().as_secs_f64();
    for instance in &running {
        until_ready(&instance.process, &instance.admin, "/health/ready").await?;
    }
    // The start of an instance is no part of what an event costs, nor is the group's agreement on who has what.
    let written_then = written(events / 3).await?;
    let cpu_then = cpu()?;
    if written_then > events / 4 * 3 {
        bail!("{written_then} of {events} events were written before all instances were ready: take more (--events)");
    }
    written(events).await?;
    let per_million = (cpu()? - cpu_then) / (events - written_then) as f64 * 1e6;
    drop(running);
    drop(watch);
    drop_databases(stack, &name).await?;
    Ok((per_million, first_s))
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
