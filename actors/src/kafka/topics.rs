//! The topics must exist, with the configured number of partitions, before anything starts: a key's partition decides
//! its shard, so a topic of another size would send users to other shards.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::probe::TopicShape;
use super::settings::Keep;
use super::{KafkaSettings, Probe, ProbeError, TopicSettings, is_dead_letter_topic};

/// How a topic on the cluster compares with its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As configured.
    Fits,
    /// Not there.
    Missing,
    /// There, with another number of partitions: the start must stop.
    OtherPartitions {
        /// What the brokers say.
        actual: i32,
    },
    /// There, with a `max.message.bytes` that the largest allowed body would not fit: the start must stop.
    SmallRecords {
        /// What the brokers say.
        actual: usize,
    },
    /// There, with fewer replicas than configured: a warning, as it works but protects less.
    FewerReplicas {
        /// What the brokers say.
        actual: i32,
    },
    /// There, with several replicas of which one alone may acknowledge (`min.insync.replicas` = 1): a warning, as what was
    /// acknowledged is lost with that one.
    OneAcknowledges {
        /// What the brokers say.
        replicas: i32,
    },
}

/// Replicas from which on a created topic asks for two acknowledgements: one broker may then be away.
const REPLICAS_FOR_TWO: i32 = 3;

/// Bytes that a record may have beyond what it carries: an event around a body, or the headers of a dead letter.
const ENVELOPE_BYTES: usize = 64 << 10;

/// What the topic `name` must let through, in bytes, so that the event of any body up to `body_limit` fits; a dead-letter
/// topic takes any record that its origin takes, and the reason beside it.
pub fn record_limit(name: &str, body_limit: usize) -> usize {
    let event = body_limit.saturating_add(ENVELOPE_BYTES);
    if is_dead_letter_topic(name) {
        event.saturating_add(ENVELOPE_BYTES)
    } else {
        event
    }
}

/// What the producer must take, in bytes: the largest record of any topic.
pub fn producer_limit(body_limit: usize) -> usize {
    body_limit.saturating_add(2 * ENVELOPE_BYTES)
}

/// Compares each of `topics` with what the brokers have; it must let the events of bodies up to `body_limit` through.
pub async fn examine(
    probe: &Probe,
    settings: &KafkaSettings,
    topics: &[TopicSettings],
    body_limit: usize,
    timeout: Duration,
) -> Result<Vec<Finding>, ProbeError> {
    let mut shapes = Vec::with_capacity(topics.len());
    for topic in topics {
        shapes.push(probe.shape(&topic.name, timeout).await?);
    }
    let there = topics.iter().zip(&shapes).filter(|(_, shape)| shape.is_some());
    let names: Vec<&str> = there.map(|(topic, _)| topic.name.as_str()).collect();
    let limits = limits(settings, &names, timeout).await?;
    let findings = topics.iter().zip(shapes).map(|(topic, shape)| {
        let limits = limits.get(&topic.name).cloned().unwrap_or_default();
        let needed = record_limit(&topic.name, body_limit);
        compare(shape, &limits, topic.partitions, settings.replication, needed)
    });
    Ok(findings.collect())
}

/// Of a topic's own settings, as far as the brokers say them.
#[derive(Clone, Default)]
struct Limits {
    /// `max.message.bytes`.
    record: Option<usize>,
    /// `min.insync.replicas`.
    replicas: Option<usize>,
}

/// By topic.
async fn limits(
    settings: &KafkaSettings,
    topics: &[&str],
    timeout: Duration,
) -> Result<BTreeMap<String, Limits>, KafkaError> {
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let topics: Vec<_> = topics.iter().copied().map(ResourceSpecifier::Topic).collect();
    let admin: AdminClient<DefaultClientContext> = settings.client().create()?;
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let described = admin.describe_configs(&topics, &options).await;
    give_up(admin);
    let limits = described?.into_iter().flatten().filter_map(|resource| {
        let number = |key: &str| resource.get(key)?.value.as_ref()?.parse().ok();
        let limits = Limits {
            record: number("max.message.bytes"),
            replicas: number("min.insync.replicas"),
        };
        match resource.specifier {
            OwnedResourceSpecifier::Topic(name) => Some((name, limits)),
            OwnedResourceSpecifier::Group(_) | OwnedResourceSpecifier::Broker(_) => None,
        }
    });
    Ok(limits.collect())
}

/// Nobody waits for the end of its thread, which takes up to 100 ms.
fn give_up(admin: AdminClient<DefaultClientContext>) {
    drop(tokio::task::spawn_blocking(move || drop(admin)));
}

/// The explanation of a topic that does not let large enough records through, for people.
pub fn small_records(topic: &TopicSettings, actual: usize, body_limit: usize) -> String {
    let (name, needed) = (&topic.name, record_limit(&topic.name, body_limit));
    format!(
        "topic {name} takes records of at most {actual} bytes, and ingest.body_limit = {body_limit} needs {needed}: set the topic's max.message.bytes to that \
         (kafka-configs.sh --alter --topic {name} --add-config max.message.bytes={needed}), or lower ingest.body_limit"
    )
}

fn compare(shape: TopicShape, limits: &Limits, partitions: i32, replication: i32, needed: usize) -> Finding {
    let Some((actual, replicas)) = shape else {
        return Finding::Missing;
    };
    if actual != partitions {
        return Finding::OtherPartitions { actual };
    }
    if let Some(actual) = limits.record.filter(|actual| *actual < needed) {
        return Finding::SmallRecords { actual };
    }
    if replication > 0 && replicas < replication {
        return Finding::FewerReplicas { actual: replicas };
    }
    if replicas > 1 && limits.replicas == Some(1) {
        return Finding::OneAcknowledges { replicas };
    }
    Finding::Fits
}

/// The explanation of a wrong partition count, for people.
pub fn other_partitions(topic: &TopicSettings, actual: i32) -> String {
    format!(
        "topic {} has {actual} partitions, the configuration says {}. A user's partition decides the user's shard, so this cannot be guessed away: \
         set the topic's `partitions` to {actual} in [topics] if the topic is right, or give a new topic name",
        topic.name, topic.partitions
    )
}

/// Creates `topics` that do not exist, for the events of bodies up to `body_limit`; one that exists already is left as it
/// is. Returns the names of those created.
pub async fn create(
    settings: &KafkaSettings,
    topics: &[TopicSettings],
    body_limit: usize,
    timeout: Duration,
) -> Result<Vec<String>, KafkaError> {
    let admin: AdminClient<DefaultClientContext> = settings.client().create()?;
    let limits: Vec<String> = topics
        .iter()
        .map(|t| record_limit(&t.name, body_limit).to_string())
        .collect();
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .zip(&limits)
        .map(|(t, limit)| {
            let topic = NewTopic::new(&t.name, t.partitions, TopicReplication::Fixed(settings.replication))
                .set("max.message.bytes", limit);
            let topic = if settings.replication >= REPLICAS_FOR_TWO {
                topic.set("min.insync.replicas", "2")
            } else {
                topic
            };
            // What waits for an operator must not be lost to a time limit; what was replayed is marked by its key.
            match t.keep {
                Keep::ForATime => topic,
                Keep::UntilForgotten => topic.set("cleanup.policy", "compact").set("retention.ms", "-1"),
            }
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(timeout))
        .request_timeout(Some(timeout));
    let results = admin.create_topics(&new, &options).await;
    give_up(admin);
    let mut created = Vec::new();
    for result in results? {
        match result {
            Ok(name) => created.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                tracing::error!(topic = %name, %code, "cannot create the topic");
                return Err(KafkaError::AdminOp(code));
            }
        }
    }
    Ok(created)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings() {
        let told = Limits {
            record: Some(1_000),
            replicas: Some(1),
        };
        let compare = |shape, limits: &Limits, replication| compare(shape, limits, 12, replication, 1_000);
        assert_eq!(compare(None, &told, -1), Finding::Missing);
        assert_eq!(compare(Some((6, 3)), &told, -1), Finding::OtherPartitions { actual: 6 });
        assert_eq!(compare(Some((12, 1)), &told, 3), Finding::FewerReplicas { actual: 1 });
        assert_eq!(compare(Some((12, 1)), &told, -1), Finding::Fits);
        assert_eq!(
            compare(Some((12, 3)), &told, 3),
            Finding::OneAcknowledges { replicas: 3 }
        );
        assert_eq!(compare(Some((12, 3)), &Limits::default(), 3), Finding::Fits);
        let small = Limits {
            record: Some(999),
            ..told
        };
        assert_eq!(compare(Some((12, 1)), &small, 3), Finding::SmallRecords { actual: 999 });
    }
}
