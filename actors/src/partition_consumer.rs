//! The partition consumer: reads one assigned partition, turns records into rows, and hands batches to its lane's writer.
//!
//! Its life: claim the partition on its shard (waiting for the shard if need be), compare the claim with what Kafka
//! still holds, attach the queue at the database's offset, then read. It ends when its partition is revoked, when
//! somebody else has claimed it, or when going on would be wrong ([`Ended`]); a crash is a fresh instance that claims again.

mod allowance;
mod reading;

use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::prelude::*;
use fail::fail_point;
use hookmill_schema::Table;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::actor_ref::ActorRef;
use crate::batch::BatchLimits;
use crate::dead_letters::DeadLetters;
use crate::kafka::{Probe, Watermarks};
use crate::partition_table::{PartitionState, PartitionStats};
use crate::rebalance::{GroupConsumer, Ownership, Ticket};
use crate::shard_writer::{Claim, Claimed, PartitionId, ShardWriter, WriteBatch, WriteOutcome};
use crate::supervision::{Backoff, Life};
pub use allowance::Allowance;

/// What to do when Kafka has already thrown away records that are not in the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnGap {
    /// Stop the partition and say so: somebody must decide.
    #[default]
    Halt,
    /// Go on with the oldest record there is; the gap is logged and shown.
    Skip,
}

/// What all partition consumers of a topic share.
pub struct TopicContext {
    /// The topic.
    pub topic: Arc<str>,
    /// The tables its records belong to.
    pub table: Table,
    /// Bounds of a batch.
    pub limits: BatchLimits,
    /// What to do about lost records.
    pub on_gap: OnGap,
    /// Number of shards.
    pub shards: usize,
    /// `lanes[shard][lane]`.
    pub lanes: Vec<Vec<TopicLane>>,
    /// Where bad records go.
    pub dead_letters: ActorRef<DeadLetters>,
    /// For watermarks.
    pub probe: Probe,
}

/// Leads to a lane of a shard.
#[derive(Clone)]
pub struct LaneRef {
    /// Writes what is read.
    pub writer: ActorRef<ShardWriter>,
    /// The writer's thread. Whoever reads for it is there, too: to wake another thread for each batch takes longer than to
    /// make one.
    pub thread: ArbiterHandle,
}

/// A lane, and the readers of one topic on it.
pub struct TopicLane {
    /// Leads to it.
    pub lane: LaneRef,
    /// What they may hold.
    pub allowance: Allowance,
}

impl TopicContext {
    /// The lane that all records of `partition` go to, always the same one.
    pub(crate) fn lane(&self, partition: i32) -> &TopicLane {
        let shard = hookmill_schema::shard::shard_of(partition, self.shards);
        let lanes = &self.lanes[shard];
        &lanes[hookmill_schema::shard::lane_of(partition, self.shards, lanes.len())]
    }
}

/// Why a partition consumer ended for good, until it is assigned again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The partition is not ours any more, or the process stops.
    Revoked,
    /// Somebody else has claimed it.
    Fenced,
    /// Going on would lose or repeat something; the reason is for people.
    Halted(String),
}

/// Reads one partition.
pub struct PartitionConsumer {
    life: Life,
    reader: Option<Reader>,
}

/// What the work needs; it moves into the actor's one future.
struct Reader {
    id: PartitionId,
    ticket: Ticket,
    context: Arc<TopicContext>,
    ownership: Arc<Ownership>,
    /// Weak, so that a crashed group member's client is not kept by the specification of a child.
    consumer: Weak<GroupConsumer>,
    stats: Arc<PartitionStats>,
    life: Life,
}

impl PartitionConsumer {
    /// A consumer of `partition` under the assignment that `ticket` names.
    pub fn new(
        life: Life,
        partition: i32,
        ticket: Ticket,
        context: Arc<TopicContext>,
        ownership: Arc<Ownership>,
        consumer: Weak<GroupConsumer>,
        stats: Arc<PartitionStats>,
    ) -> Self {
        let id = PartitionId {
            topic: context.topic.clone(),
            partition,
        };
        let reader = Reader {
            id,
            ticket,
            context,
            ownership,
            consumer,
            stats,
            life: life.clone(),
        };
        Self {
            life,
            reader: Some(reader),
        }
    }
}

impl Actor for PartitionConsumer {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(reader) = self.reader.take() else {
            return ctx.stop();
        };
        let stopped = self.life.stopped();
        let work = async move {
            let (stats, life, id) = (reader.stats.clone(), reader.life.clone(), reader.id.clone());
            // Leaving drops the queue and forgets what is with the writer: what of it is committed, the offset row
            // knows, and the next owner's claim waits for it.
            let ended = tokio::select! {
                () = stopped => Ok(Ended::Revoked),
                ended = reader.run() => ended,
            };
            match ended {
                Ok(Ended::Revoked) => stats.set_state(PartitionState::Revoked),
                Ok(Ended::Fenced) => stats.set_state(PartitionState::Fenced),
                Ok(Ended::Halted(why)) => {
                    life.stats().record_error(&why);
                    if stats.halt(&why) {
                        error!(topic = %id.topic, partition = id.partition, reason = %why, "the partition is halted and needs an operator");
                    }
                }
                Err(why) => life.fail(why),
            }
        };
        ctx.spawn(work.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// Between attempts to reach an actor that is being restarted, or Kafka.
const RETRY: Backoff = Backoff {
    initial: Duration::from_millis(50),
    max: Duration::from_secs(2),
};

impl Reader {
    /// Claims, then reads until something ends it. An error is a failure: a fresh instance claims again.
    async fn run(self) -> Result<Ended, String> {
        fail_point!("partition_consumer");
        self.stats.set_state(PartitionState::Claiming);
        let topic_id = self.topic_id().await;
        let claimed = self.claim(&topic_id, None).await;
        self.stats.claimed(claimed.epoch, claimed.next_offset);
        let start = match self.where_to_resume(&claimed, &topic_id).await {
            Resume::At(offset) => offset,
            Resume::Skip { to } => {
                if claimed.next_offset > 0 {
                    error!(topic = %self.id.topic, partition = self.id.partition, lost_from = claimed.next_offset, lost_to = to,
                        "Kafka no longer holds records that were not written yet; going on behind the gap, as configured");
                }
                to
            }
            Resume::Wait(why) => return Ok(Ended::Halted(why)),
            Resume::Halt(why) => {
                // Kept by the shard: by the time of a restart or a rebalance the topic may have grown past our offset,
                // and nobody could tell any more.
                self.claim(&topic_id, Some(why.clone())).await;
                return Ok(Ended::Halted(why));
            }
        };
        info!(topic = %self.id.topic, partition = self.id.partition, epoch = claimed.epoch, offset = start, "claimed");
        let wake = Arc::new(tokio::sync::Notify::new());
        let waker = wake.clone();
        let Some(consumer) = self.consumer.upgrade() else {
            return Ok(Ended::Revoked);
        };
        let queue = self
            .ownership
            .attach(&consumer, self.id.partition, self.ticket, start, move || {
                waker.notify_one()
            })
            .map_err(|error| format!("cannot attach the partition: {error}"))?;
        let Some(queue) = queue else { return Ok(Ended::Revoked) };
        self.stats.set_state(PartitionState::Running);
        let ended = self.read(&queue, &wake, claimed, start).await;
        drop(queue);
        if let Ok(Ended::Fenced | Ended::Halted(_)) = &ended {
            self.ownership
                .detach(&consumer, self.id.partition, self.ticket)
                .unwrap_or_else(|error| warn!(topic = %self.id.topic, partition = self.id.partition, %error, "cannot stop fetching"));
        }
        ended
    }

    fn writer(&self) -> &ActorRef<ShardWriter> {
        &self.context.lane(self.id.partition).lane.writer
    }

    async fn where_to_resume(&self, claimed: &Claimed, topic_id: &Option<String>) -> Resume {
        let mut asked = 0;
        loop {
            let marks = self.watermarks().await;
            asked += 1;
            // A broker that has just woken up may still think that it leads, and not know the latest records.
            if marks.high >= claimed.next_offset || asked == WATERMARK_QUESTIONS {
                return resume(claimed, topic_id.as_deref(), marks, self.context.on_gap);
            }
            tokio::time::sleep(RETRY.max).await;
        }
    }

    /// The topic's id, however long Kafka is away.
    async fn topic_id(&self) -> Option<String> {
        for attempt in 0.. {
            match self
                .context
                .probe
                .topic_id(&self.id.topic, Duration::from_secs(5))
                .await
            {
                Ok(id) => return id,
                Err(error) => {
                    self.life.stats().record_error(&format!("no topic id: {error}"));
                    tokio::time::sleep(RETRY.delay(attempt, rand::random())).await;
                }
            }
        }
        unreachable!("the attempts never end")
    }

    /// Claims the partition, however long its shard is away.
    async fn claim(&self, topic_id: &Option<String>, halt: Option<String>) -> Claimed {
        for attempt in 0.. {
            let (reply, answer) = oneshot::channel();
            let claim = Claim {
                id: self.id.clone(),
                topic_id: topic_id.clone(),
                halt: halt.clone(),
                reply,
            };
            if self.writer().try_send(claim).is_ok()
                && let Ok(claimed) = answer.await
            {
                return claimed;
            }
            tokio::time::sleep(RETRY.delay(attempt, rand::random())).await;
        }
        unreachable!("the attempts never end")
    }

    /// The partition's watermarks, however long Kafka is away.
    async fn watermarks(&self) -> Watermarks {
        for attempt in 0.. {
            match self
                .context
                .probe
                .watermarks(&self.id.topic, self.id.partition, Duration::from_secs(5))
                .await
            {
                Ok(marks) => return marks,
                Err(error) => {
                    self.life.stats().record_error(&format!("no watermarks: {error}"));
                    tokio::time::sleep(RETRY.delay(attempt, rand::random())).await;
                }
            }
        }
        unreachable!("the attempts never end")
    }
}

/// How often the watermarks are asked before a topic counts as one that ends before our offset.
const WATERMARK_QUESTIONS: u32 = 4;

/// Where to start reading.
#[derive(Debug, PartialEq, Eq)]
enum Resume {
    At(i64),
    /// There is nothing before `to` any more.
    Skip {
        to: i64,
    },
    /// Not now, and nothing is to be remembered about it.
    Wait(String),
    /// Not before an operator has decided, whatever happens meanwhile.
    Halt(String),
}

/// Compares what the database wants next with what Kafka holds.
fn resume(claimed: &Claimed, topic_id: Option<&str>, marks: Watermarks, on_gap: OnGap) -> Resume {
    let Watermarks { low, high } = marks;
    let next = claimed.next_offset;
    if let Some(why) = &claimed.kept.halted {
        return Resume::Wait(why.clone());
    }
    if let (Some(ours), Some(theirs)) = (claimed.kept.topic_id.as_deref(), topic_id)
        && ours != theirs
    {
        return Resume::Halt(format!(
            "the topic was deleted and created again: offset {next} is of the topic with id {ours}, and now its id is {theirs}. {DECIDE}"
        ));
    }
    if next > high {
        return Resume::Halt(format!(
            "the tables hold everything up to offset {next}, but the topic ends at {high}: it was truncated or created again. {DECIDE}"
        ));
    }
    if next >= low {
        return Resume::At(next);
    }
    match on_gap {
        // A topic that is older than this deployment: there is nothing of ours to miss.
        _ if claimed.epoch == 1 && next == 0 => Resume::Skip { to: low },
        OnGap::Skip => Resume::Skip { to: low },
        OnGap::Halt => Resume::Wait(format!(
            "offsets {next} to {low} were deleted from Kafka before they were written. Set topics.on_gap = \"skip\" to go on behind them, \
             and raise the topic's retention"
        )),
    }
}

/// What an operator does about a halt that the shard keeps.
const DECIDE: &str = "Nothing is read, and what is sent meanwhile stays on Kafka, until you say from which offset to go on: on the partition's \
    shard, UPDATE consumer_offsets SET next_offset = …, topic_id = NULL, halted = NULL WHERE topic = … AND partition = …";

#[cfg(test)]
mod tests {
    use hookmill_schema::offsets::Kept;

    use super::*;

    const MARKS: Watermarks = Watermarks { low: 10, high: 20 };

    fn claimed(next_offset: i64, epoch: i64) -> Claimed {
        let kept = Kept {
            topic_id: Some("A".to_owned()),
            halted: None,
        };
        Claimed {
            claim: 0,
            next_offset,
            epoch,
            kept,
            lease: Arc::new(()),
        }
    }

    fn at(next: i64, on_gap: OnGap) -> Resume {
        resume(&claimed(next, 2), Some("A"), MARKS, on_gap)
    }

    #[test]
    fn within_the_topic_the_database_decides() {
        assert_eq!(at(10, OnGap::Halt), Resume::At(10));
        assert_eq!(at(20, OnGap::Halt), Resume::At(20));
    }

    #[test]
    fn a_topic_that_ends_before_our_offset_halts_whatever_the_policy() {
        assert!(matches!(at(21, OnGap::Skip), Resume::Halt(why) if why.contains("created again")));
    }

    #[test]
    fn another_topic_of_the_same_name_halts_even_if_it_has_grown_past_our_offset() {
        let resumed = resume(&claimed(15, 2), Some("B"), MARKS, OnGap::Skip);
        assert!(matches!(resumed, Resume::Halt(why) if why.contains("id A") && why.contains("is B")));
        // A broker that tells none proves nothing.
        assert_eq!(resume(&claimed(15, 2), None, MARKS, OnGap::Skip), Resume::At(15));
    }

    #[test]
    fn what_the_shard_keeps_outlives_its_cause() {
        let mut halted = claimed(15, 3);
        halted.kept.halted = Some("was truncated".to_owned());
        let resumed = resume(&halted, Some("A"), MARKS, OnGap::Skip);
        assert_eq!(resumed, Resume::Wait("was truncated".to_owned()));
    }

    #[test]
    fn deleted_records_halt_or_are_skipped_as_configured() {
        assert!(matches!(at(5, OnGap::Halt), Resume::Wait(why) if why.contains("5 to 10")));
        assert_eq!(at(5, OnGap::Skip), Resume::Skip { to: 10 });
        assert!(matches!(at(0, OnGap::Halt), Resume::Wait(_)));
    }

    #[test]
    fn the_first_claim_of_an_old_topic_starts_at_its_beginning() {
        let resumed = resume(&claimed(0, 1), Some("A"), MARKS, OnGap::Halt);
        assert_eq!(resumed, Resume::Skip { to: 10 });
    }
}
