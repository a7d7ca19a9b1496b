//! The configuration: config.toml, then the environment (`HOOKMILL_<SECTION>__<KEY>`), then what the commands resolve
//! of it. Settings live beside the actors that use them; here is only how they come together.

mod locate;
mod read;
mod validate;

use std::ffi::OsString;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use chrono::TimeDelta;
use hookmill_actors::http::{AdminSettings, IngestSettings};
use hookmill_actors::kafka::{KafkaSettings, Keep, TopicSettings};
use hookmill_actors::partition_consumer::OnGap;
use hookmill_actors::pipeline::{Services, SupervisionSettings, WriterSettings};
use hookmill_actors::secret::SecretRef;
use hookmill_actors::sources::{SourceConfig, SourceConfigError, Sources};
use hookmill_schema::ConnectSettings;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

use crate::telemetry::LogSettings;

/// All of config.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub services: Services,
    #[serde(default)]
    pub ingest: IngestSettings,
    #[serde(default)]
    pub admin: AdminSettings,
    #[serde(default)]
    pub kafka: KafkaSettings,
    #[serde(default)]
    pub topics: Topics,
    #[serde(default)]
    pub postgres: PostgresSettings,
    #[serde(default)]
    pub events: EventSettings,
    #[serde(default)]
    pub writers: WriterSettings,
    #[serde(default)]
    pub supervision: SupervisionSettings,
    #[serde(default)]
    pub shutdown: ShutdownSettings,
    #[serde(default)]
    pub log: LogSettings,
    #[serde(default)]
    pub sources: Vec<SourceConfig>,
    /// Where it was read, for messages.
    #[serde(skip)]
    pub path: PathBuf,
    /// Its text, to tell where a mistake stands.
    #[serde(skip)]
    text: String,
}

/// `[topics]`: what is read and written, and what to do when Kafka lost some of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topics {
    pub orders: TopicSettings,
    pub disputes: TopicSettings,
    pub parked: TopicSettings,
    pub on_gap: OnGap,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            orders: TopicSettings {
                name: "orders.webhooks".to_owned(),
                partitions: 12,
                keep: Keep::ForATime,
            },
            disputes: TopicSettings {
                name: "disputes.webhooks".to_owned(),
                partitions: 6,
                keep: Keep::ForATime,
            },
            parked: TopicSettings {
                name: "webhooks.parked".to_owned(),
                partitions: 1,
                keep: Keep::ForATime,
            },
            on_gap: OnGap::Halt,
        }
    }
}

impl Topics {
    /// The topics of events, their dead-letter topics, and the topic of parked events.
    pub fn all(&self) -> Vec<TopicSettings> {
        vec![
            self.orders.clone(),
            self.disputes.clone(),
            self.orders.dead_letters(),
            self.disputes.dead_letters(),
            self.parked.kept(Keep::UntilForgotten),
        ]
    }
}

/// `[postgres]`: the shards. Who only takes webhooks needs none.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSettings {
    /// The shards' URLs in their order, or references (`env:NAME`, `file:PATH`) to such; one value may hold several with commas between.
    /// What reads and writes shards refuses to start without one; what does not needs none.
    #[serde(default, deserialize_with = "one_or_many")]
    pub shard_urls: Vec<SecretString>,
    /// Writers, and so connections that write, for each shard.
    pub lanes: NonZero<usize>,
    /// Whether `hookmill serve` migrates the shards first.
    pub migrate_on_start: bool,
    /// How long connecting may take.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a start waits for a shard that does not answer, before it is refused.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// After this the server gives up a statement.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock.
    #[serde(with = "humantime_serde")]
    pub lock_timeout: Duration,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            shard_urls: Vec::new(),
            lanes: const { NonZero::new(2).unwrap() },
            migrate_on_start: true,
            connect_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
        }
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<SecretString>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let values = match OneOrMany::deserialize(input)? {
        OneOrMany::One(value) => vec![value],
        OneOrMany::Many(values) => values,
    };
    Ok(values.into_iter().map(SecretString::from).collect())
}

/// `[events]`: the partitions of the event tables.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventSettings {
    /// Months made ahead of the present one.
    pub ahead_months: u32,
    /// How old an event may be for its partition to be made on demand.
    #[serde(with = "humantime_serde")]
    pub window_past: Duration,
    /// How far ahead of now an event may be for its partition to be made on demand.
    #[serde(with = "humantime_serde")]
    pub window_future: Duration,
}

impl Default for EventSettings {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            ahead_months: 2,
            window_past: Duration::from_secs(3650 * DAY),
            window_future: Duration::from_secs(62 * DAY),
        }
    }
}

/// `[shutdown]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSettings {
    /// How long stopping may take before the process ends anyway, with an error.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(25),
        }
    }
}

impl Config {
    /// Reads `path` and the environment. The error names the key, where it stands, and what would be right.
    pub fn load(path: &Path) -> Result<Self> {
        if !path.is_file() {
            bail!(
                "there is no configuration at {}: name it with --config, or start from the config.toml of the distribution",
                path.display()
            );
        }
        let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            anyhow!("{} line {line} is not UTF-8: save the file as UTF-8", path.display())
        })?;
        Self::read(path, text, std::env::vars_os())
    }

    /// The same of a text and of variables that are at hand.
    fn read(path: &Path, text: String, variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Self> {
        let mut config: Config = read::read(path, &text, variables)?;
        config.path = path.to_owned();
        config.text = text;
        config
            .validate()
            .with_context(|| format!("the configuration in {} cannot be used", path.display()))?;
        Ok(config)
    }

    /// Whether this process writes to the shards; else it needs none.
    pub fn writes(&self) -> bool {
        self.services.orders || self.services.disputes
    }

    /// The shards' URLs with their references resolved.
    pub fn shard_urls(&self) -> Result<Vec<Arc<str>>> {
        let mut urls = Vec::new();
        for entry in &self.postgres.shard_urls {
            let entry = entry.expose_secret();
            let value = if entry.starts_with("env:") || entry.starts_with("file:") {
                let reference: SecretRef = entry.parse().context("postgres.shard_urls")?;
                reference.resolve().context("postgres.shard_urls")?
            } else {
                SecretString::from(entry)
            };
            urls.extend(
                value
                    .expose_secret()
                    .split(',')
                    .map(str::trim)
                    .filter(|url| !url.is_empty())
                    .map(Arc::<str>::from),
            );
        }
        if urls.is_empty() {
            bail!("postgres.shard_urls names no shard: give one URL for each, in their order");
        }
        if let Some(wrong) = urls
            .iter()
            .position(|url| !url.starts_with("postgres://") && !url.starts_with("postgresql://"))
        {
            bail!("postgres.shard_urls: shard {wrong} has no URL like postgres://user@host:port/database");
        }
        Ok(urls)
    }

    /// How to reach Kafka, with the secrets that its properties name.
    pub fn kafka(&self) -> Result<KafkaSettings> {
        self.kafka.clone().resolved().map_err(anyhow::Error::msg)
    }

    /// The time-outs of a shard's connections.
    pub fn connect(&self) -> ConnectSettings {
        ConnectSettings {
            connect_timeout: self.postgres.connect_timeout,
            statement_timeout: self.postgres.statement_timeout,
            lock_timeout: self.postgres.lock_timeout,
            ..ConnectSettings::default()
        }
    }

    /// The admin token. On loopback nobody needs it.
    pub fn admin_token(&self) -> Result<Option<SecretString>> {
        if self.admin.is_loopback() {
            return Ok(None);
        }
        self.admin
            .token
            .as_ref()
            .map(|token| token.resolve().context("admin.token"))
            .transpose()
    }

    /// The sources, with their secrets.
    pub fn sources(&self) -> Result<Sources> {
        let sources = Sources::compile(self.sources.clone()).map_err(|error| self.located(error))?;
        for source in sources.iter().filter(|source| source.takes_from_anybody()) {
            if !self.ingest.listen.ip().is_loopback() {
                bail!(
                    "source {:?} asks for nothing (auth.kind = \"none\"), and ingest.listen = {} is not loopback: anybody could write. \
                     Give it a way to sign, listen on loopback, or say auth = {{ kind = \"none\", anybody = \"i know\" }}",
                    source.name(),
                    self.ingest.listen
                );
            }
        }
        Ok(sources)
    }

    /// What is wrong with a source, with its place in the file.
    pub fn located(&self, error: SourceConfigError) -> anyhow::Error {
        // The last one of a name: where it stands twice, that is the one too many.
        let at = self.sources.iter().rposition(|s| s.name == error.source_name());
        let at = at.and_then(|i| {
            let mut path = vec!["sources".to_owned(), i.to_string()];
            match error.path() {
                [] => path.push("name".to_owned()),
                inside => path.extend_from_slice(inside),
            }
            locate::locate(&self.text, &path, None)
        });
        let place = at
            .map(|(line, column)| format!(", line {line}, column {column}"))
            .unwrap_or_default();
        anyhow::Error::new(error).context(format!("[[sources]] in {}{place}", self.path.display()))
    }

    /// Where event partitions are made on demand, before and after now.
    pub fn event_window(&self) -> Result<(TimeDelta, TimeDelta)> {
        let past = TimeDelta::from_std(self.events.window_past).context("events.window_past is too long")?;
        let future = TimeDelta::from_std(self.events.window_future).context("events.window_future is too long")?;
        Ok((past, future))
    }
}

#[cfg(test)]
mod tests;
