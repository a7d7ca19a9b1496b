//! Order: what was acknowledged before another one was sent stands before it, and is written before it.

use std::collections::{BTreeMap, HashMap};

use super::{Events, Evidence, Findings, ORDER, key};

/// Per partition the transactions that wrote it rise with the offsets; per user, what was acknowledged before another
/// webhook was first sent has the lower offset.
pub(super) fn check(evidence: &Evidence, events: &Events<'_>, findings: &mut Findings) {
    written(evidence, findings);
    sent(evidence, events, findings);
}

fn written(evidence: &Evidence, findings: &mut Findings) {
    let mut partitions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in &evidence.rows {
        partitions.entry((row.kind, row.partition)).or_default().push(row);
    }
    for rows in partitions.values_mut() {
        rows.sort_by_key(|row| row.offset);
        for pair in rows.windows(2) {
            if pair[0].transaction > pair[1].transaction {
                let what = format!(
                    "offset {} of partition {} was written by a later transaction than offset {}",
                    pair[0].offset, pair[0].partition, pair[1].offset
                );
                findings.add(ORDER, Some(key(&pair[0].event)), what);
            }
        }
    }
}

fn sent(evidence: &Evidence, events: &Events<'_>, findings: &mut Findings) {
    let mut users: HashMap<_, Vec<_>> = HashMap::new();
    for sent in &evidence.sent {
        let expect = &sent.expect;
        let at = expect.occurred_at.timestamp_micros();
        if let Some((record, event)) = events.get(&(expect.source, expect.event_id.as_str(), at)) {
            let user = (record.kind, expect.user_id.as_str());
            users.entry(user).or_default().push((sent, record.offset, *event));
        }
    }
    for events in users.values_mut() {
        let mut acked: Vec<(u64, i64)> = events
            .iter()
            .filter_map(|(sent, offset, _)| Some((sent.acked_us()?, *offset)))
            .collect();
        acked.sort_unstable();
        events.sort_by_key(|(sent, ..)| sent.first_us());
        let (mut next, mut highest) = (0, -1);
        for (sent, offset, event) in events {
            while next < acked.len() && acked[next].0 < sent.first_us() {
                highest = highest.max(acked[next].1);
                next += 1;
            }
            if *offset < highest {
                let what = format!(
                    "at offset {offset}, before another one of its user at {highest} that had been acknowledged before it was sent"
                );
                findings.add(ORDER, Some(key(event)), what);
            }
        }
    }
}
