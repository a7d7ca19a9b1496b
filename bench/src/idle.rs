//! An instance with nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dev::process::Process;
use serde_json::{Value, json};

use crate::machine;
use crate::product::{self, Deployment, Part, Product};
use crate::report::hundredths;
use crate::workload::Topics;

/// To be stayed under.
const TARGET_MB: f64 = 80.0;

/// Memory counts as settled when it has not grown by more than 1 % for so long.
const SETTLED_FOR: Duration = Duration::from_secs(15);

/// Memory that has not settled by then grows without end.
const PATIENCE: Duration = Duration::from_secs(180);

/// An instance's figures once it has settled.
pub struct Idle {
    partitions: usize,
    /// Resident memory in MB of 10^6 bytes.
    pub rss_mb: f64,
    peak_mb: f64,
    /// CPU in percent of a core.
    pub cpu_percent: f64,
}

impl Idle {
    /// All of it.
    pub fn json(&self) -> Value {
        json!({
            "bench": "idle",
            "partitions": self.partitions,
            "rss_mb": hundredths(self.rss_mb),
            "peak_rss_mb": hundredths(self.peak_mb),
            "cpu_percent": hundredths(self.cpu_percent),
            "target_mb": TARGET_MB,
            "reached": self.rss_mb < TARGET_MB,
        })
    }
}

/// Runs the measurement and prints it.
pub async fn run(no_build: bool) -> Result<()> {
    let product = Product::find(no_build).await?;
    println!("{}", measure(&product).await?.json());
    Ok(())
}

/// Runs the measurement.
pub async fn measure(product: &Product) -> Result<Idle> {
    let stack = product::start_servers().await?;
    let topics = Topics::shipped("idle");
    let deployment = Deployment::new("idle", &topics, stack.shard_urls());
    let instance = product.serve(&stack, "idle", Part::All, &deployment).await?;
    product::until_shared(std::slice::from_ref(&instance), &topics).await?;
    let partitions = usize::try_from(topics.orders.1 + topics.disputes.1)?;
    eprintln!("{partitions} partitions are owned; waiting for its memory to settle");
    let Settled { rss_mb, cpu_percent } = settle(&instance.process).await?;
    let peak_mb = machine::memory_mb(instance.process.pid(), "VmHWM")?;
    println!("idle: {rss_mb:.1} MB resident with {partitions} partitions, {cpu_percent:.2} % of a core");
    drop(instance);
    stack.stop().await;
    Ok(Idle {
        partitions,
        rss_mb,
        peak_mb,
        cpu_percent,
    })
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
