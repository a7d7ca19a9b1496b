//! What a group member owns, and the one place that answers rebalances.
//!
//! # The protocol
//!
//! librdkafka calls [`ConsumerContext::rebalance`] from whoever polls its main queue, which is the group's pump thread.
//! The answer is given inside the callback, at once, always:
//!
//! - ASSIGN is answered with an *empty* `incremental_assign`. The group is content and the member's other partitions go
//!   on. Nothing is fetched yet: each new partition is claimed on its shard first, in its own time, and only then
//!   [`Ownership::attach`]ed at the database's offset. A dead shard so delays only its own partitions.
//! - REVOKE is answered with `incremental_unassign` of those of its partitions that are attached.
//!
//! Answering ASSIGN later would pause every partition of the member, and a REVOKE that is answered late makes the
//! client's drop loop for ever. A claim that ends after its REVOKE must not attach: [`Ownership::attach`] checks the
//! ticket under the very lock that the callback takes.

mod membership;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use crate::kafka::{Reach, is_connection_loss};
pub use membership::Membership;

/// A group member's Kafka client.
pub type GroupConsumer = BaseConsumer<GroupContext>;

/// What the callback tells the consumer group's actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These are ours now, each with the ticket to attach it.
    Assigned(Vec<(i32, Ticket)>),
    /// These are not ours any more.
    Revoked(Vec<i32>),
    /// The client is of no use any more.
    Fatal(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Assigned(partitions) => {
                let numbers: Vec<i32> = partitions.iter().map(|(partition, _)| *partition).collect();
                write!(f, "assigned {numbers:?}")
            }
            Change::Revoked(partitions) => write!(f, "revoked {partitions:?}"),
            Change::Fatal(reason) => write!(f, "fatal: {reason}"),
        }
    }
}

/// Names one assignment of one partition: a ticket from before a revocation attaches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

struct Owned {
    ticket: Ticket,
    attached: bool,
}

/// The partitions this member owns.
pub struct Ownership {
    topic: String,
    owned: Mutex<HashMap<i32, Owned>>,
    membership: Membership,
    reach: Reach,
    tickets: AtomicU64,
}

impl Ownership {
    /// Owns nothing yet.
    pub fn new(topic: &str) -> Arc<Self> {
        Arc::new(Self {
            topic: topic.to_owned(),
            owned: Mutex::default(),
            membership: Membership::default(),
            reach: Reach::default(),
            tickets: AtomicU64::new(0),
        })
    }

    /// Whether the client still knows a broker.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Whether the client is settled in its group.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Whether nothing is owned.
    pub fn is_empty(&self) -> bool {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The ticket of a partition that is still owned.
    pub fn ticket(&self, partition: i32) -> Option<Ticket> {
        let owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.get(&partition).map(|o| o.ticket)
    }

    /// Whether this ticket is still good.
    pub fn owns(&self, partition: i32, ticket: Ticket) -> bool {
        self.ticket(partition) == Some(ticket)
    }

    /// Starts fetching a partition at `offset` into a queue of its own, whose `wake` is called when it stops being
    /// empty. `None` if it was revoked meanwhile. The former queue of the partition must be gone.
    pub fn attach(
        &self,
        consumer: &Arc<GroupConsumer>,
        partition: i32,
        ticket: Ticket,
        offset: i64,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> KafkaResult<Option<PartitionQueue<GroupContext>>> {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = owned.get_mut(&partition).filter(|o| o.ticket == ticket) else {
            return Ok(None);
        };
        if entry.attached {
            // A restarted actor: what was fetched for its predecessor is thrown away.
            entry.attached = false;
            consumer.incremental_unassign(&self.list([partition], Offset::Invalid)?)?;
        }
        let mut queue = consumer
            .split_partition_queue(&self.topic, partition)
            .ok_or_else(|| KafkaError::Subscription(format!("no queue for partition {partition}")))?;
        queue.set_nonempty_callback(wake);
        consumer.incremental_assign(&self.list([partition], Offset::Offset(offset))?)?;
        entry.attached = true;
        Ok(Some(queue))
    }

    /// Stops fetching a partition that stays owned. Nothing happens if the ticket is not good any more.
    pub fn detach(&self, consumer: &GroupConsumer, partition: i32, ticket: Ticket) -> KafkaResult<()> {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        match owned.get_mut(&partition).filter(|o| o.ticket == ticket && o.attached) {
            Some(entry) => {
                entry.attached = false;
                consumer.incremental_unassign(&self.list([partition], Offset::Invalid)?)
            }
            None => Ok(()),
        }
    }

    fn list(&self, partitions: impl IntoIterator<Item = i32>, offset: Offset) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic, partition, offset)?;
        }
        Ok(list)
    }

    fn assigned(&self, consumer: &GroupConsumer, partitions: &[i32]) -> (KafkaResult<()>, Change) {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = consumer.incremental_assign(&TopicPartitionList::new());
        let news = partitions.iter().map(|&partition| {
            let ticket = Ticket(self.tickets.fetch_add(1, Relaxed));
            owned.insert(
                partition,
                Owned {
                    ticket,
                    attached: false,
                },
            );
            (partition, ticket)
        });
        (answer, Change::Assigned(news.collect()))
    }

    fn revoked(&self, consumer: &GroupConsumer, partitions: &[i32]) -> (KafkaResult<()>, Change) {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        let attached = partitions
            .iter()
            .copied()
            .filter(|p| owned.remove(p).is_some_and(|o| o.attached));
        let answer = self
            .list(attached.collect::<Vec<_>>(), Offset::Invalid)
            .and_then(|list| consumer.incremental_unassign(&list));
        (answer, Change::Revoked(partitions.to_vec()))
    }
}

/// The callbacks of a group member.
pub struct GroupContext {
    ownership: Arc<Ownership>,
    /// Unbounded, as the callback must not wait; a rebalance is one message.
    changes: mpsc::UnboundedSender<Change>,
}

impl GroupContext {
    /// Callbacks that keep `ownership` and tell `changes`.
    pub fn new(ownership: Arc<Ownership>, changes: mpsc::UnboundedSender<Change>) -> Self {
        Self { ownership, changes }
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka (consumer)");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.ownership.membership.report(statistics, Instant::now());
        self.ownership.reach.report(statistics, Instant::now());
    }

    fn error(&self, kafka_error: KafkaError, reason: &str) {
        if kafka_error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            error!(topic = %self.ownership.topic, reason, "the Kafka consumer met a fatal error");
            let _ = self.changes.send(Change::Fatal(reason.to_owned()));
        } else if is_connection_loss(&kafka_error) {
            debug!(topic = %self.ownership.topic, %kafka_error, reason, "Kafka consumer");
        } else {
            warn!(topic = %self.ownership.topic, %kafka_error, reason, "Kafka consumer");
        }
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|e| e.partition()).collect();
        let (answer, change) = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.ownership.assigned(consumer, &partitions),
            _ => self.ownership.revoked(consumer, &partitions),
        };
        match answer {
            Ok(()) => info!(topic = %self.ownership.topic, "rebalance: {change}"),
            Err(error) => {
                error!(topic = %self.ownership.topic, %change, %error, "the answer to a rebalance was not taken")
            }
        }
        // The actor may have ended; then its consumer is being closed.
        let _ = self.changes.send(change);
    }
}
