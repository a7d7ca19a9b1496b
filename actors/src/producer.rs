//! The producer: the one way into Kafka, for webhooks and for dead letters. "Acknowledged" is said only after all in-sync
//! replicas have the record.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use actix::prelude::*;
use fail::fail_point;
use rdkafka::Message as _;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{debug, error, warn};

use crate::kafka::{KafkaSettings, REPORT_EVERY_MS, Reach, is_connection_loss, told};
use crate::stats::ActorStats;
use crate::supervision::Life;

/// How many records may wait in the producer's mailbox.
pub const MAILBOX_RECORDS: usize = 4096;

/// Publish these, each for itself.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PublishAll {
    /// One at least.
    pub records: Vec<Publish>,
    /// Their share of [`MAILBOX_RECORDS`], where the sender is bounded by that; given back when they have been handled, or
    /// were lost with the mailbox.
    pub room: Option<OwnedSemaphorePermit>,
}

/// One record; `reply` is told when Kafka has it, or why not.
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
    /// The producer's mailbox is full, or it is being restarted.
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

/// `[producer]` of the actor graph.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    /// How to reach Kafka.
    pub kafka: KafkaSettings,
    /// A record that is not acknowledged for so long is given up; less than the time a webhook may take.
    pub delivery_timeout: Duration,
    /// Largest record it takes, in bytes.
    pub record_limit: usize,
    /// How long a stopping producer waits for what is in flight.
    pub flush_timeout: Duration,
}

/// Owns the Kafka producer client.
pub struct Producer {
    life: Life,
    settings: ProducerSettings,
    client: Option<ThreadedProducer<Deliveries>>,
}

impl Producer {
    /// A producer; it creates its client when it starts.
    pub fn new(life: Life, settings: ProducerSettings) -> Self {
        Self {
            life,
            settings,
            client: None,
        }
    }

    /// An idempotent producer that met a fatal error, or a client that knows no broker, sends nothing any more: only a fresh
    /// one does.
    fn check_client(&self, ctx: &mut Context<Self>) {
        let Some(client) = self.client.as_ref().map(|client| client.client()) else {
            return;
        };
        if let Some((code, reason)) = client.fatal_error() {
            self.life
                .fail(format!("fatal error of the Kafka producer: {code}: {reason}"));
            ctx.stop();
        } else if client.context().reach.is_lost(Instant::now()) {
            self.life
                .fail("the Kafka client knows no broker any more; starting with a fresh one");
            ctx.stop();
        }
    }

    fn send(&self, publish: Publish) {
        let Some(client) = &self.client else { return };
        let Publish {
            topic,
            partition,
            key,
            value,
            headers,
            reply,
        } = publish;
        let waiting = Waiting::new(reply, self.life.stats());
        let mut record: BaseRecord<'_, [u8], [u8], Box<Waiting>> =
            BaseRecord::with_opaque_to(&topic, Box::new(waiting)).headers(headers);
        record.partition = partition;
        record.key = key.as_deref();
        record.payload = value.as_deref();
        if let Err((error, record)) = client.send(record) {
            let error = PublishError::from(error);
            self.life.stats().record_error(&error.to_string());
            record.delivery_opaque.tell(Err(error));
        }
    }
}

impl Actor for Producer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let ProducerSettings {
            kafka,
            delivery_timeout,
            record_limit,
            ..
        } = &self.settings;
        let mut config = kafka.producer(*delivery_timeout, *record_limit);
        config.set("statistics.interval.ms", REPORT_EVERY_MS.to_string());
        let deliveries = Deliveries {
            stats: self.life.stats().clone(),
            reach: Reach::default(),
        };
        match ThreadedProducer::from_config_and_context(&config, deliveries) {
            Ok(client) => self.client = Some(client),
            Err(error) => {
                self.life
                    .fail(format!("cannot create the Kafka producer: {}", told(&error)));
                return ctx.stop();
            }
        }
        ctx.run_interval(Duration::from_secs(1), |act, ctx| act.check_client(ctx));
        let flush_timeout = self.settings.flush_timeout;
        ctx.spawn(self.life.stopped().into_actor(self).then(move |(), act, _| {
            let client = act.client.take();
            // Dropping the client throws away what is in flight, and blocks: flush first, and off this thread.
            let closed = tokio::task::spawn_blocking(move || {
                if let Some(Err(error)) = client.map(|client| client.flush(flush_timeout)) {
                    warn!(%error, "records were still in flight when the producer stopped; their senders were not told 202");
                }
            });
            closed.into_actor(act).map(|_, _, ctx| ctx.stop())
        }));
    }
}

impl Handler<PublishAll> for Producer {
    type Result = ();

    fn handle(&mut self, all: PublishAll, _: &mut Self::Context) {
        for publish in all.records {
            fail_point!("producer");
            self.send(publish);
        }
    }
}

type Reply = oneshot::Sender<Result<Delivery, PublishError>>;

/// Who waits for a record's acknowledgement.
struct Waiting {
    reply: Reply,
    _counted: Counted,
}

/// Counts a record in the actor's queue for as long as nobody knows whether Kafka has it.
struct Counted(Arc<ActorStats>);

impl Waiting {
    fn new(reply: Reply, stats: &Arc<ActorStats>) -> Self {
        stats.queue_depth.fetch_add(1, Relaxed);
        let _counted = Counted(stats.clone());
        Self { reply, _counted }
    }

    fn tell(self, outcome: Result<Delivery, PublishError>) {
        // Who asked may have stopped waiting.
        let _ = self.reply.send(outcome);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.queue_depth.fetch_sub(1, Relaxed);
    }
}

/// Hands each delivery report to who waits for it, straight from librdkafka's thread.
struct Deliveries {
    stats: Arc<ActorStats>,
    reach: Reach,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka (producer)");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.reach.report(statistics, Instant::now());
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            error!(reason, "the Kafka producer met a fatal error and will be replaced");
        } else if is_connection_loss(&error) {
            debug!(%error, reason, "Kafka producer");
        } else {
            warn!(%error, reason, "Kafka producer");
        }
        self.stats.record_error(reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Box<Waiting>) {
        let outcome = match result {
            Ok(message) => {
                self.stats.add_handled(1);
                Ok(Delivery {
                    partition: message.partition(),
                    offset: message.offset(),
                })
            }
            Err((error, _)) => {
                let error = PublishError::from(error.clone());
                self.stats.record_error(&error.to_string());
                Err(error)
            }
        };
        waiting.tell(outcome);
    }
}
