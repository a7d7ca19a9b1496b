//! The dead-letter collector: takes records that can never be written and puts them, untouched and with the reason, on
//! their topic's dead-letter topic. It answers only when Kafka has them, and tries until it has: the partition's offset
//! passes a bad record only after that. A dead letter may so be written twice, with the same origin, never not at all.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use fail::fail_point;
use hookmill_schema::Record;
use hookmill_schema::dead_letters::Failure;
use rdkafka::message::{Header, OwnedHeaders};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::kafka::dead_letter_topic;
use crate::producer::Publish;
use crate::producer::client::ClientRef;
use crate::stats::ActorStats;
use crate::supervision::{Backoff, Life};

/// Bury one record; `done` is told when Kafka has acknowledged its dead letter. If `done` is dropped instead, the
/// collector has ended: bury again.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Bury {
    /// The record as it came.
    pub record: Arc<Record>,
    /// What is wrong with it, and where it came from.
    pub failure: Arc<Failure>,
    /// Told once it is safe.
    pub done: oneshot::Sender<()>,
}

/// The one collector of a process. What waits in it is bounded: a partition buries one record at a time.
pub struct DeadLetters {
    life: Life,
    client: ClientRef,
}

/// Longer than a record can be on its way (`ingest.deadline` is a minute at most). librdkafka can forget one, when a connection
/// breaks in the moment in which its client is taken away.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// Between attempts to hand a dead letter to Kafka.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(5),
};

impl DeadLetters {
    /// A collector that publishes through `client`.
    pub fn new(life: Life, client: ClientRef) -> Self {
        Self { life, client }
    }
}

impl Actor for DeadLetters {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(self.life.stopped().into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Handler<Bury> for DeadLetters {
    type Result = ();

    fn handle(&mut self, bury: Bury, ctx: &mut Self::Context) {
        fail_point!("dead_letters");
        let (client, stats) = (self.client.clone(), self.life.stats().clone());
        stats.queue_depth.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let burial = async move {
            publish_until_acknowledged(&client, &bury, &stats).await;
            stats.add_handled(1);
            stats.queue_depth.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            // The partition may have been revoked meanwhile; its next owner will bury the record again.
            let _ = bury.done.send(());
        };
        ctx.spawn(burial.into_actor(self));
    }
}

async fn publish_until_acknowledged(client: &ClientRef, bury: &Bury, stats: &ActorStats) {
    let topic: Arc<str> = dead_letter_topic(&bury.failure.topic).into();
    let Failure {
        topic: origin,
        partition,
        offset,
        ..
    } = &*bury.failure;
    for attempt in 0.. {
        if bury.done.is_closed() {
            return;
        }
        let (reply, outcome) = oneshot::channel();
        client.send(Publish {
            topic: topic.clone(),
            // The same number as its origin's, so that it lands on the same shard.
            partition: Some(bury.failure.partition),
            key: bury.record.key().map(<[u8]>::to_vec),
            value: bury.record.value().map(<[u8]>::to_vec),
            headers: headers(bury),
            reply,
        });
        let why = match tokio::time::timeout(FORGOTTEN_AFTER, outcome).await {
            Ok(Ok(Ok(_))) => {
                if attempt > 0 {
                    info!(topic = %origin, partition, offset, attempt, "Kafka has the dead letter now; its partition goes on");
                }
                return;
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => "the Kafka client is being restarted".to_owned(),
            Err(_) => "the Kafka client has forgotten it".to_owned(),
        };
        stats.record_error(&why);
        if attempt == 0 {
            warn!(topic = %origin, partition, offset, %why, "a dead letter could not be handed to Kafka yet; its partition waits, trying again");
        }
        tokio::time::sleep(BACKOFF.delay(attempt, rand::random())).await;
    }
}

/// The record's own headers, then those that say why it is here.
fn headers(bury: &Bury) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (key, value) in bury.record.headers() {
        headers = headers.insert(Header { key, value });
    }
    for (key, value) in bury.failure.headers() {
        headers = headers.insert(Header {
            key,
            value: Some(&value),
        });
    }
    headers
}
