//! Reading the topic of parked events, and what is done to it afterwards.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ParkedEvent;
use crate::kafka::{KafkaSettings, TopicSettings, event_headers, new_trace_parent, topics};
use crate::sources::Accepted;

/// The topic of parked events, for commands.
pub struct ParkedStore {
    settings: KafkaSettings,
    topic: TopicSettings,
    producer: FutureProducer,
    patience: Duration,
}

impl ParkedStore {
    /// The topic as configured; each question to the brokers may take `patience`.
    pub fn new(
        settings: KafkaSettings,
        topic: TopicSettings,
        body_limit: usize,
        patience: Duration,
    ) -> Result<Self, KafkaError> {
        let producer = settings
            .producer(patience, topics::producer_limit(body_limit))
            .create()?;
        Ok(Self {
            settings,
            topic,
            producer,
            patience,
        })
    }

    /// Every event that is still parked, in the order in which they came. Blocks.
    pub fn read(&self) -> Result<Vec<ParkedEvent>, KafkaError> {
        let mut config = self.settings.client();
        config
            .set("group.id", "hookmill-parked")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "false");
        let consumer: BaseConsumer = config.create()?;
        let mut from = TopicPartitionList::new();
        let mut ends = HashMap::new();
        for partition in 0..self.topic.partitions {
            let (low, high) = consumer.fetch_watermarks(&self.topic.name, partition, self.patience)?;
            if low < high {
                ends.insert(partition, high);
                from.add_partition_offset(&self.topic.name, partition, Offset::Offset(low))?;
            }
        }
        consumer.assign(&from)?;
        let mut parked: Vec<ParkedEvent> = Vec::new();
        let mut deadline = Instant::now() + self.patience;
        while !ends.is_empty() {
            let Some(record) = consumer.poll(Duration::from_millis(100)) else {
                // Compaction may have taken the last offsets away: the position tells how far the reading came.
                for position in consumer.position()?.elements() {
                    let reached = matches!(position.offset(), Offset::Offset(at) if ends.get(&position.partition()).is_some_and(|end| at >= *end));
                    if reached {
                        ends.remove(&position.partition());
                    }
                }
                if Instant::now() > deadline {
                    return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
                }
                continue;
            };
            let record = record?;
            deadline = Instant::now() + self.patience;
            match ParkedEvent::read(&record) {
                Ok(event) => parked.push(event),
                Err(Some(gone)) => parked.retain(|event| event.id != gone),
                Err(None) => {}
            }
            if ends
                .get(&record.partition())
                .is_some_and(|end| record.offset() + 1 >= *end)
            {
                ends.remove(&record.partition());
            }
        }
        parked.sort_by_key(|event| event.received_at);
        Ok(parked)
    }

    /// Publishes an event as the HTTP server does; returns when Kafka has it.
    pub async fn publish(&self, topic: &str, event: &Accepted) -> Result<(), KafkaError> {
        let trace = new_trace_parent();
        let record = FutureRecord::to(topic)
            .key(event.user_id.as_str())
            .payload(&event.value)
            .headers(event_headers(&trace));
        self.send(record).await
    }

    /// Notes that an event is parked no more; returns when Kafka has it.
    pub async fn forget(&self, id: &str) -> Result<(), KafkaError> {
        let record: FutureRecord<'_, str, [u8]> =
            FutureRecord::to(&self.topic.name).key(id).headers(OwnedHeaders::new());
        self.send(record).await
    }

    async fn send<P: rdkafka::message::ToBytes + ?Sized>(
        &self,
        record: FutureRecord<'_, str, P>,
    ) -> Result<(), KafkaError> {
        self.producer
            .send(record, self.patience)
            .await
            .map(|_| ())
            .map_err(|(error, _)| error)
    }
}
