//! What is on Kafka, and what is put there or deleted.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{World, until};

impl World {
    /// Low and high watermark of every partition of a topic.
    pub async fn watermarks(&self, topic: &str, partitions: i32) -> Vec<(i64, i64)> {
        let (brokers, topic) = (self.stack.brokers(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .create()
                .expect("a consumer");
            let ask = |p| {
                consumer
                    .fetch_watermarks(&topic, p, Duration::from_secs(20))
                    .expect("watermarks")
            };
            (0..partitions).map(ask).collect()
        })
        .await
        .expect("no panic")
    }

    /// Every record of a topic.
    pub async fn records(&self, topic: &str, partitions: i32) -> Vec<OwnedMessage> {
        let ends: Vec<i64> = self
            .watermarks(topic, partitions)
            .await
            .into_iter()
            .map(|(_, high)| high)
            .collect();
        let (brokers, topic) = (self.stack.brokers(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .set("group.id", "nobody")
                .set("enable.auto.commit", "false")
                .create()
                .expect("a consumer");
            let mut all = TopicPartitionList::new();
            for p in 0..partitions {
                all.add_partition_offset(&topic, p, Offset::Beginning)
                    .expect("an offset");
            }
            consumer.assign(&all).expect("assigned");
            let wanted: i64 = ends.iter().sum();
            let mut records = Vec::new();
            while (records.len() as i64) < wanted {
                let record = consumer
                    .poll(Duration::from_secs(20))
                    .expect("records in time")
                    .expect("no error");
                records.push(record.detach());
            }
            records
        })
        .await
        .expect("no panic")
    }

    /// Deletes a topic, and waits until the broker has forgotten it.
    pub async fn delete_topic(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", self.stack.brokers())
            .create()
            .expect("a client");
        let deleted = admin
            .delete_topics(&[topic], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        until("the topic is gone", Duration::from_secs(20), async || {
            let metadata = admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5));
            let metadata = metadata.expect("metadata");
            metadata
                .topics()
                .iter()
                .all(|t| t.error().is_some() || t.partitions().is_empty())
        })
        .await;
    }

    /// Deletes the records of a partition before `offset`.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", self.stack.brokers())
            .create()
            .expect("a client");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("an offset");
        let deleted = admin
            .delete_records(&list, &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(deleted.elements().iter().all(|e| e.error().is_ok()), "{deleted:?}");
    }

    /// Puts records on a topic, in their order; returns when all are acknowledged.
    pub async fn produce(&self, topic: &str, records: Vec<RawRecord>) {
        let (brokers, topic) = (self.stack.brokers(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .set("partitioner", "murmur2_random")
                .set("enable.idempotence", "true")
                .set("linger.ms", "5")
                .create()
                .expect("a producer");
            for raw in &records {
                let mut headers = OwnedHeaders::new();
                for (key, value) in &raw.headers {
                    headers = headers.insert(Header {
                        key,
                        value: value.as_ref(),
                    });
                }
                let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic);
                record.partition = raw.partition;
                record.key = raw.key.as_deref();
                record.payload = raw.value.as_deref();
                record.headers = Some(headers);
                let mut again = Some(record);
                while let Some(record) = again.take() {
                    if let Err((_, full)) = producer.send(record) {
                        producer.flush(Duration::from_secs(20)).expect("flushed");
                        again = Some(full);
                    }
                }
            }
            producer.flush(Duration::from_secs(60)).expect("flushed");
        })
        .await
        .expect("no panic");
    }
}

/// A record as it is put on a topic.
#[derive(Clone, Debug, Default)]
pub struct RawRecord {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}
