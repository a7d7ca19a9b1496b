//! After a fault is mended everything must be well again within a stated time: all instances ready, all that was on
//! Kafka written, and webhooks taken.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::provider::Counters;
use crate::world::World;

/// Waits until all is well, of a run of `events` webhooks; how long it took. An error says what is not well when the time is up.
pub async fn wait(world: &World, counters: &Counters, events: u64, within: Duration) -> Result<Duration> {
    let (began, acked) = (Instant::now(), counters.acked.load(Relaxed));
    let deadline = began + within;
    for instance in &world.instances {
        while !instance.is_ready().await {
            if Instant::now() > deadline {
                let ending = instance.process().obituary();
                return Err(ending).with_context(|| format!("instance {} is not ready", instance.index));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    world
        .landed(&world.deployment, deadline)
        .await
        .context("what was on Kafka is not in the tables")?;
    while counters.acked.load(Relaxed) == acked && acked < events {
        if Instant::now() > deadline {
            anyhow::bail!("no webhook was acknowledged");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(began.elapsed())
}
