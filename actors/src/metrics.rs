//! Metrics in the OpenMetrics text format. Each one's help text says how to read it. What actors and partitions count
//! anyway is read from there at each scrape.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry as Exposition;

use crate::partition_table::{PartitionState, PartitionTable};
use crate::sources::Source;
use crate::stats::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    source: String,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: String,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    exposition: Exposition,
    webhooks: Family<WebhookLabels, Counter>,
    duration: Family<SourceLabels, Histogram>,
}

impl Metrics {
    /// Metrics over the process' actors, partitions and sources.
    pub fn new(actors: Registry, partitions: PartitionTable, sources: Vec<Arc<Source>>) -> Self {
        let mut exposition = Exposition::with_prefix("hookmill");
        let webhooks = Family::<WebhookLabels, Counter>::default();
        exposition.register(
            "webhooks",
            "Webhooks answered, by source and outcome (accepted, ignored, or the problem's name). A rise of signature-wrong is a wrong secret or an attack; of unavailable, Kafka cannot keep up",
            webhooks.clone(),
        );
        let duration = Family::<SourceLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.0005, 2.0, 14))
        });
        exposition.register(
            "webhook_duration_seconds",
            "From a request's head read to its answer, Kafka's acknowledgement included. Should stay well under the shortest time-out of a provider, 5 s",
            duration.clone(),
        );
        exposition.register_collector(Box::new(Facts {
            actors,
            partitions,
            sources,
        }));
        Self {
            exposition,
            webhooks,
            duration,
        }
    }

    /// The metrics of one source's webhooks.
    pub fn of_source(&self, source: &str) -> WebhookMetrics {
        let labels = SourceLabels {
            source: source.to_owned(),
        };
        let duration = self.duration.get_or_create(&labels).clone();
        WebhookMetrics {
            source: labels.source,
            webhooks: self.webhooks.clone(),
            accepted: OnceLock::new(),
            duration,
        }
    }

    /// The exposition for a scrape.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.exposition)?;
        Ok(text)
    }
}

/// Counts one source's webhooks.
#[derive(Debug)]
pub struct WebhookMetrics {
    source: String,
    webhooks: Family<WebhookLabels, Counter>,
    /// Nearly all are, so that this one is not looked up each time.
    accepted: OnceLock<Counter>,
    duration: Histogram,
}

/// The outcome of most webhooks.
pub const ACCEPTED: &str = "accepted";

impl WebhookMetrics {
    /// Counts a webhook that was answered after so long.
    pub fn answered(&self, outcome: &'static str, took: Duration) {
        let counter = || {
            let labels = WebhookLabels {
                source: self.source.clone(),
                outcome: outcome.to_owned(),
            };
            self.webhooks.get_or_create(&labels).clone()
        };
        match outcome {
            ACCEPTED => self.accepted.get_or_init(counter).inc(),
            _ => counter().inc(),
        };
        self.duration.observe(took.as_secs_f64());
    }
}

/// Reads what is counted elsewhere.
#[derive(Debug)]
struct Facts {
    actors: Registry,
    partitions: PartitionTable,
    sources: Vec<Arc<Source>>,
}

impl Collector for Facts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let actors = self.actors.all();
        counters(
            &mut encoder,
            "actor_handled",
            "Messages or records an actor has dealt with",
            actors.iter().map(|(path, s)| (actor(path), s.handled.load(Relaxed))),
        )?;
        counters(
            &mut encoder,
            "actor_failed",
            "Of these, ended in an error; see last_error in /stats",
            actors.iter().map(|(path, s)| (actor(path), s.failed.load(Relaxed))),
        )?;
        counters(
            &mut encoder,
            "actor_restarts",
            "Restarts. A steady rise means that something fails again and again",
            actors.iter().map(|(path, s)| (actor(path), s.restarts())),
        )?;
        gauges(
            &mut encoder,
            "actor_queue_depth",
            "What waits for an actor. If this only ever rises, the actor is too slow or stuck",
            actors
                .iter()
                .map(|(path, s)| (actor(path), s.queue_depth.load(Relaxed) as f64)),
        )?;
        let partitions = self.partitions.view();
        let label = |p: &crate::partition_table::PartitionView| {
            vec![
                ("topic", p.topic.clone()),
                ("partition", p.partition.to_string()),
                ("shard", p.shard.to_string()),
            ]
        };
        gauges(
            &mut encoder,
            "partition_lag",
            "Records on Kafka that are not in the tables. If this only ever rises, the shard is too slow or away, or nobody reads the partition",
            partitions.iter().filter_map(|p| Some((label(p), p.lag? as f64))),
        )?;
        gauges(
            &mut encoder,
            "partition_next_offset",
            "First offset that is not in the tables",
            partitions.iter().map(|p| (label(p), p.next_offset as f64)),
        )?;
        let secrets = self.sources.iter().flat_map(|source| {
            let label = |secret: &str| vec![("source", source.name().to_owned()), ("secret", secret.to_owned())];
            source
                .secret_uses()
                .filter_map(move |(secret, at)| Some((label(secret), at?.timestamp_micros() as f64 / 1e6)))
        });
        gauges(
            &mut encoder,
            "source_secret_last_matched_timestamp_seconds",
            "When a secret vouched for a request last. An old one that has not for longer than the provider retries can be taken out",
            secrets,
        )?;
        let ours = partitions.iter().filter(|p| p.state == PartitionState::Running);
        gauges(
            &mut encoder,
            "partition_freshness_seconds",
            "From received to committed, of the oldest event in the latest batch; only for partitions this process reads",
            ours.map(|p| (label(p), p.freshness_seconds)),
        )?;
        gauges(
            &mut encoder,
            "partition_halted",
            "1 where a partition needs an operator; the reason is in /stats",
            partitions
                .iter()
                .map(|p| (label(p), f64::from(u8::from(p.reason.is_some())))),
        )
    }
}

type Labels = Vec<(&'static str, String)>;

fn actor(path: &str) -> Labels {
    vec![("actor", path.to_owned())]
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, u64)>,
) -> Result<(), std::fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, f64)>,
) -> Result<(), std::fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_webhooks_actors_and_partitions() {
        let (actors, partitions) = (Registry::default(), PartitionTable::default());
        actors.node("hookmill/producer", "Producer").add_handled(3);
        partitions.entry("orders.webhooks", 4, 0).observed_high(9);
        let metrics = Metrics::new(actors, partitions, Vec::new());
        metrics.of_source("stripe").answered(ACCEPTED, Duration::from_millis(2));
        let text = metrics.render().expect("metrics render");
        for line in [
            r#"hookmill_webhooks_total{source="stripe",outcome="accepted"} 1"#,
            r#"hookmill_actor_handled_total{actor="hookmill/producer"} 3"#,
            r#"hookmill_partition_lag{topic="orders.webhooks",partition="4",shard="0"} 9.0"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
