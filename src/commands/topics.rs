//! `hookmill topics`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hookmill_actors::kafka::topics::{self, Finding};
use hookmill_actors::kafka::{KafkaError, Probe, TopicSettings, told};
use serde_json::json;

use super::Output;
use crate::config::Config;

/// How long a question to the brokers may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A probe of the configured brokers, and the id of their cluster.
pub async fn reach(config: &Config) -> Result<(Probe, String)> {
    let kafka = config.kafka()?;
    let probe = Probe::new(&kafka).map_err(|error| not_accepted(config, &error))?;
    let cluster = probe.cluster_id(PATIENCE).await.with_context(|| {
        format!(
            "no Kafka broker at kafka.brokers = {:?} answered within {} s: check that it runs, and the address and security properties",
            config.kafka.brokers,
            PATIENCE.as_secs()
        )
    })?;
    Ok((probe, cluster))
}

/// That librdkafka takes the properties of every client that a start would make.
pub async fn properties(config: &Config) -> Result<()> {
    let (kafka, path) = (config.kafka()?, config.path.display());
    let (topic, timeout) = (config.topics.orders.name.clone(), config.ingest.delivery_timeout());
    let limit = topics::producer_limit(config.ingest.body_limit);
    let trying = tokio::task::spawn_blocking(move || kafka.try_clients(&topic, timeout, limit));
    trying.await?.map_err(|why| {
        anyhow!("the Kafka properties in [kafka] of {path}, or the environment over it, are not accepted by {why}")
    })
}

/// For what librdkafka refuses at once.
pub fn not_accepted(config: &Config, error: &KafkaError) -> anyhow::Error {
    let path = config.path.display();
    anyhow!(
        "the Kafka properties in [kafka] of {path} are not accepted: {}",
        told(error)
    )
}

/// Each topic with its finding.
pub async fn examine(config: &Config, probe: &Probe) -> Result<Vec<(TopicSettings, Finding)>> {
    let (topics, kafka, limit) = (config.topics.all(), config.kafka()?, config.ingest.body_limit);
    let findings = topics::examine(probe, &kafka, &topics, limit, PATIENCE).await;
    let findings = findings.with_context(|| {
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        format!("the brokers did not describe the topics {}", names.join(", "))
    })?;
    Ok(topics.into_iter().zip(findings).collect())
}

/// Why a topic cannot be used, for people; `None` if it can.
pub fn explain(config: &Config, topic: &TopicSettings, finding: &Finding) -> Option<String> {
    match finding {
        Finding::Fits | Finding::FewerReplicas { .. } | Finding::OneAcknowledges { .. } => None,
        Finding::Missing => Some(format!(
            "topic {} does not exist: run `hookmill topics create`, or set kafka.create_topics = true",
            topic.name
        )),
        Finding::OtherPartitions { actual } => Some(topics::other_partitions(topic, *actual)),
        Finding::SmallRecords { actual } => Some(topics::small_records(topic, *actual, config.ingest.body_limit)),
    }
}

/// Creates what is missing; returns the names.
pub async fn create_missing(config: &Config) -> Result<Vec<String>> {
    let limit = config.ingest.body_limit;
    topics::create(&config.kafka()?, &config.topics.all(), limit, PATIENCE).await.with_context(|| {
        format!("the topics cannot be created with kafka.replication = {}: have the brokers enough replicas, and may this client create topics?", config.kafka.replication)
    })
}

/// `hookmill topics list`.
pub async fn list(config: &Config, output: Output) -> Result<ExitCode> {
    let (probe, cluster) = reach(config).await?;
    let findings = examine(config, &probe).await?;
    let bad = findings
        .iter()
        .any(|(topic, finding)| explain(config, topic, finding).is_some());
    match output {
        Output::Json => {
            let rows: Vec<_> = findings
                .iter()
                .map(|(t, f)| json!({ "topic": t.name, "partitions": t.partitions, "problem": explain(config, t, f) }))
                .collect();
            println!("{}", json!({ "cluster": cluster, "topics": rows }));
        }
        Output::Text => {
            println!("cluster {cluster}");
            for (topic, finding) in &findings {
                let state = explain(config, topic, finding).unwrap_or_else(|| "as configured".to_owned());
                println!("{:<32} {:>3} partitions  {state}", topic.name, topic.partitions);
            }
        }
    }
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `hookmill topics create`.
pub async fn create(config: &Config, output: Output) -> Result<ExitCode> {
    let (probe, _) = reach(config).await?;
    let created = create_missing(config).await?;
    match output {
        Output::Json => println!("{}", json!({ "created": created })),
        Output::Text if created.is_empty() => println!("every topic exists"),
        Output::Text => created.iter().for_each(|topic| println!("created {topic}")),
    }
    for (topic, finding) in settled(config, &probe).await? {
        if let Some(why) = explain(config, &topic, &finding) {
            bail!(why);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The findings once the brokers have spread the news of created topics.
pub async fn settled(config: &Config, probe: &Probe) -> Result<Vec<(TopicSettings, Finding)>> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let findings = examine(config, probe).await?;
        let missing = findings.iter().any(|(_, finding)| *finding == Finding::Missing);
        if !missing || tokio::time::Instant::now() > deadline {
            return Ok(findings);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
