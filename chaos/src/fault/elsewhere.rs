//! What Kafka must never do, done to a deployment beside the main one: its readers must halt, loudly, and write nothing
//! wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::watch;

use crate::deployment::{Deployment, secrets};
use crate::instance::Instance;
use crate::kafka;
use crate::pace::Pace;
use crate::provider::{self, Counters, Settings};
use crate::world::World;

/// Halting and going on again take no longer.
const SOON: Duration = Duration::from_secs(60);
const EVENTS: u64 = 60;

struct Aside<'a> {
    world: &'a World,
    deployment: Deployment,
}

impl<'a> Aside<'a> {
    async fn new(world: &'a World) -> Result<Self> {
        let name = format!("aside{}", world.number());
        let deployment = Deployment::new(&world.product, &world.stack, &name, (2, 2)).await?;
        Ok(Self { world, deployment })
    }

    async fn start(&self, name: &str, env: &[(&str, &str)]) -> Result<Instance> {
        let stack = &self.world.stack;
        let urls: Vec<String> = stack.shards().iter().map(|s| s.url(&self.deployment.name)).collect();
        let mut program = self.deployment.program(name, &["serve"], &stack.brokers(), &urls);
        for (name, value) in env {
            program = program.env(*name, *value);
        }
        let instance = Instance::start(usize::MAX, program, None).await?;
        instance.ready(SOON).await?;
        Ok(instance)
    }

    async fn send(&self, to: &Instance) -> Result<()> {
        let settings = Settings {
            seed: 1,
            run_id: self.deployment.name.clone(),
            count: EVENTS,
            poison: 0,
            connections: 4,
            duplicates: 0,
            disorder: 0,
            urls: vec![to.url.clone()],
            started: self.world.started,
        };
        let pace = Pace::start(1000, 1);
        pace.due(EVENTS);
        let (enough, told) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let sending = provider::send(settings, secrets(), pace, counters, told);
        tokio::time::timeout(SOON, sending)
            .await
            .context("webhooks were not taken")??;
        drop(enough);
        Ok(())
    }

    async fn rows(&self) -> Result<i64> {
        let mut sum = 0;
        for shard in self.world.stack.shards() {
            let sql = "SELECT (SELECT count(*) FROM order_events) + (SELECT count(*) FROM dispute_events)";
            sum += shard.query_one(&self.deployment.name, sql).await?;
        }
        Ok(sum)
    }

    /// Waits until a partition of the orders says that it is halted, with `word` in its reason.
    async fn halts(&self, instance: &Instance, word: &str) -> Result<bool> {
        let (orders, deadline) = (self.deployment.topic("order").name, Instant::now() + SOON);
        while Instant::now() < deadline {
            if let Some(stats) = instance.stats().await {
                let mut partitions = stats.partitions().into_iter().filter(|p| p.id.0 == orders);
                if partitions.any(|p| p.state == "halted" && p.reason.contains(word)) {
                    return Ok(true);
                }
            }
            if !instance.process().is_running() {
                bail!("{:#}", instance.process().obituary());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(false)
    }

    async fn gone(self, instances: Vec<Instance>) -> Result<()> {
        for instance in instances {
            instance.stop().await?;
        }
        Ok(())
    }
}

/// Everything is written, then the topic is deleted and made again.
pub(super) async fn topic_recreated(world: &World) -> Result<()> {
    let aside = Aside::new(world).await?;
    let instance = aside.start("all", &[]).await?;
    aside.send(&instance).await?;
    world.landed(&aside.deployment, Instant::now() + SOON).await?;
    let before = aside.rows().await?;
    let replicas = if world.stack.kafkas().len() > 1 { 3 } else { 1 };
    kafka::recreate(&world.stack.brokers(), &aside.deployment.topic("order"), replicas).await?;
    if !aside.halts(&instance, "created again").await? {
        world.complain(format!(
            "a topic was deleted and made again, and 60 s later no partition was halted for it ({})",
            aside.deployment.name
        ));
    }
    let after = aside.rows().await?;
    if before != after || before != i64::try_from(EVENTS)? {
        world.complain(format!(
            "a topic was made again: {EVENTS} events were sent, {before} were in the tables before and {after} afterwards"
        ));
    }
    aside.gone(vec![instance]).await
}

/// Half of what is taken is written; of the rest, some is deleted before anybody reads it.
pub(super) async fn records_deleted(world: &World) -> Result<()> {
    let aside = Aside::new(world).await?;
    let no_writers = [
        ("HOOKMILL_SERVICES__ORDERS", "false"),
        ("HOOKMILL_SERVICES__DISPUTES", "false"),
    ];
    let writers = aside.start("writers", &[]).await?;
    // The first claim of a partition may begin anywhere; a later one may not.
    world.landed(&aside.deployment, Instant::now() + SOON).await?;
    let claimed = async || {
        let offsets = world.offsets(&aside.deployment).await;
        offsets.is_ok_and(|offsets| offsets.len() == aside.deployment.all_partitions())
    };
    let deadline = Instant::now() + SOON;
    while !claimed().await {
        if Instant::now() > deadline {
            bail!("{} did not claim its partitions", aside.deployment.name);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    writers.stop().await?;
    let taker = aside.start("taker", &no_writers).await?;
    aside.send(&taker).await?;
    let (orders, brokers) = (aside.deployment.topic("order"), world.stack.brokers());
    let marks = kafka::watermarks(&brokers, std::slice::from_ref(&orders))
        .await?
        .swap_remove(0);
    let below: Vec<i64> = marks.iter().map(|(_, high)| high / 2).collect();
    kafka::delete_records(&brokers, &orders, &below).await?;
    writers.restart()?;
    writers.ready(SOON).await?;
    if !aside.halts(&writers, "deleted").await? {
        world.complain(format!(
            "records were deleted before they were written, and 60 s later no partition was halted for it ({})",
            aside.deployment.name
        ));
    }
    for p in writers.stats().await.context("no stats")?.partitions() {
        if p.id.0 == orders.name && p.next_offset > 0 {
            world.complain(format!("a halted partition went on: {p:?}"));
        }
    }
    // Whoever decides to go on behind the gap gets all that is left.
    writers.stop().await?;
    let skipping = aside.start("skipping", &[("HOOKMILL_TOPICS__ON_GAP", "skip")]).await?;
    world.landed(&aside.deployment, Instant::now() + SOON).await?;
    let lost: i64 = below.iter().sum();
    let rows = aside.rows().await?;
    if rows != i64::try_from(EVENTS)? - lost {
        world.complain(format!(
            "{EVENTS} events were sent and {lost} deleted, but {rows} are in the tables"
        ));
    }
    aside.gone(vec![skipping, taker]).await
}
