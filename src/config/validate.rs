//! What a configuration must be besides readable. A start that could only refuse everything is refused here, and so is a
//! number that would overflow somewhere.

use std::time::Duration;

use anyhow::{Error, Result, bail};
use hookmill_actors::bounds::{number, time};
use hookmill_actors::kafka::{TopicSettings, dead_letter_topic};
use hookmill_actors::pipeline::Services;

use super::{Config, Topics};
use crate::telemetry;

const INSTANT: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// More rows than one statement should ever have.
const MOST_ROWS: usize = 100_000;
/// More than any cluster has of one topic.
const MOST_PARTITIONS: i32 = 100_000;
/// By Kafka's own rule.
const LONGEST_NAME: usize = 249;

impl Config {
    pub(super) fn validate(&self) -> Result<()> {
        let Services {
            ingest,
            orders,
            disputes,
        } = self.services;
        if !(ingest || orders || disputes) {
            bail!("[services] switches everything off: switch at least one of ingest, orders and disputes on");
        }
        self.ingest.validate().map_err(Error::msg)?;
        self.admin.validate().map_err(Error::msg)?;
        let (takes, shows) = (self.ingest.listen, self.admin.listen);
        let everywhere = takes.ip().is_unspecified() || shows.ip().is_unspecified();
        let same = takes.port() == shows.port() && (takes.ip() == shows.ip() || everywhere);
        if ingest && same && takes.port() != 0 {
            bail!("ingest.listen = {takes} and admin.listen = {shows} are the same port: they need one each");
        }
        self.kafka.validate().map_err(Error::msg)?;
        self.topics.validate()?;
        self.bounds().map_err(Error::msg)?;
        telemetry::filter(&self.log)?;
        Ok(())
    }

    fn bounds(&self) -> Result<(), String> {
        let (postgres, writers, events) = (&self.postgres, &self.writers, &self.events);
        number("postgres.lanes", postgres.lanes.get(), 1..=64)?;
        time("postgres.connect_timeout", postgres.connect_timeout, INSTANT..=HOUR)?;
        time("postgres.start_timeout", postgres.start_timeout, Duration::ZERO..=HOUR)?;
        // To Postgres 0 is no time-out at all.
        time("postgres.statement_timeout", postgres.statement_timeout, INSTANT..=HOUR)?;
        time("postgres.lock_timeout", postgres.lock_timeout, INSTANT..=HOUR)?;
        number("writers.batch_rows", writers.batch_rows, 1..=MOST_ROWS)?;
        number("writers.batch_bytes", writers.batch_bytes, 1..=1 << 30)?;
        number("writers.statement_rows", writers.statement_rows, 1..=MOST_ROWS)?;
        number("supervision.max_restarts", self.supervision.max_restarts, 0..=1_000_000)?;
        time("supervision.within", self.supervision.within, SECOND..=DAY)?;
        number("events.ahead_months", events.ahead_months, 0..=120)?;
        time("events.window_past", events.window_past, Duration::ZERO..=DAY * 36_500)?;
        time(
            "events.window_future",
            events.window_future,
            Duration::ZERO..=DAY * 3650,
        )?;
        time("shutdown.timeout", self.shutdown.timeout, SECOND..=HOUR)
    }
}

impl Topics {
    fn validate(&self) -> Result<()> {
        let mut names: Vec<(String, String)> = Vec::new();
        for (key, topic) in [
            ("orders", &self.orders),
            ("disputes", &self.disputes),
            ("parked", &self.parked),
        ] {
            if topic.partitions < 1 {
                bail!("topics.{key}.partitions = {}: a topic has at least 1", topic.partitions);
            }
            number(
                &format!("topics.{key}.partitions"),
                topic.partitions,
                1..=MOST_PARTITIONS,
            )
            .map_err(Error::msg)?;
            let key = format!("topics.{key}.name");
            let buried = dead_letter_topic(&topic.name);
            possible(&key, topic, &buried)?;
            if key != "topics.parked.name" {
                names.push((format!("the dead letters of {key}"), buried));
            }
            names.push((key, topic.name.clone()));
        }
        for (i, (key, name)) in names.iter().enumerate() {
            // Kafka keeps metrics under names in which the two are the same, and refuses the second topic.
            let same = |other: &str| other.replace('.', "_") == name.replace('.', "_");
            if let Some((other_key, other)) = names[..i].iter().find(|(_, other)| same(other)) {
                bail!("{other_key} ({other:?}) and {key} ({name:?}) are the same to Kafka: they need a topic each");
            }
        }
        Ok(())
    }
}

/// That a topic can have its name.
fn possible(key: &str, topic: &TopicSettings, buried: &str) -> Result<()> {
    let name = &topic.name;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name == "." || name == ".." || !name.chars().all(allowed) || buried.len() > LONGEST_NAME {
        bail!(
            "{key} = {name:?} can be no topic's name: use letters, digits, '.', '_' and '-', at most {} of them",
            LONGEST_NAME - (buried.len() - name.len())
        );
    }
    if name.ends_with(&dead_letter_topic("")) {
        bail!("{key} = {name:?} is the name of a dead-letter topic: give it another end");
    }
    Ok(())
}
