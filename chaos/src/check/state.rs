//! A small model of the state tables, written from what is promised and nothing of the product: the latest event of an
//! entity is the one of the highest version, then the latest time, then the furthest status, then the greatest id.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::records::{Event, Record};

/// The states in the order of progress, as the documents tell it. One that is not among them counts like `unknown`.
const ORDER: [&str; 10] = [
    "unknown",
    "pending",
    "failed",
    "authorized",
    "paid",
    "partially_fulfilled",
    "fulfilled",
    "partially_refunded",
    "refunded",
    "cancelled",
];
const DISPUTE: [&str; 11] = [
    "unknown",
    "inquiry_needs_response",
    "inquiry_under_review",
    "inquiry_closed",
    "needs_response",
    "under_review",
    "accepted",
    "withdrawn",
    "lost",
    "won",
    "closed",
];

fn progress(kind: &str, status: &str) -> usize {
    let states = if kind == "order" { &ORDER[..] } else { &DISPUTE[..] };
    states.iter().position(|s| *s == status).unwrap_or(0)
}

fn compare(kind: &str, a: &Event, b: &Event) -> Ordering {
    match (a.entity_version, b.entity_version) {
        // One that does not say counts as the lowest.
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) if a != b => a.cmp(&b),
        _ if a.occurred_us != b.occurred_us => a.occurred_us.cmp(&b.occurred_us),
        _ => match progress(kind, &a.status).cmp(&progress(kind, &b.status)) {
            Ordering::Equal => a.event_id.cmp(&b.event_id),
            other => other,
        },
    }
}

/// An entity: its kind, its source, its id.
pub type Entity = (&'static str, String, String);

/// Which entity an event is about.
pub fn entity(kind: &'static str, event: &Event) -> Entity {
    let id = if kind == "order" {
        &event.order_id
    } else {
        &event.dispute_id
    };
    (kind, event.source.clone(), id.clone().unwrap_or_default())
}

/// The latest event of every entity, with its partition.
pub fn replay<'a>(events: impl Iterator<Item = (&'a Record, &'a Event)>) -> HashMap<Entity, (i32, &'a Event)> {
    let mut states: HashMap<Entity, (i32, &'a Event)> = HashMap::new();
    for (record, event) in events {
        let latest = states
            .entry(entity(record.kind, event))
            .or_insert((record.partition, event));
        if compare(record.kind, event, latest.1) == Ordering::Greater {
            *latest = (record.partition, event);
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::records::Body;

    fn event(id: &str, version: Option<i64>, at: i64, status: &str) -> Event {
        Event {
            source: "s".into(),
            event_id: id.into(),
            event_type: "t".into(),
            user_id: "u".into(),
            order_id: Some("o".into()),
            dispute_id: None,
            status: status.into(),
            provider_status: None,
            amount_minor: None,
            currency: None,
            entity_version: version,
            occurred_us: at,
            digest: [0; 8],
        }
    }

    #[test]
    fn the_latest_wins_in_whatever_order_they_come() {
        let rising = [
            event("z", None, 9, "cancelled"),
            event("a", Some(1), 1, "pending"),
            event("a", Some(1), 2, "pending"),
            event("a", Some(1), 2, "paid"),
            event("b", Some(1), 2, "paid"),
            event("a", Some(2), 0, "pending"),
        ];
        let record = Record {
            kind: "order",
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: None,
            body: Body::Unknown,
        };
        for i in 1..rising.len() {
            for pair in [[&rising[i], &rising[i - 1]], [&rising[i - 1], &rising[i]]] {
                let states = replay(pair.into_iter().map(|event| (&record, event)));
                let state = states.values().next().expect("one");
                assert_eq!(state.1, &rising[i]);
            }
        }
    }
}
