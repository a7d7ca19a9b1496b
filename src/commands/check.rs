//! `hookmill check`: everything a start would stumble over, and what a start would not notice, in one list.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use chrono::{TimeDelta, Utc};
use hookmill_actors::http::TlsSettings;
use hookmill_actors::kafka::topics::Finding as TopicFinding;
use hookmill_schema::shard::Identity;
use hookmill_schema::{migrations, shard};
use serde::Serialize;

use super::{Output, topics};
use crate::config::Config;
use crate::open_files;

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

#[derive(Serialize)]
struct Finding {
    level: Level,
    subject: String,
    message: String,
}

#[derive(Default)]
struct Report(Vec<Finding>);

impl Report {
    fn add(&mut self, level: Level, subject: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding {
            level,
            subject: subject.into(),
            message: message.into(),
        });
    }

    fn result<T>(
        &mut self,
        subject: impl Into<String>,
        result: Result<T>,
        good: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.add(Level::Ok, subject, good(&value));
                Some(value)
            }
            Err(error) => {
                self.add(Level::Fail, subject, format!("{error:#}"));
                None
            }
        }
    }
}

/// `hookmill check`. Fails if any finding does.
pub async fn run(config: &Config, output: Output) -> Result<ExitCode> {
    let mut report = Report::default();
    report.add(Level::Ok, "config", "readable, and every key is known");
    report.result("sources", config.sources(), |sources| {
        format!("{} sources, all secrets resolve", sources.iter().count())
    });
    report.result("admin", config.admin_token(), |_| {
        format!("listens on {}", config.admin.listen)
    });
    at_the_listeners(config, &mut report);
    report.result("kafka properties", topics::properties(config).await, |()| {
        "every client takes them".to_owned()
    });
    let cluster = kafka(config, &mut report).await;
    shards(config, cluster.as_deref(), &mut report).await;
    let failed = report.0.iter().any(|f| f.level == Level::Fail);
    match output {
        Output::Json => println!("{}", serde_json::to_string(&report.0)?),
        Output::Text => {
            for Finding {
                level,
                subject,
                message,
            } in &report.0
            {
                let mark = match level {
                    Level::Ok => "ok  ",
                    Level::Warn => "warn",
                    Level::Fail => "FAIL",
                };
                println!("{mark}  {subject}: {message}");
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Where a start would listen, by the key that says so.
pub fn listeners(config: &Config) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    let ingest = Some(config.ingest.listen).filter(|_| config.services.ingest);
    let both = [("admin.listen", Some(config.admin.listen)), ("ingest.listen", ingest)];
    both.into_iter().filter_map(|(key, listen)| Some((key, listen?)))
}

/// A port that is taken is the most common mistake of all.
pub fn can_listen(key: &str, listen: SocketAddr) -> Result<()> {
    TcpListener::bind(listen).map(drop).map_err(|error| {
        anyhow!(
            "{key} = {listen} cannot be listened on ({error}): stop what listens there, or set HOOKMILL_{}",
            key.to_uppercase().replace('.', "__")
        )
    })
}

/// The listeners' TLS, by the key that configures it.
pub fn tls(config: &Config) -> impl Iterator<Item = (&'static str, &TlsSettings)> {
    let ingest = config.ingest.tls.as_ref().filter(|_| config.services.ingest);
    let both = [("ingest.tls", ingest), ("admin.tls", config.admin.tls.as_ref())];
    both.into_iter().filter_map(|(key, tls)| Some((key, tls?)))
}

/// A certificate that ends so soon should have been replaced.
const SOON: TimeDelta = TimeDelta::days(14);

fn at_the_listeners(config: &Config, report: &mut Report) {
    for (key, listen) in listeners(config) {
        match can_listen(key, listen) {
            Ok(()) => report.add(Level::Ok, key, format!("{listen} is free")),
            // It may be the instance that is to be replaced.
            Err(error) => report.add(Level::Warn, key, format!("{error:#}")),
        }
    }
    for (key, tls) in tls(config) {
        match tls.check() {
            Err(why) => report.add(Level::Fail, key, why),
            Ok(until) if until < Utc::now() => report.add(
                Level::Fail,
                key,
                format!("the certificate ended at {until}: put a new one in its place"),
            ),
            Ok(until) if until < Utc::now() + SOON => report.add(
                Level::Warn,
                key,
                format!("the certificate ends at {until}: put a new one in its place, it is read without a restart"),
            ),
            Ok(until) => report.add(Level::Ok, key, format!("the certificate is valid until {until}")),
        }
    }
    if let Some((_, advice)) = open_files::too_few(config, open_files::raise()) {
        report.add(Level::Warn, "open files", advice);
    }
}

async fn kafka(config: &Config, report: &mut Report) -> Option<String> {
    let reached = topics::reach(config).await;
    let (probe, cluster) = report.result("kafka", reached, |(_, cluster)| format!("cluster {cluster} answers"))?;
    let findings = match topics::examine(config, &probe).await {
        Ok(findings) => findings,
        Err(error) => {
            report.add(Level::Fail, "topics", format!("{error:#}"));
            return Some(cluster);
        }
    };
    for (topic, finding) in findings {
        let subject = format!("topic {}", topic.name);
        match (&finding, topics::explain(config, &topic, &finding)) {
            (TopicFinding::Missing, Some(_)) if config.kafka.create_topics => report.add(
                Level::Ok,
                subject,
                "does not exist yet; `hookmill serve` will create it",
            ),
            (_, Some(why)) => report.add(Level::Fail, subject, why),
            (TopicFinding::FewerReplicas { actual }, None) => {
                let wanted = config.kafka.replication;
                report.add(Level::Warn, subject, format!("has {actual} replicas, kafka.replication says {wanted}: add replicas with kafka-reassign-partitions.sh"));
            }
            (TopicFinding::OneAcknowledges { replicas }, None) => {
                let name = &topic.name;
                report.add(Level::Warn, subject, format!("has {replicas} replicas and min.insync.replicas = 1: a webhook may be acknowledged while only one broker has it, and lost with that one. \
                     kafka-configs.sh --alter --topic {name} --add-config min.insync.replicas=2"));
            }
            (_, None) => report.add(
                Level::Ok,
                subject,
                format!("{} partitions, as configured", topic.partitions),
            ),
        }
    }
    Some(cluster)
}

async fn shards(config: &Config, cluster: Option<&str>, report: &mut Report) {
    if !config.writes() {
        report.add(
            Level::Ok,
            "shards",
            "not needed: [services] has orders and disputes switched off",
        );
        return;
    }
    let Some(urls) = report.result("shards", config.shard_urls(), |urls| {
        format!("{} configured", urls.len())
    }) else {
        return;
    };
    if let Some(warning) = co_location_warning(config, urls.len()) {
        report.add(Level::Warn, "shards", warning);
    }
    for (index, url) in urls.iter().enumerate() {
        let subject = format!("shard {index}");
        let mut connection = match shard::connect_upkeep(url, &config.connect()).await {
            Ok(connection) => connection,
            Err(error) => {
                report.add(
                    Level::Fail,
                    subject,
                    format!("cannot be reached: {error}; check that it runs, and its URL in postgres.shard_urls"),
                );
                continue;
            }
        };
        match migrations::pending(url, &config.connect()).await {
            Err(error) => report.add(Level::Fail, &subject, error.to_string()),
            Ok(pending) if pending.is_empty() => report.add(Level::Ok, &subject, "reachable, tables up to date"),
            Ok(pending) if config.postgres.migrate_on_start => {
                report.add(
                    Level::Ok,
                    &subject,
                    format!("reachable; `hookmill serve` will apply {}", pending.join(", ")),
                );
                continue;
            }
            Ok(pending) => {
                report.add(
                    Level::Fail,
                    &subject,
                    format!("tables are behind by {}: run `hookmill migrate`", pending.join(", ")),
                );
                continue;
            }
        }
        if let Some(cluster) = cluster {
            let identity = identity(config, index, urls.len(), cluster);
            let fits = shard::check_identity(&mut connection, &identity)
                .await
                .map_err(anyhow::Error::from);
            report.result(subject, fits, |_| {
                "belongs to this deployment, in this place".to_owned()
            });
        }
    }
}

/// What a shard must be to be this deployment's number `index`.
pub fn identity(config: &Config, index: usize, shards: usize, cluster: &str) -> Identity {
    let topics = [&config.topics.orders, &config.topics.disputes];
    Identity {
        index,
        shards,
        cluster_id: cluster.to_owned(),
        topics: topics.map(|t| (t.name.clone(), t.partitions)).to_vec(),
    }
}

/// A user's orders and disputes are on one shard only if partition counts and shards fit; says so if they do not.
pub fn co_location_warning(config: &Config, shards: usize) -> Option<String> {
    let (orders, disputes) = (config.topics.orders.partitions, config.topics.disputes.partitions);
    let n = i32::try_from(shards).unwrap_or(i32::MAX);
    let together = orders == disputes || (orders % n == 0 && disputes % n == 0);
    (!together).then(|| {
        format!(
            "with {orders} and {disputes} partitions over {shards} shards a user's disputes may be on another shard than the user's orders; \
             they share one where the number of shards divides both partition counts"
        )
    })
}
