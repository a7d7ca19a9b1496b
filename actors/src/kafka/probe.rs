//! A client that belongs to no group and only asks: a consumer's own connection answers late, because brokers serve a
//! connection's requests in order and a waiting fetch stands before the question.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::{KafkaSettings, topic_id};

/// Silences librdkafka's own log lines of this client: each question has its answer or its error.
struct Quiet;
impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka (probe)");
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka (probe)");
    }
}
impl ConsumerContext for Quiet {}

/// Answers questions about the cluster; each call blocks a thread of the blocking pool, for at most its time-out.
#[derive(Clone)]
pub struct Probe(Arc<BaseConsumer<Quiet>>);

/// The first offset that a partition still holds, and the one that its next record will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// First offset still there.
    pub low: i64,
    /// Offset of the next record to come.
    pub high: i64,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The brokers did not say it in time, or refused.
    #[error("{0}")]
    Kafka(#[from] KafkaError),
    /// The brokers were not reached in time.
    #[error("no broker answered")]
    Silent,
    /// The thread that asked is gone.
    #[error("the thread that asked has ended")]
    Interrupted,
}

/// A topic as the brokers describe it: its partition count and the smallest replica count among them. `None` where it
/// does not exist.
pub type TopicShape = Option<(i32, i32)>;

impl Probe {
    /// A probe of the brokers in `settings`. It connects on the first question.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let mut config = settings.client();
        config.set("enable.auto.commit", "false");
        Ok(Self(Arc::new(config.create_with_context(Quiet)?)))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Quiet>) -> Result<T, ProbeError> + Send + 'static,
    ) -> Result<T, ProbeError> {
        let client = self.0.clone();
        tokio::task::spawn_blocking(move || question(&client))
            .await
            .map_err(|_| ProbeError::Interrupted)?
    }

    /// The watermarks of one partition.
    pub async fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<Watermarks, ProbeError> {
        let topic = topic.to_owned();
        self.ask(move |client| {
            let (low, high) = client.fetch_watermarks(&topic, partition, timeout)?;
            Ok(Watermarks { low, high })
        })
        .await
    }

    /// The watermarks of partitions `0..partitions`, in order.
    pub async fn all_watermarks(
        &self,
        topic: &str,
        partitions: i32,
        timeout: Duration,
    ) -> Result<Vec<Watermarks>, ProbeError> {
        let topic = topic.to_owned();
        self.ask(move |client| {
            (0..partitions)
                .map(|p| {
                    let (low, high) = client.fetch_watermarks(&topic, p, timeout)?;
                    Ok(Watermarks { low, high })
                })
                .collect()
        })
        .await
    }

    /// The id of a topic, which another topic of the same name does not have; `None` where the brokers tell none.
    pub async fn topic_id(&self, topic: &str, timeout: Duration) -> Result<Option<String>, ProbeError> {
        let topic = topic.to_owned();
        self.ask(move |client| Ok(topic_id::topic_id(client.client(), &topic, timeout)?))
            .await
    }

    /// The cluster's id.
    pub async fn cluster_id(&self, timeout: Duration) -> Result<String, ProbeError> {
        self.ask(move |client| client.client().fetch_cluster_id(timeout).ok_or(ProbeError::Silent))
            .await
    }

    /// What the brokers know of `topic`.
    pub async fn shape(&self, topic: &str, timeout: Duration) -> Result<TopicShape, ProbeError> {
        let topic = topic.to_owned();
        self.ask(move |client| {
            let metadata = client.fetch_metadata(Some(&topic), timeout)?;
            let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else {
                return Ok(None);
            };
            if found.error().is_some() || found.partitions().is_empty() {
                return Ok(None);
            }
            let partitions = i32::try_from(found.partitions().len()).unwrap_or(i32::MAX);
            let replicas = found.partitions().iter().map(|p| p.replicas().len()).min().unwrap_or(0);
            Ok(Some((partitions, i32::try_from(replicas).unwrap_or(i32::MAX))))
        })
        .await
    }
}
