//! Dead letters. Input: the fields of a failure and the record's own headers; or, behind a byte above 127, headers alone.
//!
//! - A record of any headers makes a dead letter, with a key that Postgres can hold.
//! - What a failure says is read back, and the record's own headers are kept, whatever they are called.

use chrono::{DateTime, Utc};
use hookmill_schema::Record;
use hookmill_schema::dead_letters::{DeadLetter, Failure, Stage};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};

pub fn run(input: &[u8]) {
    match input {
        [0..128, rest @ ..] => {
            if let Ok(fields) = Fields::arbitrary_take_rest(Unstructured::new(rest)) {
                ours(&fields);
            }
        }
        [_, rest @ ..] => {
            if let Ok(headers) = <Vec<Header<'_>>>::arbitrary_take_rest(Unstructured::new(rest)) {
                theirs(&headers);
            }
        }
        [] => {}
    }
}

#[derive(Debug, Arbitrary)]
struct Header<'a> {
    /// A name of ours, by its place, or any.
    ours: Option<u8>,
    name: &'a str,
    value: Option<&'a [u8]>,
}

const NAMES: [&str; 12] = [
    "dlq.stage",
    "dlq.error.class",
    "dlq.error.sqlstate",
    "dlq.error.message",
    "dlq.origin.topic",
    "dlq.origin.partition",
    "dlq.origin.offset",
    "dlq.origin.timestamp",
    "dlq.attempts",
    "dlq.first_failed_at",
    "dlq.last_failed_at",
    "dlq.redrive_count",
];

impl<'a> Header<'a> {
    fn pair(&self) -> (&'a str, Option<&'a [u8]>) {
        let name = self.ours.map_or(self.name, |at| NAMES[usize::from(at) % NAMES.len()]);
        (name, self.value)
    }
}

#[derive(Debug, Arbitrary)]
struct Fields<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp_ms: Option<i64>,
    write: bool,
    error_class: &'a str,
    sqlstate: Option<&'a str>,
    message: &'a str,
    attempts: i32,
    failed_at: u32,
    redrive_count: i32,
    headers: Vec<Header<'a>>,
}

fn ours(fields: &Fields<'_>) {
    // A topic's name, as Kafka has them.
    if !(1..=249).contains(&fields.topic.len()) || fields.topic.contains('\0') {
        return;
    }
    let at: DateTime<Utc> = DateTime::from_timestamp(i64::from(fields.failed_at), 0).expect("a time");
    let failure = Failure {
        topic: fields.topic.to_owned(),
        partition: fields.partition,
        offset: fields.offset,
        timestamp_ms: fields.timestamp_ms,
        stage: if fields.write { Stage::Write } else { Stage::Decode },
        error_class: fields.error_class.to_owned(),
        sqlstate: fields.sqlstate.map(str::to_owned),
        message: fields.message.to_owned(),
        attempts: fields.attempts,
        first_failed_at: at,
        last_failed_at: at,
        redrive_count: fields.redrive_count,
    };
    let added = failure.headers();
    let own: Vec<(&str, Option<&[u8]>)> = fields.headers.iter().map(Header::pair).collect();
    let all = own
        .iter()
        .copied()
        .chain(added.iter().map(|(name, value)| (*name, Some(value.as_bytes()))));
    let letter = DeadLetter::read(Record::new(1, Some(2), None, Some(b"v"), all), "somewhere.DLQ", 3);
    assert_eq!(letter.origin(), (fields.topic, fields.partition, fields.offset));
    assert_eq!(letter.stage(), failure.stage.as_str());
    assert_eq!(letter.reason(), fields.message.replace('\0', "\u{fffd}"));
    kept(&letter, &own);
}

fn theirs(headers: &[Header<'_>]) {
    let all: Vec<(&str, Option<&[u8]>)> = headers.iter().map(Header::pair).collect();
    let record = Record::new(1, Some(2), None, None, all.iter().copied());
    let letter = DeadLetter::read(record, "somewhere.DLQ", 3);
    let (topic, _, _) = letter.origin();
    assert!((1..=249).contains(&topic.len()), "a key that Postgres' index holds");
    for text in [topic, letter.stage(), letter.reason()] {
        assert!(!text.contains('\0'), "Postgres' text has no NUL");
    }
    if topic == "somewhere.DLQ" && letter.stage() == "foreign" {
        kept(&letter, &all);
    }
}

/// Every header of the record itself is in the row, in its place, byte for byte.
fn kept(letter: &DeadLetter, own: &[(&str, Option<&[u8]>)]) {
    let rows: Vec<serde_json::Value> = serde_json::from_str(letter.headers()).expect("an array of JSON");
    assert_eq!(rows.len(), own.len(), "{}", letter.headers());
    for (row, (name, value)) in rows.iter().zip(own) {
        assert_eq!(row["key"], *name);
        match value.map(std::str::from_utf8) {
            None => assert!(row["value"].is_null()),
            Some(Ok(text)) => assert_eq!(row["value"], text),
            Some(Err(_)) => assert!(row["base64"].is_string()),
        }
    }
}
