//! The shortest history of an event: sent, acknowledged, produced at, claimed by, written at. Ready to paste.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::check::records::Body;
use crate::check::{EventKey, Evidence};

/// A claim, as an instance logged it.
struct Claim {
    at: String,
    log: String,
    topic: String,
    partition: i64,
    epoch: i64,
    offset: i64,
}

/// All claims that the instances of a deployment logged, by epoch.
pub struct Claims(Vec<Claim>);

impl Claims {
    /// Reads them from the logs in `logs`.
    pub fn read(logs: &Path) -> Self {
        let mut claims = Vec::new();
        for entry in fs::read_dir(logs).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines = text.lines().filter(|line| line.contains("\"claimed\""));
            for line in lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                claims.push(Claim {
                    at: line["timestamp"].as_str().unwrap_or_default().to_owned(),
                    log: entry.file_name().to_string_lossy().into_owned(),
                    topic: line["topic"].as_str().unwrap_or_default().to_owned(),
                    partition: line["partition"].as_i64().unwrap_or(-1),
                    epoch: line["epoch"].as_i64().unwrap_or(-1),
                    offset: line["offset"].as_i64().unwrap_or(-1),
                });
            }
        }
        claims.sort_by_key(|claim| claim.epoch);
        Self(claims)
    }

    /// The last claims that began at or before `offset`, and the first one behind it.
    fn around(&self, topic: &str, partition: i32, offset: i64) -> Vec<&Claim> {
        let of = |claim: &&Claim| claim.topic == topic && claim.partition == i64::from(partition);
        let (before, behind): (Vec<&Claim>, Vec<&Claim>) =
            self.0.iter().filter(of).partition(|claim| claim.offset <= offset);
        let first = before.len().saturating_sub(3);
        before[first..].iter().chain(behind.first()).copied().collect()
    }
}

/// What happened to an event, a line each.
pub fn tell(event: &EventKey, evidence: &Evidence, claims: &Claims, started: DateTime<Utc>) -> String {
    let mut text = format!("history of {} {}\n", event.0, event.1);
    let time = |us: u64| {
        let at = started + chrono::TimeDelta::microseconds(i64::try_from(us).unwrap_or(0));
        at.format("%H:%M:%S%.6f").to_string()
    };
    // Writing to a String does not fail.
    let sent = evidence.sent.iter().find(|s| s.expect.source == event.0 && s.expect.event_id == event.1);
    match sent {
        None => text.push_str("  never sent\n"),
        Some(sent) => {
            let expect = &sent.expect;
            let _ = writeln!(
                text,
                "  {} of user {} ({}{})",
                expect.kind,
                expect.user_id,
                expect.status,
                if expect.poison { ", poison" } else { "" }
            );
            // The first, the last, and those with an answer tell the story.
            let (count, last) = (sent.attempts.len(), sent.attempts.len().saturating_sub(1));
            for (i, attempt) in sent.attempts.iter().enumerate() {
                if count > 8 && i > 2 && i < last - 2 && !attempt.acknowledged() {
                    continue;
                }
                let answer = match attempt.status {
                    0 => "no answer".to_owned(),
                    status => status.to_string(),
                };
                let _ = writeln!(
                    text,
                    "  {} sent to instance {}, {} {answer}",
                    time(attempt.at_us),
                    attempt.to,
                    time(attempt.until_us)
                );
            }
        }
    }
    let mut places = Vec::new();
    for record in &evidence.records {
        if let Body::Event(found) = &record.body
            && found.source == event.0
            && found.event_id == event.1
        {
            let topic = evidence.deployment.topic(record.kind).name;
            let at = DateTime::from_timestamp_millis(record.timestamp_ms).unwrap_or_default();
            let _ = writeln!(
                text,
                "  {} produced: {topic} partition {} offset {}",
                at.format("%H:%M:%S%.3f"),
                record.partition,
                record.offset
            );
            places.push((topic, record.partition, record.offset));
        }
    }
    for (topic, partition, offset) in places.iter().take(2) {
        for claim in claims.around(topic, *partition, *offset) {
            let _ = writeln!(
                text,
                "  {} {topic} partition {partition} claimed under epoch {} from offset {} ({})",
                claim.at, claim.epoch, claim.offset, claim.log
            );
        }
    }
    for row in evidence.rows.iter().filter(|r| r.event.source == event.0 && r.event.event_id == event.1) {
        let _ = writeln!(
            text,
            "  {} written: shard {}, as of partition {} offset {}, by transaction {}",
            row.recorded_at.format("%H:%M:%S%.6f"),
            row.shard,
            row.partition,
            row.offset,
            row.transaction
        );
    }
    text
}
