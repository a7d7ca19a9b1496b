//! The lag watcher: reads how far every shard is and how far Kafka is, so that any instance can say of any partition
//! who has it, where it stands and how much waits. Lag is Kafka's high watermark less the database's next offset.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use fail::fail_point;
use futures_util::future::{join, join_all};
use hookmill_schema::offsets::{self, OffsetRow};
use hookmill_schema::shard::{self, Pool};

use crate::health::Health;
use crate::kafka::{Probe, TopicSettings};
use crate::partition_table::PartitionTable;
use crate::supervision::Life;

/// How long the brokers may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a shard may take to answer, connecting included.
const SHARD_ANSWER: Duration = Duration::from_secs(5);

/// How long its pool may take to give a connection.
const POOL_ANSWER: Duration = Duration::from_secs(1);

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

    /// Each is asked in a loop of its own, so that nobody waits for one that is silent.
    fn look_at_shard(&mut self, index: usize, ctx: &mut Context<Self>) {
        let Some(pool) = self.shards.get(index).cloned() else {
            return;
        };
        ctx.spawn(progress(pool).into_actor(self).map(move |progress, act, ctx| {
            fail_point!("lag_watcher");
            act.health
                .checked(&format!("shard.{index}"), progress.as_ref().err().cloned());
            for row in act.keep(progress, &format!("shard {index}")) {
                if let Some(stats) = act.table.get(&row.topic, row.partition) {
                    stats.observed(row.owner, row.epoch, row.next_offset);
                }
            }
            act.life.stats().add_handled(1);
            ctx.run_later(act.settings.every, move |act, ctx| act.look_at_shard(index, ctx));
        }));
    }

    fn look_at_kafka(&mut self, ctx: &mut Context<Self>) {
        let looks = join(
            ends(self.probe.clone(), self.settings.topics.clone()),
            reach(self.probe.clone(), self.settings.asked_about.clone()),
        );
        ctx.spawn(looks.into_actor(self).map(|(ends, reached), act, ctx| {
            let problem = ends.iter().find_map(|result| result.as_ref().err().cloned());
            act.health.checked("kafka", reached.err().or(problem));
            for result in ends {
                for (topic, partition, high) in act.keep(result, "Kafka") {
                    if let Some(stats) = act.table.get(&topic, partition) {
                        stats.observed_high(high);
                    }
                }
            }
            act.health.checked("partitions", act.halted());
            act.life.stats().add_handled(1);
            ctx.run_later(act.settings.every, |act, ctx| act.look_at_kafka(ctx));
        }));
    }

    /// The partitions here that need an operator.
    fn halted(&self) -> Option<String> {
        let halted = self.table.view().into_iter().filter(|view| view.reason.is_some());
        let names: Vec<String> = halted
            .map(|view| format!("{} partition {}", view.topic, view.partition))
            .collect();
        (!names.is_empty()).then(|| format!("halted, see the reason in /stats: {}", names.join(", ")))
    }

    /// What could be read; the rest is counted.
    fn keep<T>(&self, result: Result<Vec<T>, String>, whom: &str) -> Vec<T> {
        result.unwrap_or_else(|error| {
            self.life.stats().record_error(&format!("{whom}: {error}"));
            Vec::new()
        })
    }
}

async fn progress(pool: Pool) -> Result<Vec<OffsetRow>, String> {
    let read = async {
        let read = match tokio::time::timeout(POOL_ANSWER, pool.get()).await {
            Ok(Ok(mut connection)) => offsets::read_all(&mut connection).await,
            // The pool keeps to itself why it has none; one of our own tells.
            Ok(Err(_)) | Err(_) => {
                let connected = pool.dedicated_connection().await;
                let mut connection = connected.map_err(|error| error.to_string())?;
                offsets::read_all(&mut connection).await
            }
        };
        read.map_err(|error| error.to_string())
    };
    tokio::time::timeout(SHARD_ANSWER, read)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", SHARD_ANSWER.as_secs())))
}

/// Also asked where no topic is read: who only takes webhooks needs Kafka all the same.
async fn reach(probe: Probe, topic: String) -> Result<(), String> {
    let answer = probe.shape(&topic, ANSWER).await;
    answer.map(|_| ()).map_err(|error| error.to_string())
}

/// By topic, where its partitions end.
async fn ends(probe: Probe, topics: Vec<TopicSettings>) -> Vec<Result<Vec<(String, i32, i64)>, String>> {
    join_all(topics.into_iter().map(|topic| {
        let probe = probe.clone();
        async move {
            let ends = probe.high_watermarks(&topic.name, topic.partitions, ANSWER).await;
            let ends = ends.map_err(|error| format!("topic {}: {error}", topic.name))?;
            Ok(ends
                .into_iter()
                .zip(0..)
                .map(|(high, partition)| (topic.name.clone(), partition, high))
                .collect())
        }
    }))
    .await
}

impl Actor for LagWatcher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(self.life.stopped().into_actor(self).map(|(), _, ctx| ctx.stop()));
        for index in 0..self.shards.len() {
            self.look_at_shard(index, ctx);
        }
        self.look_at_kafka(ctx);
    }
}
