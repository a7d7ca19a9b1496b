//! When all faults are over: every partition has one owner, who says what the shard says; and what `/stats` counts while
//! some more webhooks come is what happens.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;

use crate::check::Findings;
use crate::deployment::secrets;
use crate::instance::Stats;
use crate::kafka;
use crate::pace::Pace;
use crate::provider::{self, Counters, Sent, Settings};
use crate::world::World;

const RULE: &str = "/stats";
const EVENTS: u64 = 500;
const SOON: Duration = Duration::from_secs(45);

/// Checks it; what is sent for that is added to `sent`.
pub async fn check(world: &World, settings: Settings, sent: &mut Vec<Sent>, findings: &mut Findings) -> Result<()> {
    if let Err(error) = settle(world).await {
        findings.add(RULE, None, format!("{error:#}"));
    }
    let (stats_before, records_before) = standstill(world).await?;
    let settings = Settings {
        run_id: format!("{}q", settings.run_id),
        count: EVENTS,
        poison: 0,
        duplicates: 0,
        disorder: 0,
        ..settings
    };
    let pace = Pace::start(1000, settings.seed);
    pace.due(EVENTS);
    let (enough, told) = watch::channel(false);
    let counters = Arc::new(Counters::default());
    let sending = tokio::spawn(provider::send(settings, secrets(), pace, counters.clone(), told));
    let time_is_up = async {
        tokio::time::sleep(SOON).await;
        enough.send_replace(true);
        // What was sent is wanted all the same.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        all = sending => sent.extend(all??),
        () = time_is_up => {}
    }
    world.landed(&world.deployment, Instant::now() + SOON).await?;
    if let Err(error) = settle(world).await {
        findings.add(RULE, None, format!("{error:#}"));
    }
    let (stats_after, records_after) = standstill(world).await?;
    let unanswered = counters.unacknowledged.load(Relaxed);
    if unanswered > 0 {
        findings.add(
            "taken",
            None,
            format!("{unanswered} requests to a quiet system were not acknowledged"),
        );
    }
    let sum = |stats: &[Stats], of: fn(&Stats) -> i64| stats.iter().map(of).sum::<i64>();
    let produced: fn(&Stats) -> i64 = |stats| stats.handled("producer");
    let written: fn(&Stats) -> i64 = |stats| stats.partitions().iter().map(|p| p.rows).sum();
    let more = records_after - records_before;
    for (what, of) in [("produced", produced), ("wrote", written)] {
        let counted = sum(&stats_after, of) - sum(&stats_before, of);
        if counted != more {
            findings.add(
                RULE,
                None,
                format!("{more} records came to Kafka, and the instances {what} {counted}"),
            );
        }
    }
    Ok(())
}

/// The figures of a moment at which nothing is under way: all that was on Kafka is written, and for a second nothing has
/// come. What the providers repeat may come after the last acknowledgement that is waited for.
async fn standstill(world: &World) -> Result<(Vec<Stats>, i64)> {
    let deadline = Instant::now() + SOON;
    loop {
        world.landed(&world.deployment, deadline).await?;
        let before = records(world).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (stats, after) = (stats(world).await?, records(world).await?);
        if before == after || Instant::now() > deadline {
            return Ok((stats, after));
        }
    }
}

/// Waits until every partition runs on exactly one instance, which says what the shard says of it.
async fn settle(world: &World) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let wrong = wrong(world).await;
        match wrong {
            Ok(None) => return Ok(()),
            Ok(Some(wrong)) if Instant::now() > deadline => anyhow::bail!(wrong),
            Err(error) if Instant::now() > deadline => return Err(error),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn wrong(world: &World) -> Result<Option<String>> {
    let (all, offsets) = (stats(world).await?, world.offsets(&world.deployment).await?);
    let mut runs: HashMap<(String, i32), String> = HashMap::new();
    for stats in &all {
        for p in stats.partitions().into_iter().filter(|p| p.state == "running") {
            let Some(truth) = offsets.get(&p.id) else {
                return Ok(Some(format!("{p:?} runs, and the shard knows nothing of it")));
            };
            if p.next_offset != truth.next_offset || p.lag != 0 || truth.owner != stats.instance() {
                return Ok(Some(format!(
                    "{} says {p:?}, the shard says {truth:?}",
                    stats.instance()
                )));
            }
            if let Some(other) = runs.insert(p.id.clone(), stats.instance().to_owned()) {
                return Ok(Some(format!("{:?} runs on {other} and on {}", p.id, stats.instance())));
            }
        }
    }
    for topic in world.deployment.topics() {
        for p in 0..topic.partitions {
            if !runs.contains_key(&(topic.name.clone(), p)) {
                return Ok(Some(format!("nobody runs {} partition {p}", topic.name)));
            }
        }
    }
    Ok(None)
}

async fn stats(world: &World) -> Result<Vec<Stats>> {
    let mut all = Vec::new();
    for instance in &world.instances {
        let stats = instance.stats().await;
        all.push(stats.with_context(|| format!("instance {} says no /stats", instance.index))?);
    }
    Ok(all)
}

async fn records(world: &World) -> Result<i64> {
    let marks = kafka::watermarks(&world.stack.brokers(), &world.deployment.topics()).await?;
    Ok(marks.iter().flatten().map(|(_, high)| high).sum())
}
