//! `[kafka]` and `[topics]` of config.toml, and the librdkafka configuration made of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::BaseProducer;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Deserializer};

use super::probe::Quiet;
use super::{REPORT_EVERY_MS, told};
use crate::secret::{SecretError, SecretRef};

/// `[kafka]`: how to reach the brokers. Whatever librdkafka knows can be set through the three tables of properties.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSettings {
    /// Bootstrap servers, `host:port` with commas between.
    pub brokers: String,
    /// Whether `hookmill serve` creates topics that do not exist.
    pub create_topics: bool,
    /// Replicas of a topic; -1 leaves it to the broker's `default.replication.factor`.
    pub replication: i32,
    /// A topic's consumer group is `<group_prefix>.<topic>`.
    pub group_prefix: String,
    /// librdkafka properties for every client: TLS, SASL and the like. A value may be a reference to a secret, in all three
    /// tables: `env:NAME` or `file:PATH`.
    #[serde(deserialize_with = "properties")]
    pub properties: BTreeMap<String, String>,
    /// librdkafka properties for producers only; they win over `properties`.
    #[serde(deserialize_with = "properties")]
    pub producer: BTreeMap<String, String>,
    /// librdkafka properties for consumers only; they win over `properties`.
    #[serde(deserialize_with = "properties")]
    pub consumer: BTreeMap<String, String>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            create_topics: false,
            replication: -1,
            group_prefix: "hookmill".to_owned(),
            properties: BTreeMap::new(),
            producer: BTreeMap::new(),
            consumer: BTreeMap::new(),
        }
    }
}

/// Names the properties and keeps their values, as some are passwords.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |table: &BTreeMap<String, String>| table.keys().cloned().collect::<Vec<_>>();
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("create_topics", &self.create_topics)
            .field("replication", &self.replication)
            .field("group_prefix", &self.group_prefix)
            .field("properties", &names(&self.properties))
            .field("producer", &names(&self.producer))
            .field("consumer", &names(&self.consumer))
            .finish()
    }
}

/// librdkafka takes every value as text; a number or a switch is welcome without quotes.
fn properties<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Bool(bool),
        Integer(i64),
        Float(f64),
        Text(String),
    }
    let raw = BTreeMap::<String, Scalar>::deserialize(input)?;
    let text = |scalar| match scalar {
        Scalar::Bool(value) => value.to_string(),
        Scalar::Integer(value) => value.to_string(),
        Scalar::Float(value) => value.to_string(),
        Scalar::Text(value) => value,
    };
    Ok(raw.into_iter().map(|(key, value)| (key, text(value))).collect())
}

/// One topic of `[topics]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSettings {
    /// The topic's name.
    pub name: String,
    /// Its number of partitions. Changing it moves keys between shards, so it is a migration and never a setting to play with.
    pub partitions: i32,
    /// How long the topic keeps its records, where it is created here.
    #[serde(skip)]
    pub keep: Keep,
}

impl TopicSettings {
    /// Its dead-letter topic: as many partitions, so that a dead letter keeps its own.
    pub fn dead_letters(&self) -> Self {
        Self {
            name: dead_letter_topic(&self.name),
            partitions: self.partitions,
            keep: Keep::ForATime,
        }
    }

    /// The same topic, kept so long.
    pub fn kept(&self, keep: Keep) -> Self {
        Self { keep, ..self.clone() }
    }
}

/// How long a topic keeps its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// As long as the brokers are configured to.
    #[default]
    ForATime,
    /// Until a record of the same key without a value comes.
    UntilForgotten,
}

/// How much comes over a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Much: a partition with a backlog, also if it is the only one, is to be read as fast as it can be written.
    Heavy,
    /// Little: one with a backlog, among others that have none, is read at 1 MiB each 0.1 s at most.
    Light,
}

/// The name of `topic`'s dead-letter topic.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}{DEAD_LETTER_SUFFIX}")
}

const DEAD_LETTER_SUFFIX: &str = ".DLQ";

/// Whether a topic is another's dead-letter topic.
pub(crate) fn is_dead_letter_topic(topic: &str) -> bool {
    topic.ends_with(DEAD_LETTER_SUFFIX)
}

/// What the protocol has room for.
const MOST_REPLICAS: i32 = 32_767;

/// Properties that the exactly-once protocol or the promise behind a 202 stands on: config may not change them.
const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "the database's offset row is the truth"),
    ("auto.commit.enable", "the database's offset row is the truth"),
    ("enable.auto.offset.store", "the database's offset row is the truth"),
    ("auto.offset.reset", "a lost position must be noticed, not jumped over"),
    ("enable.idempotence", "a retry must not write a record twice"),
    ("acks", "202 means that all in-sync replicas have the record"),
    (
        "request.required.acks",
        "202 means that all in-sync replicas have the record",
    ),
    ("group.id", "it is made of kafka.group_prefix and the topic"),
    ("bootstrap.servers", "it is kafka.brokers"),
    ("metadata.broker.list", "it is kafka.brokers"),
    (
        "partitioner",
        "a user's events are in order on the one partition that every producer chooses by the key",
    ),
    ("queuing.strategy", "a user's events are sent in their order"),
    (
        "transactional.id",
        "a transactional producer takes nothing outside of a transaction; records are written once without one",
    ),
    (
        "message.timeout.ms",
        "it follows from ingest.deadline, so that a webhook is answered in time",
    ),
    (
        "delivery.timeout.ms",
        "it follows from ingest.deadline, so that a webhook is answered in time",
    ),
    ("message.max.bytes", "it follows from ingest.body_limit"),
    (
        "statistics.interval.ms",
        "a client that knows no broker, or does not get back into its group, is recognized by its statistics",
    ),
];

impl KafkaSettings {
    /// Says which property is not to be set, and why.
    pub fn validate(&self) -> Result<(), String> {
        for (table, properties) in [
            ("properties", &self.properties),
            ("producer", &self.producer),
            ("consumer", &self.consumer),
        ] {
            for key in properties.keys() {
                if let Some((_, why)) = FIXED.iter().find(|(fixed, _)| *fixed == property_name(key)) {
                    return Err(format!("kafka.{table}.\"{key}\" cannot be set: {why}; remove the line"));
                }
            }
            if let Some(strategy) = properties
                .get("partition.assignment.strategy")
                .filter(|s| *s != "cooperative-sticky")
            {
                return Err(format!(
                    "kafka.{table}.\"partition.assignment.strategy\" is {strategy:?}, but partitions are handed over one by one: only \"cooperative-sticky\" works"
                ));
            }
        }
        if self.brokers.trim().is_empty() {
            return Err("kafka.brokers is empty: set it to host:port of at least one broker".to_owned());
        }
        if self.group_prefix.trim().is_empty() {
            return Err("kafka.group_prefix is empty: set it, for example to \"hookmill\"".to_owned());
        }
        if self.replication != -1 && !(1..=MOST_REPLICAS).contains(&self.replication) {
            return Err(format!(
                "kafka.replication = {} is no number of replicas: set it above 0, or to -1 for the brokers' default",
                self.replication
            ));
        }
        Ok(())
    }

    /// Makes the clients that a start would make, of `topic`, and lets them go again: librdkafka refuses what it does not
    /// know, and what does not go together, only then. Says which client it was, and what is wrong. Blocks for a moment.
    pub fn try_clients(&self, topic: &str, delivery_timeout: Duration, record_limit: usize) -> Result<(), String> {
        let producer: Result<BaseProducer<Quiet>, _> = self
            .producer(delivery_timeout, record_limit)
            .create_with_context(Quiet::default());
        producer.map_err(|error| format!("the producer ([kafka.properties], [kafka.producer]): {}", told(&error)))?;
        let consumer: Result<BaseConsumer<Quiet>, _> = self
            .consumer(topic, Traffic::Heavy)
            .create_with_context(Quiet::default());
        consumer.map_err(|error| format!("the consumers ([kafka.properties], [kafka.consumer]): {}", told(&error)))?;
        Ok(())
    }

    /// The same with what its references stand for. The error names the property, never a value.
    pub fn resolved(mut self) -> Result<Self, String> {
        let tables = [
            ("properties", &mut self.properties),
            ("producer", &mut self.producer),
            ("consumer", &mut self.consumer),
        ];
        for (table, properties) in tables {
            for (key, value) in properties {
                if !value.starts_with("env:") && !value.starts_with("file:") {
                    continue;
                }
                let resolve = |text: &str| text.parse::<SecretRef>()?.resolve();
                let secret =
                    resolve(value).map_err(|error: SecretError| format!("kafka.{table}.\"{key}\": {error}"))?;
                secret.expose_secret().clone_into(value);
            }
        }
        Ok(self)
    }

    /// What every client has.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "hookmill");
        // A broker that is away is tried again soon: freshness after an outage hangs on it.
        config
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        // A connection whose other end is gone without a word is noticed by a request that is not answered: at the
        // default of 60 s a partition stands still for a minute.
        config.set("socket.timeout.ms", "10000");
        config
            .set("socket.keepalive.enable", "true")
            .set("topic.metadata.refresh.interval.ms", "60000");
        apply(&mut config, &self.properties);
        config
    }

    /// A producer that keeps the promise of a 202: acknowledged by all in-sync replicas, and written once. A record that
    /// is not acknowledged within `delivery_timeout` is given up; one of more than `record_limit` bytes is not taken.
    pub fn producer(&self, delivery_timeout: Duration, record_limit: usize) -> ClientConfig {
        let mut config = self.client();
        // linger 0 and few requests in flight: what arrives while requests travel goes with the next (a group commit without a
        // timer; `producer::waves` makes the groups larger). A request has the records of one partition, so that with one at a
        // time a webhook waits for all those before it; with more, each carries few. Up to five an idempotent producer keeps the
        // order but where a partition's leader changes: then a record can come twice, and meets the primary key. Both are settings
        // as any other.
        config
            .set("linger.ms", "0")
            .set("max.in.flight.requests.per.connection", "3");
        config
            .set("queue.buffering.max.messages", "50000")
            .set("queue.buffering.max.kbytes", "65536");
        // Once more: what is said for all clients counts against these, too.
        apply(&mut config, &self.properties);
        apply(&mut config, &self.producer);
        config.set("acks", "all").set("enable.idempotence", "true");
        // The Java clients' default, so that any producer puts a user's events on the same partition.
        config.set("partitioner", "murmur2_random");
        // 0 would be no time-out at all.
        config.set("message.timeout.ms", delivery_timeout.as_millis().max(1).to_string());
        config.set("message.max.bytes", record_limit.to_string());
        config
    }

    /// The consumer of `topic`'s group.
    pub fn consumer(&self, topic: &str, traffic: Traffic) -> ClientConfig {
        let mut config = self.client();
        // A member hears of a rebalance by its heartbeat: with the default 3 s a partition takes as long to change hands.
        config
            .set("heartbeat.interval.ms", HEARTBEAT_EVERY.as_millis().to_string())
            .set("session.timeout.ms", "6000");
        config
            .set("queued.min.messages", "2000")
            .set("fetch.queue.backoff.ms", "10");
        // One fetch at a time is under way to a broker: a partition whose queue was full when it was sent waits for it to
        // end, and it waits for records of the others. With 100 ms a partition with a backlog among idle ones took twice
        // as long. Where records are few, fetches that bring nothing are what a short wait costs: the broker more than us.
        //
        // The bounds of what is fetched ahead, for a partition: reading stops when its writer is behind, so this, and what one
        // fetch brings, is all that piles up. That it is as much for all partitions of a topic makes it most of the memory.
        let (wait, kbytes, fetched) = match traffic {
            Traffic::Heavy => ("20", "512", "524288"),
            Traffic::Light => ("100", "1024", "1048576"),
        };
        config
            .set("fetch.wait.max.ms", wait)
            .set("queued.max.messages.kbytes", kbytes)
            .set("fetch.message.max.bytes", fetched)
            .set("statistics.interval.ms", REPORT_EVERY_MS.to_string());
        // Once more, as for a producer.
        apply(&mut config, &self.properties);
        apply(&mut config, &self.consumer);
        if is_broker_side(&config) {
            // The broker sets these for the new protocol, and librdkafka refuses them here.
            config.remove("heartbeat.interval.ms");
            config.remove("session.timeout.ms");
        } else {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        config.set("group.id", self.group(topic));
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error");
        config
    }

    /// The consumer group of `topic`.
    pub fn group(&self, topic: &str) -> String {
        format!("{}.{topic}", self.group_prefix)
    }
}

/// How often a member of a group asks whether something has changed.
pub(crate) const HEARTBEAT_EVERY: Duration = Duration::from_millis(300);

/// Whether the broker decides who gets which partition, by the protocol that Kafka has since version 4.0
/// (<https://cwiki.apache.org/confluence/display/KAFKA/KIP-848%3A+The+Next+Generation+of+the+Consumer+Rebalance+Protocol>).
pub(crate) fn is_broker_side(config: &ClientConfig) -> bool {
    config.get("group.protocol") == Some("consumer")
}

fn apply(config: &mut ClientConfig, properties: &BTreeMap<String, String>) {
    for (key, value) in properties {
        config.set(property_name(key), value);
    }
}

/// librdkafka's names have dots; the name of an environment variable cannot, and says `_` there instead. What has two names is
/// set by the one that is used here, or which of the two counts would be chance.
fn property_name(key: &str) -> String {
    match key.replace('_', ".").as_str() {
        "max.in.flight" => "max.in.flight.requests.per.connection".to_owned(),
        "queue.buffering.max.ms" => "linger.ms".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
