//! A client that belongs to no group and only asks: a consumer's own connection answers late, because brokers serve a
//! connection's requests in order and a waiting fetch stands before the question.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use super::{KafkaSettings, REPORT_EVERY_MS, Reach, told, topic_id};

/// Silences librdkafka's own log lines of this client: each question has its answer or its error. What it said last of a
/// broker is kept, as a broker that cannot be spoken to is answered with silence.
#[derive(Default)]
pub(super) struct Quiet {
    heard: Mutex<Option<Complaint>>,
    reach: Reach,
}

#[derive(Clone)]
struct Complaint {
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka (probe)");
        // A broker that hangs up at once is told of here only.
        if facility == "FAIL" {
            self.hear(None, message);
        }
    }
    fn stats_raw(&self, statistics: &[u8]) {
        self.reach.report(statistics, Instant::now());
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka (probe)");
        let code = error.rdkafka_error_code();
        // That all are down follows from what was said of each.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.hear(code, reason);
        }
    }
}
impl ConsumerContext for Quiet {}
impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

impl Quiet {
    /// What says more stays.
    fn hear(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let complaint = Complaint {
            code,
            reason: reason.to_owned(),
        };
        if complaint.is_final() || !heard.as_ref().is_some_and(Complaint::is_final) {
            *heard = Some(complaint);
        }
    }

    fn heard(&self) -> Option<Complaint> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers questions about the cluster; each call blocks a thread of the blocking pool, for at most its time-out.
#[derive(Clone)]
pub struct Probe(Arc<Asking>);

struct Asking {
    config: ClientConfig,
    client: ArcSwap<BaseConsumer<Quiet>>,
}

impl Asking {
    /// A client that lost sight of all brokers answers nothing any more: the next question is a fresh one's.
    fn replace_if_lost(&self, client: &Arc<BaseConsumer<Quiet>>) {
        if client.context().reach.is_lost(Instant::now()) {
            match self.config.create_with_context(Quiet::default()) {
                Ok(fresh) => {
                    tracing::warn!("the client that asks Kafka knows no broker any more; going on with a fresh one");
                    self.client.compare_and_swap(client, Arc::new(fresh));
                }
                // The next question comes soon.
                Err(error) => tracing::warn!(%error, "the client that asks Kafka cannot be replaced"),
            }
        }
    }
}

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
    #[error("{}", told(.0))]
    Kafka(#[from] KafkaError),
    /// The brokers were not reached in time.
    #[error("no broker answered")]
    Silent,
    /// They were reached, and could not be spoken to.
    #[error("{reason}; {advice}")]
    Refused {
        /// What librdkafka said of the last broker it tried.
        reason: String,
        /// What to look at.
        advice: &'static str,
    },
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
        config
            .set("enable.auto.commit", "false")
            .set("statistics.interval.ms", REPORT_EVERY_MS.to_string());
        let client = ArcSwap::from_pointee(config.create_with_context(Quiet::default())?);
        Ok(Self(Arc::new(Asking { config, client })))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Quiet>) -> Result<T, ProbeError> + Send + 'static,
    ) -> Result<T, ProbeError> {
        let asking = self.0.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let client = asking.client.load_full();
            let answer = question(&client);
            hear(&client);
            asking.replace_if_lost(&client);
            answer
        });
        asking.await.map_err(|_| ProbeError::Interrupted)?
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

    /// The offset that the next record of each of the partitions `0..partitions` will get, in order: one question to each broker,
    /// however many partitions there are.
    pub async fn high_watermarks(
        &self,
        topic: &str,
        partitions: i32,
        timeout: Duration,
    ) -> Result<Vec<i64>, ProbeError> {
        let mut ends = TopicPartitionList::new();
        for partition in 0..partitions {
            // librdkafka puts into the request what stands for the time: Kafka's "latest" is the same number.
            ends.add_partition_offset(topic, partition, Offset::End)?;
        }
        self.ask(move |client| {
            let begun = Instant::now();
            loop {
                let found = client.offsets_for_times(ends.clone(), timeout.saturating_sub(begun.elapsed()));
                let found = found
                    .map_err(ProbeError::from)
                    .and_then(|found| found.elements().iter().map(high_watermark).collect());
                // A partition that has just got another leader, or its first: librdkafka asks again by itself, and then answers
                // with the first error all the same.
                if found.is_ok() || begun.elapsed() > timeout.min(SOON) {
                    return found;
                }
                std::thread::sleep(AT_ONCE);
            }
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
        self.ask(move |client| {
            let begun = Instant::now();
            loop {
                if let Some(id) = client.client().fetch_cluster_id(AT_ONCE) {
                    return Ok(id);
                }
                hear(client);
                let complaint = client.context().heard();
                // Another broker may be content with us.
                let hopeless = complaint.as_ref().is_some_and(Complaint::is_final) && begun.elapsed() > ENOUGH;
                if hopeless || begun.elapsed() > timeout {
                    return Err(complaint.map_or(ProbeError::Silent, Complaint::into_error));
                }
            }
        })
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

fn high_watermark(found: &TopicPartitionListElem<'_>) -> Result<i64, ProbeError> {
    found.error()?;
    match found.offset() {
        Offset::Offset(offset) => Ok(offset),
        // The broker left the partition out of its answer.
        _ => Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset).into()),
    }
}

/// How long one try for the cluster's id may take.
const AT_ONCE: Duration = Duration::from_millis(200);
/// So long a partition may be without a leader before somebody hears of it.
const SOON: Duration = Duration::from_secs(1);
/// After so long a refusal counts as the answer of all brokers.
const ENOUGH: Duration = Duration::from_secs(3);

/// Lets the client say what it has to say. Nobody reads records by it, and what is not heard would pile up.
fn hear(client: &BaseConsumer<Quiet>) {
    while client.poll(Duration::ZERO).is_some() {}
}

impl Complaint {
    /// Whether trying again with the same settings is of no use.
    fn is_final(&self) -> bool {
        matches!(
            self.code,
            Some(RDKafkaErrorCode::SSL | RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed)
        )
    }

    fn into_error(self) -> ProbeError {
        let advice = match self.code {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                "check sasl.mechanism, sasl.username and sasl.password in [kafka.properties]"
            }
            Some(RDKafkaErrorCode::SSL) => {
                "check that ssl.ca.location in [kafka.properties] names the CA of the brokers' certificates, and that kafka.brokers names each host as its certificate does"
            }
            _ => "check that it runs, and that security.protocol in [kafka.properties] is what it speaks",
        };
        ProbeError::Refused {
            reason: self.reason,
            advice,
        }
    }
}
