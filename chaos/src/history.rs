//! The shortest history of an event: sent, acknowledged, produced at, claimed by, written at. Ready to paste.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use crate::check::audit::write_of;
use crate::check::records::Body;
use crate::check::{EventKey, Evidence};

/// What happened to an event, a line each.
pub fn tell(event: &EventKey, evidence: &Evidence, started: DateTime<Utc>) -> String {
    let mut text = format!("history of {} {}\n", event.0, event.1);
    let time = |us: u64| {
        let at = started + chrono::TimeDelta::microseconds(i64::try_from(us).unwrap_or(0));
        at.format("%H:%M:%S%.6f").to_string()
    };
    // Writing to a String does not fail.
    let sent = evidence
        .sent
        .iter()
        .find(|s| s.expect.source == event.0 && s.expect.event_id == event.1);
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
    // Who had claimed the partition when the offset was moved over the first record, and who claimed it next.
    for (topic, partition, offset) in places.into_iter().take(1) {
        let changes = evidence.audit.get(&(topic, partition)).map_or(&[][..], Vec::as_slice);
        let Some(write) = write_of(changes, offset) else {
            text.push_str("  the offset was never moved over it\n");
            continue;
        };
        let claims = changes.iter().filter(|change| change.is_claim());
        for claim in claims.filter(|claim| claim.new.1 == write.new.1 || claim.new.1 == write.new.1 + 1) {
            let _ = writeln!(
                text,
                "  {} claimed at offset {} under epoch {} by {} (backend {})",
                claim.at.format("%H:%M:%S%.6f"),
                claim.new.0,
                claim.new.1,
                claim.owner,
                claim.backend
            );
        }
        let _ = writeln!(
            text,
            "  {} offset moved to {} under epoch {} by backend {}, transaction {}",
            write.at.format("%H:%M:%S%.6f"),
            write.new.0,
            write.new.1,
            write.backend,
            write.transaction
        );
    }
    for row in evidence
        .rows
        .iter()
        .filter(|r| r.event.source == event.0 && r.event.event_id == event.1)
    {
        let _ = writeln!(
            text,
            "  {} written by a transaction that began then: shard {}, as of partition {} offset {}, transaction {}",
            row.recorded_at.format("%H:%M:%S%.6f"),
            row.shard,
            row.partition,
            row.offset,
            row.transaction
        );
    }
    text
}
