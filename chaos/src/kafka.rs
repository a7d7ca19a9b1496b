//! Kafka from outside: how far topics are, what stands on them, and what is done to them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::deployment::Topic;

const ANSWER: Duration = Duration::from_secs(5);

/// Low and high watermark of each partition of the topics, in their order.
pub async fn watermarks(brokers: &str, topics: &[Topic]) -> Result<Vec<Vec<(i64, i64)>>> {
    let (brokers, topics) = (brokers.to_owned(), topics.to_vec());
    tokio::task::spawn_blocking(move || {
        let consumer = consumer(&brokers)?;
        let of = |topic: &Topic| -> Result<Vec<(i64, i64)>> {
            let ask = |p| {
                consumer
                    .fetch_watermarks(&topic.name, p, ANSWER)
                    .map_err(anyhow::Error::from)
            };
            (0..topic.partitions).map(ask).collect()
        };
        topics.iter().map(of).collect()
    })
    .await?
}

fn consumer(brokers: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "chaos-checker")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .create()?)
}

/// Shows every record of a topic to `see`, from the low watermark to what is the high one when it is called.
pub async fn read<T: Send + 'static>(
    brokers: &str,
    topic: &Topic,
    mut see: impl FnMut(&BorrowedMessage<'_>) -> Option<T> + Send + 'static,
) -> Result<Vec<T>> {
    let marks = watermarks(brokers, std::slice::from_ref(topic)).await?.swap_remove(0);
    let (brokers, topic) = (brokers.to_owned(), topic.clone());
    tokio::task::spawn_blocking(move || {
        let consumer = consumer(&brokers)?;
        let mut left: usize = 0;
        let mut all = TopicPartitionList::new();
        for (p, (low, high)) in (0..).zip(&marks) {
            if high > low {
                left += 1;
                all.add_partition_offset(&topic.name, p, Offset::Offset(*low))?;
            }
        }
        consumer.assign(&all)?;
        let mut seen = Vec::new();
        while left > 0 {
            match consumer.poll(Duration::from_secs(30)) {
                None => bail!("{} could not be read to its end within 30 s", topic.name),
                Some(Err(error)) => {
                    // Brokers come and go; what is missing shows as a time-out.
                    eprintln!("reading {}: {error}", topic.name);
                }
                Some(Ok(message)) => {
                    let high = marks[usize::try_from(message.partition())?].1;
                    if message.offset() < high {
                        seen.extend(see(&message));
                    }
                    if message.offset() + 1 == high {
                        left -= 1;
                    }
                }
            }
        }
        Ok(seen)
    })
    .await?
}

fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(ClientConfig::new().set("bootstrap.servers", brokers).create()?)
}

/// Deletes a topic and makes it again, empty.
pub async fn recreate(brokers: &str, topic: &Topic, replicas: i32) -> Result<()> {
    let (admin, options) = (
        admin(brokers)?,
        AdminOptions::new().operation_timeout(Some(Duration::from_secs(10))),
    );
    for result in admin.delete_topics(&[&topic.name], &options).await? {
        result
            .map_err(|(_, code)| KafkaError::AdminOp(code))
            .with_context(|| format!("{} cannot be deleted", topic.name))?;
    }
    for _ in 0..100 {
        let fresh = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(replicas));
        let result = admin.create_topics(&[fresh], &options).await?.pop();
        match result {
            Some(Ok(_)) => return Ok(()),
            // The brokers are still at deleting it.
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => bail!("{} cannot be made again: {other:?}", topic.name),
        }
    }
    bail!("{} is still there 10 s after it was deleted", topic.name)
}

/// Deletes the records of a topic below these offsets, one for each partition.
pub async fn delete_records(brokers: &str, topic: &Topic, below: &[i64]) -> Result<()> {
    let mut offsets = TopicPartitionList::new();
    for (p, offset) in (0..).zip(below) {
        offsets.add_partition_offset(&topic.name, p, Offset::Offset(*offset))?;
    }
    let deleted = admin(brokers)?.delete_records(&offsets, &AdminOptions::new()).await?;
    for partition in deleted.elements() {
        partition.error()?;
    }
    Ok(())
}
