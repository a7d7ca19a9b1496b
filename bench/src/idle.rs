//! An instance with nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dev::process::Process;
use dev::stack::{Options, Stack};
use serde_json::{Value, json};

use crate::product::{DISPUTES, Instance, ORDERS, Part, Product};
use crate::report::hundredths;
use crate::{load, machine};

/// To be stayed under.
const TARGET_MB: f64 = 80.0;

/// Memory counts as settled when it has not grown by more than 1 % for so long.
const SETTLED_FOR: Duration = Duration::from_secs(15);

/// Memory that has not settled by then grows without end.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs the measurement.
pub async fn run(no_build: bool) -> Result<()> {
    let product = Product::find(no_build).await?;
    eprintln!("starting Kafka and two shards");
    let stack = Stack::start(Options::default()).await?;
    let instance = product.serve(&stack, "idle", Part::All, &stack.shard_urls()).await?;
    let partitions = owned(&instance).await?;
    eprintln!("{partitions} partitions are owned; waiting for its memory to settle");
    let Settled { rss_mb, cpu_percent } = settle(&instance.process).await?;
    let peak_mb = machine::memory_mb(instance.process.pid(), "VmHWM")?;
    println!(
        "idle: {rss_mb:.1} MB resident with {partitions} partitions (peak {peak_mb:.1}; wanted: under {TARGET_MB}), \
         {cpu_percent:.2} % of a core"
    );
    let line = json!({
        "bench": "idle",
        "partitions": partitions,
        "rss_mb": hundredths(rss_mb),
        "peak_rss_mb": hundredths(peak_mb),
        "cpu_percent": hundredths(cpu_percent),
        "target_mb": TARGET_MB,
        "reached": rss_mb < TARGET_MB,
    });
    println!("{line}");
    drop(instance);
    stack.stop().await;
    Ok(())
}

/// Waits until the instance reads every partition of the two topics; how many these are.
async fn owned(instance: &Instance) -> Result<usize> {
    let wanted = usize::try_from(ORDERS.1 + DISPUTES.1)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (_, text) = load::get(&instance.admin, "/stats").await?;
        let stats: Value = serde_json::from_str(&text).context("/stats is not JSON")?;
        let running = |view: &&Value| {
            let of_events = [ORDERS.0, DISPUTES.0].iter().any(|topic| view["topic"] == *topic);
            of_events && view["state"] == "running"
        };
        let owned = stats["partitions"]
            .as_array()
            .map_or(0, |p| p.iter().filter(running).count());
        if owned >= wanted {
            return Ok(owned);
        }
        if Instant::now() > deadline {
            bail!(
                "only {owned} of {wanted} partitions are read after 60 s; {}",
                instance.process.obituary()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Settled {
    rss_mb: f64,
    cpu_percent: f64,
}

async fn settle(process: &Process) -> Result<Settled> {
    let deadline = Instant::now() + PATIENCE;
    let mut begin = (Instant::now(), 0.0, 0.0);
    loop {
        let (rss, cpu) = (
            machine::memory_mb(process.pid(), "VmRSS")?,
            machine::cpu_seconds(process.pid())?,
        );
        let (since, rss_then, cpu_then) = begin;
        if rss > rss_then * 1.01 {
            begin = (Instant::now(), rss, cpu);
        } else if since.elapsed() >= SETTLED_FOR {
            return Ok(Settled {
                rss_mb: rss,
                cpu_percent: (cpu - cpu_then) / since.elapsed().as_secs_f64() * 100.0,
            });
        }
        if Instant::now() > deadline {
            bail!("{rss:.1} MB, and still growing after {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
