//! The pump: the thread that polls a consumer's main queue, where rebalances are answered and errors reported, and that keeps
//! its heartbeats regular.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::kafka::{HEARTBEAT_EVERY, is_broker_side};
use crate::rebalance::{Change, GroupConsumer};

/// Handle of the pump; dropping it, by a panic of its owner, lets the thread end too.
pub(super) struct Pump {
    _stop: DropGuard,
    closed: oneshot::Receiver<()>,
}

impl Pump {
    /// Of a consumer that was made with `config`.
    pub(super) fn start(
        topic: &str,
        config: &ClientConfig,
        consumer: Arc<GroupConsumer>,
        changes: mpsc::UnboundedSender<Change>,
    ) -> Result<Self, String> {
        let stop = CancellationToken::new();
        let (done, closed) = oneshot::channel();
        let stopped = stop.clone();
        let heartbeats = match is_broker_side(config) {
            true => Heartbeats::Asking {
                topic: topic.to_owned(),
                last: Instant::now(),
            },
            false => Heartbeats::Waking,
        };
        std::thread::Builder::new()
            .name(format!("pump {topic}"))
            .spawn(move || {
                pump(consumer, heartbeats, &changes, &stopped);
                let _ = done.send(());
            })
            .map_err(|error| format!("cannot start the pump's thread: {error}"))?;
        Ok(Self {
            _stop: stop.drop_guard(),
            closed,
        })
    }

    /// Waits until the consumer has left its group and is closed. Whoever holds it must have let go.
    pub(super) async fn close(self) {
        let Self { _stop, closed } = self;
        drop(_stop);
        // An error means that the thread is gone, and the consumer with it.
        let _ = closed.await;
    }
}

/// What makes librdkafka send its heartbeats often enough, by which a member hears of changes.
enum Heartbeats {
    /// It looks whether one is due on a thread that sleeps up to a second, whatever their interval: a question wakes it.
    Waking,
    /// By the broker-side protocol the broker sets the interval, 5 s as it is shipped, and a joining member would wait for as
    /// long for what another one has already given up. Whoever subscribes, if to the same topic, sends one at once.
    Asking { topic: String, last: Instant },
}

impl Heartbeats {
    fn keep(&mut self, consumer: &GroupConsumer) {
        match self {
            // That is all the question is for.
            Heartbeats::Waking => drop(consumer.assignment()),
            Heartbeats::Asking { topic, last } if last.elapsed() >= HEARTBEAT_EVERY => {
                if let Err(error) = consumer.subscribe(&[topic]) {
                    debug!(%error, "Kafka consumer");
                }
                *last = Instant::now();
            }
            Heartbeats::Asking { .. } => {}
        }
    }
}

fn pump(
    mut consumer: Arc<GroupConsumer>,
    mut heartbeats: Heartbeats,
    changes: &mpsc::UnboundedSender<Change>,
    stop: &CancellationToken,
) {
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                // Every partition has a queue of its own before it is assigned.
                let why = format!(
                    "a record of partition {} came on the main queue: a bug",
                    message.partition()
                );
                let _ = changes.send(Change::Fatal(why));
                break;
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                let _ = changes.send(Change::Fatal(format!("fatal error of the Kafka consumer: {code}")));
                break;
            }
            Some(Err(error)) => debug!(%error, "Kafka consumer"),
        }
        heartbeats.keep(&consumer);
        if stop.is_cancelled() {
            // Other holders are partition consumers on their way out; until they are, rebalances must be answered.
            match Arc::try_unwrap(consumer) {
                // Closing leaves the group, which takes a moment: that is why it happens on this thread.
                Ok(alone) => return drop(alone),
                Err(held) => consumer = held,
            }
        }
    }
    drop(when_alone(consumer, stop));
}

/// After a fatal error the member still has to stop its partition consumers.
fn when_alone(mut consumer: Arc<GroupConsumer>, stop: &CancellationToken) -> GroupConsumer {
    for waited in 0_u32.. {
        if waited == 500 {
            warn!("a closed consumer is still held after 10 s");
        }
        if stop.is_cancelled() {
            match Arc::try_unwrap(consumer) {
                Ok(alone) => return alone,
                Err(held) => consumer = held,
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    unreachable!("the waiting never ends")
}
