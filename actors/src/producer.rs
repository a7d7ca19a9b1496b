//! The way into Kafka, for webhooks: a producer on the thread of each worker of the HTTP server, because to wake another
//! thread for a webhook costs as much as to map it. All of them, and the dead letters' collector, share one
//! [`client`]. "Acknowledged" is said only after all in-sync replicas have the record.

pub mod client;
mod deliveries;
mod line;
mod native;
mod waves;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use actix::prelude::*;
use fail::fail_point;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use tokio::sync::oneshot;

use crate::actor_ref::{ActorRef, Undelivered};
use crate::kafka::told;
use crate::supervision::{ChildSpec, Life, Restart, StartChild, Supervisor};
use client::ClientRef;

/// How many records may wait in a producer's mailbox.
const MAILBOX_RECORDS: usize = 4096;

/// Publish a record; `reply` is told when Kafka has it, or why not.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Publish {
    /// Where to.
    pub topic: Arc<str>,
    /// `None`: the key decides.
    pub partition: Option<i32>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: OwnedHeaders,
    /// Told about the outcome.
    pub reply: oneshot::Sender<Result<Delivery, PublishError>>,
}

/// Where Kafka put a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// Why a record was not acknowledged. It may be on the topic all the same when it is only the answer that was lost; whoever
/// sends it again relies on the event's identity.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The producer's mailbox is full, or it or its client is being restarted.
    #[error("the producer is busy or being restarted")]
    NotTaken,
    /// The local queue is full: Kafka takes less than is sent.
    #[error("the queue of records waiting for Kafka is full")]
    QueueFull,
    /// Larger than the topic takes.
    #[error("the record is larger than Kafka takes")]
    TooLarge,
    /// Not acknowledged within the delivery time-out, or refused.
    #[error("Kafka did not acknowledge the record: {0}")]
    NotAcknowledged(RDKafkaErrorCode),
    /// Only a later record of its partition was acknowledged: this one may be there, or may have been refused.
    #[error("Kafka acknowledged a later record and not this one")]
    Passed,
    /// The client cannot take records at all.
    #[error("the Kafka client cannot send: {0}")]
    Client(String),
}

impl From<KafkaError> for PublishError {
    fn from(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => PublishError::QueueFull,
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => PublishError::TooLarge,
            Some(code) => PublishError::NotAcknowledged(code),
            None => PublishError::Client(told(&error)),
        }
    }
}

/// Hands records to the client.
pub struct Producer {
    life: Life,
    client: ClientRef,
}

impl Producer {
    /// A producer that sends through `client`.
    pub fn new(life: Life, client: ClientRef) -> Self {
        Self { life, client }
    }
}

impl Actor for Producer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(self.life.stopped().into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<Publish> for Producer {
    type Result = ();

    fn handle(&mut self, publish: Publish, _: &mut Self::Context) {
        fail_point!("producer");
        self.life.stats().add_handled(1);
        self.client.send(publish);
    }
}

/// Leads to the producer of this thread.
pub struct ProducerRef {
    producer: ActorRef<Producer>,
    client: ClientRef,
}

impl ProducerRef {
    /// Resolves once there has been a producer and a client: those of a process that just starts are worth waiting for. It does
    /// not wait for a restart.
    pub async fn came(&self) {
        self.producer.came().await;
        self.client.came().await;
    }

    #[cfg(test)]
    pub(crate) fn client(&self) -> &ClientRef {
        &self.client
    }

    /// Puts a record into the producer's mailbox, if there is room.
    pub fn try_send(&self, publish: Publish) -> Result<(), Undelivered<Publish>> {
        self.producer.try_send(publish)
    }
}

/// Starts producers where they are needed. The default is for who has no Kafka: it starts none, so nothing is accepted.
#[derive(Clone, Default)]
pub struct Producers {
    supervisor: Option<ActorRef<Supervisor>>,
    client: ClientRef,
    started: Arc<AtomicUsize>,
}

impl Producers {
    /// They live under `supervisor` and send through `client`.
    pub fn new(supervisor: ActorRef<Supervisor>, client: ClientRef) -> Self {
        Self {
            supervisor: Some(supervisor),
            client,
            started: Arc::default(),
        }
    }

    /// One more, on this thread and for as long as that runs. Fails where the supervisor is not there.
    pub fn start_here(&self) -> Result<ProducerRef, ProducerError> {
        let client = self.client.clone();
        let Some(supervisor) = &self.supervisor else {
            let producer = ActorRef::of_nobody();
            client.will_not_come();
            return Ok(ProducerRef { producer, client });
        };
        let arbiter = Arbiter::try_current().ok_or(ProducerError)?;
        let name = format!("producer.{}", self.started.fetch_add(1, Relaxed));
        let (producer, sends_through) = (ActorRef::default(), client.clone());
        let make = move |life: Life| Producer::new(life, sends_through.clone());
        let spec = ChildSpec::actor(name, arbiter, producer.clone(), MAILBOX_RECORDS, make);
        let spec = spec.restart(Restart::Transient).ends_with_its_thread();
        supervisor
            .try_send(StartChild(spec))
            .map(|()| ProducerRef { producer, client })
            .map_err(|_| ProducerError)
    }
}

/// There is nobody to start a producer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no producer can be started: its supervisor is away")]
pub struct ProducerError;

/// Leads to a producer and a client that are still to come.
#[cfg(test)]
pub(crate) fn to_come() -> Arc<ProducerRef> {
    Arc::new(ProducerRef {
        producer: ActorRef::default(),
        client: ClientRef::default(),
    })
}

/// Starts a producer on this thread, under nobody; what it counts.
#[cfg(test)]
pub(crate) fn start_alone(ProducerRef { producer, client }: &ProducerRef) -> Arc<crate::stats::ActorStats> {
    let client = client.clone();
    let make = move |life| Producer::new(life, client.clone());
    let spec = ChildSpec::actor("producer", Arbiter::current(), producer.clone(), MAILBOX_RECORDS, make);
    let stats = crate::stats::Registry::default().node("producer", "Producer");
    let _ended = spec.run(tokio_util::sync::CancellationToken::new(), stats.clone());
    stats
}

/// A producer whose client is away.
#[cfg(test)]
pub(crate) async fn idle_producer() -> (Arc<ProducerRef>, Arc<crate::stats::ActorStats>) {
    let address = to_come();
    let stats = start_alone(&address);
    address.client.will_not_come();
    address.came().await;
    (address, stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = oneshot::Receiver<Result<Delivery, PublishError>>;

    fn publish() -> (Publish, Outcome) {
        let (reply, outcome) = oneshot::channel();
        let publish = Publish {
            topic: "orders".into(),
            partition: None,
            key: None,
            value: None,
            headers: OwnedHeaders::new(),
            reply,
        };
        (publish, outcome)
    }

    /// The mailbox fills up while its thread is busy with something else, here with filling it.
    #[actix::test]
    async fn what_there_is_no_room_or_no_client_for_is_refused_at_once() {
        let (address, stats) = idle_producer().await;
        let mut waiting = Vec::new();
        loop {
            let (publish, outcome) = publish();
            match address.try_send(publish) {
                Ok(()) => waiting.push(outcome),
                Err(undelivered) => {
                    assert!(matches!(undelivered, Undelivered::Full(_)));
                    break;
                }
            }
        }
        assert_eq!(waiting.len(), MAILBOX_RECORDS);
        for outcome in waiting {
            let answer = outcome.await.expect("it is told");
            assert!(matches!(answer, Err(PublishError::NotTaken)));
        }
        assert_eq!(stats.handled.load(Relaxed), MAILBOX_RECORDS as u64);
    }

    #[actix::test]
    async fn without_kafka_nobody_waits_for_a_producer() {
        let nobody = Producers::default().start_here().expect("nobody is needed");
        nobody.came().await;
        let (publish, _) = publish();
        assert!(matches!(nobody.try_send(publish), Err(Undelivered::Away(_))));
    }

    #[actix::test]
    async fn nobody_serves_webhooks_without_a_producer() {
        let orphaned = Producers::new(ActorRef::default(), ClientRef::default());
        assert!(orphaned.start_here().is_err());
    }
}
