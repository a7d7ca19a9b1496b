//! The lag watcher: reads how far every shard is and how far Kafka is, so that any instance can say of any partition
//! who has it, where it stands and how much waits. Lag is Kafka's high watermark less the database's next offset.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use fail::fail_point;
use futures_util::future::{join_all, join3};
use hookmill_schema::offsets::{self, OffsetRow};
use hookmill_schema::shard::{self, Pool};

use crate::health::Health;
use crate::kafka::{Probe, TopicSettings, Watermarks};
use crate::partition_table::PartitionTable;
use crate::supervision::Life;

/// How long the brokers may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// What the watcher looks at.
#[derive(Clone)]
pub struct LagWatcherSettings {
    /// A topic to ask the brokers about, whether it is read here or not.
    pub asked_about: String,
    /// The topics this process reads, dead-letter topics among them.
    pub topics: Vec<TopicSettings>,
    /// Between looks.
    pub every: Duration,
}

/// Looks at all shards and topics again and again.
pub struct LagWatcher {
    life: Life,
    settings: LagWatcherSettings,
    shards: Arc<Vec<Pool>>,
    probe: Probe,
    table: PartitionTable,
    health: Health,
}

impl LagWatcher {
    /// A watcher that keeps `table`.
    pub fn new(
        life: Life,
        settings: LagWatcherSettings,
        shards: Arc<Vec<Pool>>,
        probe: Probe,
        table: PartitionTable,
        health: Health,
    ) -> Self {
        for topic in &settings.topics {
            for partition in 0..topic.partitions {
                table.entry(&topic.name, partition, shard::shard_of(partition, shards.len()));
            }
        }
        Self {
            life,
            settings,
            shards,
            probe,
            table,
            health,
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let looks = join3(
            progress(self.shards.clone()),
            watermarks(self.probe.clone(), self.settings.topics.clone()),
            reach(self.probe.clone(), self.settings.asked_about.clone()),
        );
        ctx.spawn(looks.into_actor(self).map(|(progress, marks, reached), act, ctx| {
            fail_point!("lag_watcher");
            for (shard, result) in progress.iter().enumerate() {
                act.health
                    .checked(&format!("shard.{shard}"), result.as_ref().err().cloned());
            }
            let kafka = marks.iter().find_map(|result| result.as_ref().err().cloned());
            let kafka = reached.err().or(kafka);
            act.health.checked("kafka", kafka);
            for row in act.keep(progress) {
                if let Some(stats) = act.table.get(&row.topic, row.partition) {
                    stats.observed(row.owner, row.epoch, row.next_offset);
                }
            }
            for (topic, partition, marks) in act.keep(marks) {
                if let Some(stats) = act.table.get(&topic, partition) {
                    stats.observed_high(marks.high);
                }
            }
            act.life.stats().add_handled(1);
            ctx.run_later(act.settings.every, |act, ctx| act.look(ctx));
        }));
    }

    /// What could be read; the rest is counted.
    fn keep<T>(&self, results: Vec<Result<Vec<T>, String>>) -> Vec<T> {
        let mut all = Vec::new();
        for result in results {
            match result {
                Ok(found) => all.extend(found),
                Err(error) => self.life.stats().record_error(&error),
            }
        }
        all
    }
}

async fn progress(shards: Arc<Vec<Pool>>) -> Vec<Result<Vec<OffsetRow>, String>> {
    join_all(shards.iter().enumerate().map(|(shard, pool)| async move {
        let mut connection = pool.get().await.map_err(|error| format!("shard {shard}: {error}"))?;
        offsets::read_all(&mut connection)
            .await
            .map_err(|error| format!("shard {shard}: {error}"))
    }))
    .await
}

/// Also asked where no topic is read: who only takes webhooks needs Kafka all the same.
async fn reach(probe: Probe, topic: String) -> Result<(), String> {
    let answer = probe.shape(&topic, ANSWER).await;
    answer.map(|_| ()).map_err(|error| error.to_string())
}

async fn watermarks(probe: Probe, topics: Vec<TopicSettings>) -> Vec<Result<Vec<(String, i32, Watermarks)>, String>> {
    join_all(topics.into_iter().map(|topic| {
        let probe = probe.clone();
        async move {
            let marks = probe.all_watermarks(&topic.name, topic.partitions, ANSWER).await;
            let marks = marks.map_err(|error| format!("topic {}: {error}", topic.name))?;
            Ok(marks
                .into_iter()
                .zip(0..)
                .map(|(m, partition)| (topic.name.clone(), partition, m))
                .collect())
        }
    }))
    .await
}

impl Actor for LagWatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(self.life.stopped().into_actor(self).map(|(), _, ctx| ctx.stop()));
        self.look(ctx);
    }
}
