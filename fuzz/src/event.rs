//! CloudEvents. Input: the value of a record; or, behind a byte below 128, the fields of an event to be written.
//!
//! - An event that can be read is read the same after it has been written again.
//! - An event that we write can be read, and says the same.

use chrono::{DateTime, Utc};
use hookmill_schema::{Event, Kind, NewEvent, Record};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};

pub fn run(input: &[u8]) {
    match input {
        [0..128, rest @ ..] => {
            if let Ok(fields) = Fields::arbitrary_take_rest(Unstructured::new(rest)) {
                written(&fields);
            }
        }
        [_, value @ ..] => {
            for kind in Kind::ALL {
                read(value, kind);
            }
        }
        [] => {}
    }
}

#[derive(Debug, Arbitrary)]
struct Fields<'a> {
    dispute: bool,
    source: &'a str,
    event_id: &'a str,
    event_type: &'a str,
    user_id: &'a str,
    order_id: Option<&'a str>,
    dispute_id: Option<&'a str>,
    status: u8,
    provider_status: Option<&'a str>,
    amount_minor: Option<i64>,
    currency: Option<&'a str>,
    entity_version: Option<i64>,
    occurred_at_us: i64,
    received_at_us: i64,
    body: &'a str,
}

/// Times that RFC 3339 can say, of the years 0 to 9999.
fn time(us: i64) -> DateTime<Utc> {
    let us = us.rem_euclid(253_402_300_800_000_000 + 62_167_219_200_000_000) - 62_167_219_200_000_000;
    DateTime::from_timestamp_micros(us).expect("within bounds")
}

fn written(fields: &Fields<'_>) {
    let kind = if fields.dispute { Kind::Dispute } else { Kind::Order };
    // What a mapping never makes: fields that must be there and are empty, a body that is not JSON.
    let entity = if fields.dispute {
        fields.dispute_id
    } else {
        fields.order_id
    };
    let all = [
        Some(fields.source),
        Some(fields.event_id),
        Some(fields.event_type),
        Some(fields.user_id),
        entity,
    ];
    if all.iter().any(|field| field.is_none_or(str::is_empty)) {
        return;
    }
    if serde_json::from_str::<&serde_json::value::RawValue>(fields.body).is_err() {
        return;
    }
    let statuses = kind.statuses();
    let event = NewEvent {
        source: fields.source,
        event_id: fields.event_id,
        kind,
        event_type: fields.event_type,
        occurred_at: time(fields.occurred_at_us),
        user_id: fields.user_id,
        order_id: fields.order_id.filter(|id| !id.is_empty()),
        dispute_id: fields.dispute_id.filter(|id| !id.is_empty()),
        status: statuses[usize::from(fields.status) % statuses.len()],
        provider_status: fields.provider_status.filter(|s| !s.is_empty()),
        amount_minor: fields.amount_minor,
        currency: fields.currency.filter(|s| !s.is_empty()),
        entity_version: fields.entity_version,
        received_at: time(fields.received_at_us),
        body: fields.body,
    };
    let value = event.encode().expect("it can be written");
    same(&event, &decode(&value, kind).expect("what we write can be read"));
}

fn read(value: &[u8], kind: Kind) {
    let Some(event) = decode(value, kind) else { return };
    let us = |us| DateTime::from_timestamp_micros(us).expect("a time that was read is one");
    let again = NewEvent {
        source: event.source(),
        event_id: event.event_id(),
        kind: event.kind(),
        event_type: event.event_type(),
        occurred_at: us(event.occurred_at_us()),
        user_id: event.user_id(),
        order_id: event.order_id(),
        dispute_id: event.dispute_id(),
        status: event.status(),
        provider_status: event.provider_status(),
        amount_minor: event.amount_minor(),
        currency: event.currency(),
        entity_version: event.entity_version(),
        received_at: us(event.received_at_us()),
        body: std::str::from_utf8(event.payload()).expect("JSON is text"),
    };
    let entity = match event.kind() {
        Kind::Order => event.order_id(),
        Kind::Dispute => event.dispute_id(),
    };
    assert!(entity.is_some_and(|id| !id.is_empty()), "its entity has an id");
    let value = again.encode().expect("it can be written again");
    same(&again, &decode(&value, kind).expect("what we write can be read"));
}

fn decode(value: &[u8], kind: Kind) -> Option<Event> {
    Event::decode(Record::new(0, None, None, Some(value), std::iter::empty()), kind).ok()
}

fn same(said: &NewEvent<'_>, read: &Event) {
    assert_eq!(read.source(), said.source);
    assert_eq!(read.event_id(), said.event_id);
    assert_eq!(read.kind(), said.kind);
    assert_eq!(read.event_type(), said.event_type);
    assert_eq!(read.user_id(), said.user_id);
    assert_eq!(read.order_id(), said.order_id);
    assert_eq!(read.dispute_id(), said.dispute_id);
    assert_eq!(read.status(), said.status);
    assert_eq!(read.provider_status(), said.provider_status);
    assert_eq!(read.amount_minor(), said.amount_minor);
    assert_eq!(read.currency(), said.currency);
    assert_eq!(read.entity_version(), said.entity_version);
    assert_eq!(read.occurred_at_us(), said.occurred_at.timestamp_micros());
    assert_eq!(read.received_at_us(), said.received_at.timestamp_micros());
    assert_eq!(read.payload(), said.body.as_bytes());
}
