//! The consumer group's member for one topic: owns the Kafka consumer, has one partition consumer started for each
//! partition it is assigned, and stopped when that is revoked.
//!
//! The consumer lives in the pump, a thread of its own that polls its main queue, keeps its heartbeats regular, and closes
//! it when nobody else holds it any more: leaving the group answers its own last rebalance from there.

mod pump;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use fail::fail_point;
use hookmill_schema::Table;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::actor_ref::ActorRef;
use crate::kafka::{KafkaSettings, Traffic, is_connection_loss, told};
use crate::partition_consumer::{PartitionConsumer, TopicContext};
use crate::partition_table::{PartitionState, PartitionTable};
use crate::rebalance::{Change, GroupConsumer, GroupContext, Ownership, Ticket};
use crate::supervision::{ChildSpec, Life, Restart, StartChild, StopChild, StopChildren, Supervisor};
use pump::Pump;

/// Settings of a group member.
#[derive(Clone, Debug)]
pub struct ConsumerGroupSettings {
    /// How to reach Kafka.
    pub kafka: KafkaSettings,
    /// A fenced or halted partition that is still ours is claimed again after so long; so is one that has lag and does not move.
    pub retry_after: Duration,
    /// Between commits of progress to Kafka. They are for lag tools only; the truth is in the shards.
    pub commit_every: Duration,
}

/// One topic's group member.
pub struct ConsumerGroup {
    life: Life,
    member: Option<Member>,
}

struct Member {
    settings: ConsumerGroupSettings,
    context: Arc<TopicContext>,
    partitions: ActorRef<Supervisor>,
    table: PartitionTable,
    life: Life,
}

impl ConsumerGroup {
    /// A member for `context`'s topic, whose partition consumers are children of `partitions`.
    pub fn new(
        life: Life,
        settings: ConsumerGroupSettings,
        context: Arc<TopicContext>,
        partitions: ActorRef<Supervisor>,
        table: PartitionTable,
    ) -> Self {
        let member = Member {
            settings,
            context,
            partitions,
            table,
            life: life.clone(),
        };
        Self {
            life,
            member: Some(member),
        }
    }
}

impl Actor for ConsumerGroup {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(member) = self.member.take() else {
            return ctx.stop();
        };
        ctx.spawn(member.run().into_actor(self).map(|result, act, ctx| {
            if let Err(why) = result {
                act.life.fail(why);
            }
            ctx.stop();
        }));
    }
}

impl Member {
    async fn run(self) -> Result<(), String> {
        // A crashed predecessor may have left partition consumers that hold its client.
        self.stop_partitions().await;
        let (sender, mut changes) = mpsc::unbounded_channel();
        let ownership = Ownership::new(&self.context.topic);
        let traffic = match self.context.table {
            Table::Orders => Traffic::Heavy,
            Table::Disputes | Table::DeadLetters => Traffic::Light,
        };
        let config = self.settings.kafka.consumer(&self.context.topic, traffic);
        let consumer: GroupConsumer = config
            .create_with_context(GroupContext::new(ownership.clone(), sender.clone()))
            .map_err(|error| format!("cannot create the Kafka consumer: {}", told(&error)))?;
        let consumer = Arc::new(consumer);
        let pump = Pump::start(&self.context.topic, &config, consumer.clone(), sender)?;
        let topic: &str = &self.context.topic;
        consumer
            .subscribe(&[topic])
            .map_err(|error| format!("cannot subscribe to {topic}: {error}"))?;
        let result = self.serve(&consumer, &ownership, &mut changes).await;
        self.stop_partitions().await;
        drop(consumer);
        // A client at fault may not even be able to leave.
        let patience = if result.is_err() { LEAVING } else { Duration::MAX };
        match tokio::time::timeout(patience, pump.close()).await {
            Ok(()) => info!(topic, "left the consumer group"),
            Err(_) => warn!(
                topic,
                waited_s = LEAVING.as_secs(),
                "the former client has not left the consumer group yet; going on without waiting"
            ),
        }
        result
    }

    async fn serve(
        &self,
        consumer: &Arc<GroupConsumer>,
        ownership: &Arc<Ownership>,
        changes: &mut mpsc::UnboundedReceiver<Change>,
    ) -> Result<(), String> {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut commit = tokio::time::interval(self.settings.commit_every);
        let mut stuck = Stuck::default();
        let mut another_topic = std::pin::pin!(self.another_topic());
        loop {
            fail_point!("consumer_group");
            tokio::select! {
                () = self.life.stopped() => {
                    self.commit(consumer);
                    return Ok(());
                }
                change = changes.recv() => match change {
                    Some(Change::Assigned(partitions)) => {
                        for (partition, ticket) in partitions {
                            self.start(partition, ticket, ownership, consumer);
                        }
                        self.wake_brokers(consumer);
                    }
                    Some(Change::Revoked(partitions)) => {
                        for partition in partitions {
                            self.tell(StopChild(name(partition)));
                            self.forget(partition);
                        }
                        self.wake_brokers(consumer);
                    }
                    Some(Change::Fatal(why)) => return Err(why),
                    None => return Err("the Kafka client is gone".to_owned()),
                },
                _ = tick.tick() => {
                    self.watch(ownership, consumer, &mut stuck)?;
                    self.watch_membership(ownership).await?;
                }
                () = &mut another_topic => {
                    self.claim_all(ownership, consumer);
                    another_topic.set(self.another_topic());
                }
                _ = commit.tick() => self.commit(consumer),
            }
        }
    }

    /// Waits until the topic is another one of the same name. A client that asks seldom enough does not notice, and where the new
    /// one has grown past our offset by then it reads on in the middle of it.
    async fn another_topic(&self) {
        let mut known = None;
        loop {
            // Where Kafka does not answer, or there is no topic for the moment, it is asked again.
            if let Ok(Some(id)) = self.context.probe.topic_id(&self.context.topic, ANSWER).await
                && *known.get_or_insert_with(|| id.clone()) != id
            {
                return;
            }
            tokio::time::sleep(TOPIC_EVERY).await;
        }
    }

    /// What a claim finds decides whether a partition is read on.
    fn claim_all(&self, ownership: &Arc<Ownership>, consumer: &Arc<GroupConsumer>) {
        warn!(topic = %self.context.topic, "there is another topic of this name now; claiming its partitions again");
        for view in self
            .table
            .view()
            .into_iter()
            .filter(|view| *view.topic == *self.context.topic)
        {
            if let Some(ticket) = ownership.ticket(view.partition) {
                self.tell(StopChild(name(view.partition)));
                self.start(view.partition, ticket, ownership, consumer);
            }
        }
    }

    fn start(&self, partition: i32, ticket: Ticket, ownership: &Arc<Ownership>, consumer: &Arc<GroupConsumer>) {
        let shard = hookmill_schema::shard::shard_of(partition, self.context.shards);
        let stats = self.table.entry(&self.context.topic, partition, shard);
        stats.set_state(PartitionState::Claiming);
        let (context, ownership, consumer) = (self.context.clone(), ownership.clone(), Arc::downgrade(consumer));
        let spec = ChildSpec::actor(
            name(partition),
            self.context.lane(partition).lane.thread.clone(),
            ActorRef::default(),
            1,
            move |life: Life| {
                PartitionConsumer::new(
                    life,
                    partition,
                    ticket,
                    context.clone(),
                    ownership.clone(),
                    consumer.clone(),
                    stats.clone(),
                )
            },
        );
        self.tell(StartChild(spec.restart(Restart::Transient)));
    }

    fn tell<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Supervisor: Handler<M>,
    {
        if self.partitions.try_send(message).is_err() {
            // It is being restarted, and this member after it.
            warn!(topic = %self.context.topic, "the supervisor of the partition consumers is away");
        }
    }

    async fn stop_partitions(&self) {
        let (done, stopped) = oneshot::channel();
        self.tell(StopChildren { done });
        // If the supervisor is gone, so are its children.
        let _ = stopped.await;
    }

    /// A consumer that has ended by itself does not notice that its partition is revoked.
    fn forget(&self, partition: i32) {
        if let Some(stats) = self.table.get(&self.context.topic, partition) {
            match stats.state() {
                PartitionState::Fenced | PartitionState::Halted => stats.set_state(PartitionState::Revoked),
                PartitionState::Revoked | PartitionState::Claiming | PartitionState::Running => {}
            }
        }
    }

    /// Claims again what is ours and does not move: fenced a while ago, halted (an operator may have decided), or silent
    /// though Kafka has more. Where that does not help, the client is at fault, and a fresh one is asked for.
    fn watch(
        &self,
        ownership: &Arc<Ownership>,
        consumer: &Arc<GroupConsumer>,
        stuck: &mut Stuck,
    ) -> Result<(), String> {
        let patience = i64::try_from(self.settings.retry_after.as_millis()).unwrap_or(i64::MAX);
        let (mut owned, mut queue) = (0, 0);
        for view in self
            .table
            .view()
            .into_iter()
            .filter(|v| *v.topic == *self.context.topic)
        {
            let Some(ticket) = ownership.ticket(view.partition) else {
                continue;
            };
            owned += 1;
            queue += view.lag.unwrap_or(0);
            let Some(stats) = self.table.get(&view.topic, view.partition) else {
                continue;
            };
            if stats.still_for_ms() < patience {
                continue;
            }
            match view.state {
                PartitionState::Fenced => {
                    warn!(topic = %view.topic, partition = view.partition, "fenced, and still ours by the group; claiming it again");
                }
                PartitionState::Halted => {}
                PartitionState::Running if view.lag.is_some_and(|lag| lag > 0) && !stats.is_waiting() => {
                    let rounds = stuck.again(view.partition, view.next_offset);
                    warn!(topic = %view.topic, partition = view.partition, lag = view.lag, rounds, "the partition does not move; claiming it again");
                    if rounds > FRUITLESS {
                        return Err(format!(
                            "partition {} of {} was claimed {rounds} times and still does not move at offset {}; starting with a fresh client",
                            view.partition, view.topic, view.next_offset
                        ));
                    }
                }
                PartitionState::Running | PartitionState::Revoked | PartitionState::Claiming => continue,
            }
            self.tell(StopChild(name(view.partition)));
            self.start(view.partition, ticket, ownership, consumer);
        }
        self.life.stats().show("partitions", owned);
        self.life.stats().show("lag", queue);
        Ok(())
    }

    /// A client that lost sight of Kafka, or does not get into its group, though Kafka answers, is replaced; not one that still reads, as the group
    /// may be waiting for somebody else.
    async fn watch_membership(&self, ownership: &Ownership) -> Result<(), String> {
        if ownership.reach().is_lost(Instant::now()) {
            return Err(format!(
                "the client of {} knows no broker any more; starting with a fresh client",
                self.context.topic
            ));
        }
        let membership = ownership.membership();
        let Some(state) = membership.stuck(UNSETTLED, Instant::now()) else {
            return Ok(());
        };
        let reads = !ownership.is_empty();
        if reads || self.context.probe.shape(&self.context.topic, ANSWER).await.is_err() {
            membership.excuse(Instant::now());
            return Ok(());
        }
        Err(format!(
            "the client has not got into the consumer group of {} for {} s (its state: {state}); starting with a fresh client",
            self.context.topic,
            UNSETTLED.as_secs()
        ))
    }

    fn commit(&self, consumer: &GroupConsumer) {
        let mut offsets = TopicPartitionList::new();
        for view in self
            .table
            .view()
            .into_iter()
            .filter(|v| *v.topic == *self.context.topic && v.state == PartitionState::Running)
        {
            // Fails only for an offset that Kafka cannot have.
            let _ = offsets.add_partition_offset(&view.topic, view.partition, Offset::Offset(view.next_offset));
        }
        if offsets.count() > 0
            && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
        {
            self.life.stats().record_error(&format!(
                "progress could not be told to Kafka (lag tools will be behind): {error}"
            ));
        }
    }

    /// After a change of the assignment librdkafka makes two pauses of up to a second, which questions end: a broker thread
    /// sleeps, and a member joins at most once a second unless metadata came since it joined last.
    fn wake_brokers(&self, consumer: &Arc<GroupConsumer>) {
        let (consumer, topic) = (consumer.clone(), self.context.topic.clone());
        tokio::task::spawn_blocking(move || {
            // Only the asking matters. A broker answers in order, and a fetch that waits for records may come first.
            let _ = consumer.fetch_metadata(Some(&topic), SOON);
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(20));
                let Some(partition) = consumer
                    .assignment()
                    .ok()
                    .and_then(|list| list.elements().first().map(|e| e.partition()))
                else {
                    continue;
                };
                let answer = consumer.fetch_watermarks(&topic, partition, SOON);
                if answer.is_err_and(|error| is_connection_loss(&error)) {
                    return;
                }
            }
            let _ = consumer.fetch_metadata(Some(&topic), SOON);
        });
    }
}

/// A rebalance takes that long only if something is wrong: a member that is gone is waited for by its session, 6 s.
const UNSETTLED: Duration = Duration::from_secs(30);
/// How long a client that is to be replaced may take to leave.
const LEAVING: Duration = Duration::from_secs(8);
/// How often it is looked whether the topic is still the same.
const TOPIC_EVERY: Duration = Duration::from_secs(2);
/// How long a question that wakes may take: longer than a fetch waits, as one that is late costs the connection.
const SOON: Duration = Duration::from_millis(500);
/// How long the brokers may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// So often a silent partition is claimed again before the client counts as the one at fault.
const FRUITLESS: u32 = 2;

/// Partitions that were claimed again for being silent: how often in a row, and at which offset.
#[derive(Default)]
struct Stuck(HashMap<i32, (i64, u32)>);

impl Stuck {
    /// Counts one more time at `next`; another offset than last time is a first one.
    fn again(&mut self, partition: i32, next: i64) -> u32 {
        let (at, rounds) = self.0.entry(partition).or_insert((next, 0));
        *rounds = if *at == next { *rounds + 1 } else { 1 };
        *at = next;
        *rounds
    }
}

fn name(partition: i32) -> String {
    format!("partition.{partition}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_moved_in_between_is_not_stuck() {
        let mut stuck = Stuck::default();
        assert_eq!([stuck.again(3, 10), stuck.again(3, 10), stuck.again(4, 10)], [1, 2, 1]);
        assert_eq!([stuck.again(3, 11), stuck.again(3, 11)], [1, 2]);
    }
}
