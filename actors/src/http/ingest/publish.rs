//! The records of a request on their way through the producer.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::message::OwnedHeaders;
use tokio::sync::oneshot;

use crate::http::problem::Problem;
use crate::producer::{ProducerRef, Publish, PublishError};

/// A record before it is handed to the producer.
pub(super) struct ToPublish {
    pub(super) topic: Arc<str>,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) headers: OwnedHeaders,
}

/// Records of one request that are put into the producer's mailbox before others have their turn.
const AT_ONCE: usize = 256;

/// Publishes all records of a request and waits for all: one answer, and a good one only if Kafka has every one of them.
pub(super) async fn publish(
    records: Vec<ToPublish>,
    producer: &ProducerRef,
    patience: Duration,
) -> Result<(), Problem> {
    let all = async {
        // A worker that just starts can have requests before it has its producer, and that its client.
        producer.came().await;
        let mut waiting = Vec::with_capacity(records.len());
        for record in records {
            let (reply, outcome) = oneshot::channel();
            let publish = Publish {
                topic: record.topic,
                partition: None,
                key: Some(record.key),
                value: Some(record.value),
                headers: record.headers,
                reply,
            };
            producer.try_send(publish).map_err(|_| PublishError::NotTaken)?;
            waiting.push(outcome);
            if waiting.len().is_multiple_of(AT_ONCE) {
                // The producer is on this thread: it takes them meanwhile.
                tokio::task::yield_now().await;
            }
        }
        for outcome in waiting {
            // No answer: the producer was restarted with the record in flight.
            outcome
                .await
                .map_err(|_| Problem::unavailable("the event could not be stored durably; send it again"))??;
        }
        Ok(())
    };
    tokio::time::timeout(patience, all).await.unwrap_or_else(|_| {
        Err(Problem::unavailable(
            "the event could not be stored durably in time; send it again",
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::producer::{idle_producer, start_alone, to_come};

    fn record() -> ToPublish {
        ToPublish {
            topic: "orders".into(),
            key: Vec::new(),
            value: Vec::new(),
            headers: OwnedHeaders::new(),
        }
    }

    #[actix::test]
    async fn a_request_may_have_more_events_than_a_mailbox_holds() {
        let (producer, stats) = idle_producer().await;
        let records = std::iter::repeat_with(record).take(40 * AT_ONCE).collect();
        let refused = publish(records, &producer, Duration::from_secs(60)).await;
        assert!(refused.is_err(), "there is no client");
        assert_eq!(stats.handled.load(Relaxed), 40 * AT_ONCE as u64);
    }

    #[actix::test]
    async fn the_first_webhooks_wait_for_what_takes_them() {
        let producer = to_come();
        let to = producer.clone();
        let first = actix::spawn(async move { publish(vec![record()], &to, Duration::from_secs(60)).await });
        let a_moment = Duration::from_millis(50);
        tokio::time::sleep(a_moment).await;
        assert!(!first.is_finished(), "it waits for the producer");
        let stats = start_alone(&producer);
        tokio::time::sleep(a_moment).await;
        assert!(!first.is_finished(), "it waits for the client");
        assert_eq!(stats.handled.load(Relaxed), 0, "and not in the mailbox");
        producer.client().will_not_come();
        assert!(first.await.expect("no panic").is_err(), "there is no client");
        assert_eq!(stats.handled.load(Relaxed), 1);
    }
}
