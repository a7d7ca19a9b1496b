//! The shard writer: one lane of one shard. It owns its Postgres connection, merges the waiting batches of many
//! partitions into one statement, and writes again as soon as it is free: no timers, so batches are small when it is
//! calm and large when it is behind.
//!
//! What it promises its senders: a batch that is answered [`WriteOutcome::Committed`] is in the tables together with
//! its offset, exactly once; any other answer means that nothing of it is. No answer at all means that the writer
//! ended: claim again, the offset row knows.

pub mod holdings;
mod lane;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix::prelude::*;
use chrono::TimeDelta;
use fail::fail_point;
use hookmill_schema::offsets::Kept;
use hookmill_schema::{ConnectSettings, ShardError, Table};
use tokio::sync::oneshot;

use crate::batch::Batch;
use crate::supervision::{Backoff, Life};
use lane::Lane;

/// One partition of one topic, as the writer must know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
}

/// Take ownership of a partition by raising its epoch on this shard. Waits while the shard is away; whoever is not
/// interested any more drops the receiver.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Claim {
    /// Which partition.
    pub id: PartitionId,
    /// The id of the Kafka topic as it is now, if the brokers tell it.
    pub topic_id: Option<String>,
    /// Why nobody may read the partition from now on; kept by the shard until an operator has decided.
    pub halt: Option<String>,
    /// Told once the claim has been made.
    pub reply: oneshot::Sender<Claimed>,
}

/// A claim that was made.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Names this claim in [`WriteBatch`]: a batch under an older one is not written.
    pub claim: u64,
    /// The first offset that is not in the tables.
    pub next_offset: i64,
    /// The partition's epoch on this shard; 1 if nobody ever claimed it before.
    pub epoch: i64,
    /// What else the shard keeps about the partition.
    pub kept: Kept,
    /// Held for as long as the partition is read: without it the writer lets the claim go.
    pub lease: Arc<()>,
}

/// Write a batch of a claimed partition.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteBatch {
    /// Which partition.
    pub id: PartitionId,
    /// The claim under which its records were read.
    pub claim: u64,
    /// The tables they belong to.
    pub table: Table,
    /// What to write.
    pub batch: Batch,
    /// Told about the outcome. A sender that drops its end takes the batch back, if it is not being written yet.
    pub reply: oneshot::Sender<WriteOutcome>,
}

/// What became of a batch.
#[derive(Debug)]
pub enum WriteOutcome {
    /// In the tables, with its offset.
    Committed,
    /// Postgres refuses one of its rows; nothing of it was written.
    Rejected {
        /// The batch, to be cut.
        batch: Batch,
        /// What Postgres said.
        error: ShardError,
    },
    /// Not tried, because a batch of the same partition before it was rejected.
    OutOfStep(Batch),
    /// Somebody else has claimed the partition since: nothing was written, and nothing more will be under this claim.
    Fenced,
}

/// Settings of one lane's writer.
#[derive(Clone)]
pub struct ShardWriterSettings {
    /// Index of the shard.
    pub shard: usize,
    /// Which of the shard's lanes this is.
    pub lane: usize,
    /// The shard's URL; never logged.
    pub url: Arc<str>,
    /// Time-outs of the connection.
    pub connect: ConnectSettings,
    /// Rows after which no further batch is merged into a statement.
    pub max_rows: usize,
    /// Between attempts while the shard is away.
    pub backoff: Backoff,
    /// Who claims: shown in `consumer_offsets.owner`.
    pub owner: Arc<str>,
    /// How far back from now an event partition is made on demand.
    pub window_past: TimeDelta,
    /// How far ahead of now an event partition is made on demand.
    pub window_future: TimeDelta,
}

enum Job {
    Claim(Claim),
    Write(WriteBatch),
}

/// One lane of one shard. Its queue is bounded by its senders: a partition has at most two batches here, and one claim.
pub struct ShardWriter {
    life: Life,
    queue: VecDeque<Job>,
    /// Away while it works on a cycle.
    lane: Option<Lane>,
}

impl ShardWriter {
    /// A writer with no connection yet; it makes one on the first message.
    pub fn new(life: Life, settings: ShardWriterSettings) -> Self {
        life.stats().show("shard", settings.shard);
        life.stats().show("lane", settings.lane);
        let lane = Lane::new(settings, life.stats().clone());
        Self {
            life,
            queue: VecDeque::new(),
            lane: Some(lane),
        }
    }

    fn take(&mut self, job: Job, ctx: &mut Context<Self>) {
        self.queue.push_back(job);
        self.show_queue();
        self.work(ctx);
    }

    fn show_queue(&self) {
        self.life
            .stats()
            .queue_depth
            .store(i64::try_from(self.queue.len()).unwrap_or(i64::MAX), Relaxed);
    }

    /// Starts a cycle with all that waits, unless one is running; its end starts the next.
    fn work(&mut self, ctx: &mut Context<Self>) {
        if self.queue.is_empty() {
            return;
        }
        let Some(mut lane) = self.lane.take() else { return };
        fail_point!("shard_writer");
        // Those who read for this lane are on this thread, and who of them has something by now goes along.
        let gathered = tokio::task::yield_now().into_actor(self);
        let cycle = gathered.then(|(), act, _| {
            let mut jobs = std::mem::take(&mut act.queue);
            let cycle = async move {
                lane.cycle(&mut jobs).await;
                (lane, jobs)
            };
            cycle.into_actor(act)
        });
        ctx.spawn(cycle.map(|(lane, mut left), act, ctx| {
            act.lane = Some(lane);
            left.append(&mut act.queue);
            act.queue = left;
            act.show_queue();
            act.work(ctx);
        }));
    }
}

impl Actor for ShardWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Stopping drops the cycle and with it the connection, in the middle of a statement or not: a statement is
        // written whole or not at all, and the offset row tells the next claim which.
        ctx.spawn(self.life.stopped().into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<Claim> for ShardWriter {
    type Result = ();
    fn handle(&mut self, claim: Claim, ctx: &mut Self::Context) {
        self.take(Job::Claim(claim), ctx);
    }
}

impl Handler<WriteBatch> for ShardWriter {
    type Result = ();
    fn handle(&mut self, batch: WriteBatch, ctx: &mut Self::Context) {
        self.take(Job::Write(batch), ctx);
    }
}

/// How long to wait for an answer beyond the server's own statement time-out before the connection counts as dead.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
