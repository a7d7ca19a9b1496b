//! Dead letters: how their reason stands in Kafka headers, and all SQL of their table.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;
use tokio_postgres::types::{ToSql, Type};

use crate::arrays::{Column, put_bytes, put_i32, put_i64, put_text, put_time};
use crate::error::ShardError;
use crate::record::Record;
use crate::row::Row;
use crate::shard::Connection;
use crate::write::{FENCE_TYPES, Part, fence};

/// Where a record turned out to be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is no event.
    Decode,
    /// Postgres refuses it.
    Write,
}

impl Stage {
    /// As it stands in headers and the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Write => "write",
        }
    }
}

/// Why a record cannot be written, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its own topic.
    pub topic: String,
    /// Its partition there.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its time stamp there, in ms since 1970.
    pub timestamp_ms: Option<i64>,
    /// Where it failed.
    pub stage: Stage,
    /// A stable word for what kind of failure it is.
    pub error_class: String,
    /// Postgres' code, if it said one.
    pub sqlstate: Option<String>,
    /// For people.
    pub message: String,
    /// How often it was tried, alone or with others of its partition.
    pub attempts: i32,
    /// When it failed first.
    pub first_failed_at: DateTime<Utc>,
    /// When it failed last.
    pub last_failed_at: DateTime<Utc>,
    /// How often it was redriven before.
    pub redrive_count: i32,
}

// All headers that we add begin with "dlq.".
const STAGE: &str = "dlq.stage";
const ERROR_CLASS: &str = "dlq.error.class";
const SQLSTATE: &str = "dlq.error.sqlstate";
const MESSAGE: &str = "dlq.error.message";
const TOPIC: &str = "dlq.origin.topic";
const PARTITION: &str = "dlq.origin.partition";
const OFFSET: &str = "dlq.origin.offset";
const TIMESTAMP: &str = "dlq.origin.timestamp";
const ATTEMPTS: &str = "dlq.attempts";
const FIRST_FAILED: &str = "dlq.first_failed_at";
const LAST_FAILED: &str = "dlq.last_failed_at";
const REDRIVES: &str = "dlq.redrive_count";

impl Failure {
    /// The headers that say it, to be added to the record's own.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut headers = vec![
            (STAGE, self.stage.as_str().to_owned()),
            (ERROR_CLASS, self.error_class.clone()),
            (MESSAGE, self.message.clone()),
            (TOPIC, self.topic.clone()),
            (PARTITION, self.partition.to_string()),
            (OFFSET, self.offset.to_string()),
            (ATTEMPTS, self.attempts.to_string()),
            (FIRST_FAILED, time(self.first_failed_at)),
            (LAST_FAILED, time(self.last_failed_at)),
            (REDRIVES, self.redrive_count.to_string()),
        ];
        headers.extend(self.sqlstate.clone().map(|code| (SQLSTATE, code)));
        headers.extend(self.timestamp_ms.map(|ms| (TIMESTAMP, ms.to_string())));
        headers
    }
}

/// A record of a dead-letter topic, as its table holds it. Whatever the record is like, it makes a row.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    record: Record,
    topic: String,
    partition: i32,
    offset: i64,
    timestamp_us: Option<i64>,
    headers: String,
    stage: String,
    error_class: String,
    sqlstate: Option<String>,
    reason: String,
    attempts: i32,
    first_failed_us: i64,
    last_failed_us: i64,
    redrive_count: i32,
}

impl DeadLetter {
    /// Reads a record of the dead-letter topic `topic`. One that somebody put there without our headers is its own origin.
    pub fn read(record: Record, topic: &str, partition: i32) -> Self {
        let headers: Vec<_> = record.headers().collect();
        // Ours stand together at the end, the stage first; an own header may well have a name like ours.
        let first = headers.iter().rposition(|(name, _)| *name == STAGE);
        let (mut own, ours) = headers.split_at(first.unwrap_or(headers.len()));
        let text = |name: &str| {
            let (_, value) = ours.iter().find(|(n, _)| *n == name)?;
            value.map(|bytes| printable(&String::from_utf8_lossy(bytes)))
        };
        let number = |name: &str| text(name).and_then(|value| value.parse::<i64>().ok());
        let small = |name: &str| text(name).and_then(|value| value.parse::<i32>().ok());
        let now_us = Utc::now().timestamp_micros();
        let time = |name: &str| {
            let at = text(name).and_then(|value| DateTime::parse_from_rfc3339(&value).ok());
            at.map(|at| at.timestamp_micros())
                .or(record.timestamp_ms.and_then(storable_us))
                .unwrap_or(now_us)
        };
        let origin = match (text(TOPIC), small(PARTITION), number(OFFSET)) {
            // Kafka has no longer names, and Postgres' keys have a bound.
            (Some(topic), Some(partition), Some(offset)) if (1..=249).contains(&topic.len()) => {
                Some((topic, partition, offset))
            }
            _ => None,
        };
        let foreign = origin.is_none();
        if foreign {
            own = &headers;
        }
        let (origin_topic, origin_partition, offset) =
            origin.unwrap_or_else(|| (printable(topic), partition, record.offset));
        Self {
            topic: origin_topic,
            partition: origin_partition,
            offset,
            timestamp_us: number(TIMESTAMP).and_then(storable_us),
            headers: headers_json(own),
            stage: text(STAGE).filter(|_| !foreign).unwrap_or_else(|| "foreign".to_owned()),
            error_class: text(ERROR_CLASS).unwrap_or_else(|| "unknown".to_owned()),
            sqlstate: text(SQLSTATE),
            reason: text(MESSAGE)
                .filter(|_| !foreign)
                .unwrap_or_else(|| "put on the dead-letter topic by somebody else".to_owned()),
            attempts: small(ATTEMPTS).unwrap_or(0),
            first_failed_us: time(FIRST_FAILED),
            last_failed_us: time(LAST_FAILED),
            redrive_count: small(REDRIVES).unwrap_or(0),
            record,
        }
    }

    /// The record on the dead-letter topic.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Topic, partition and offset of the record that could not be written: its key in the table.
    pub fn origin(&self) -> (&str, i32, i64) {
        (&self.topic, self.partition, self.offset)
    }

    /// Where it failed; `foreign` for a record that somebody else put there.
    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// Why, for people.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The origin's own headers as JSON.
    pub fn headers(&self) -> &str {
        &self.headers
    }
}

/// Postgres' text has no NUL.
fn printable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A record's time stamp, in ms, as µs; none if it is of no year from 1970 to 9999, as its producer may choose any.
fn storable_us(ms: i64) -> Option<i64> {
    (0..253_402_300_800_000).contains(&ms).then(|| ms * 1000)
}

/// Headers as a JSON array in their order: `{"key": …, "value": …}`, the value as `"base64"` where it is no text, so that
/// every byte is kept.
fn headers_json(headers: &[(&str, Option<&[u8]>)]) -> String {
    let headers = headers.iter().map(|(name, value)| match value {
        None => json!({ "key": name, "value": null }),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json!({ "key": name, "value": text }),
            Err(_) => json!({ "key": name, "base64": STANDARD.encode(bytes) }),
        },
    });
    serde_json::Value::Array(headers.collect()).to_string()
}

const WRITE: &str = concat!(
    "WITH fence AS (
    ",
    fence!(),
    "
), buried AS (
    INSERT INTO dead_letters (topic, partition, \"offset\", origin_timestamp, key, value, headers, stage, error_class,
        sqlstate, reason, attempts, first_failed_at, last_failed_at, redrive_count)
    SELECT u.topic, u.origin_partition, u.\"offset\", u.origin_timestamp, u.key, u.value, u.headers, u.stage,
        u.error_class, u.sqlstate, u.reason, u.attempts, u.first_failed_at, u.last_failed_at, u.redrive_count
    FROM unnest($6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) AS u (partition, topic,
        origin_partition, \"offset\", origin_timestamp, key, value, headers, stage, error_class, sqlstate, reason,
        attempts, first_failed_at, last_failed_at, redrive_count)
    JOIN fence USING (partition)
    ON CONFLICT (topic, partition, \"offset\") DO NOTHING
)
SELECT partition FROM fence"
);

const TYPES: [Type; 16] = [
    Type::INT4_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::JSON_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT4_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::INT4_ARRAY,
];

/// Writes dead letters with the same fence as events.
pub(crate) async fn write(
    connection: &mut Connection,
    fence: &[&(dyn ToSql + Sync)],
    parts: &[Part<'_>],
) -> Result<Vec<i32>, ShardError> {
    type L<'a> = (i32, &'a DeadLetter);
    let letters = parts.iter().flat_map(|part| {
        part.rows
            .iter()
            .filter_map(|row: &&Row| row.dead_letter())
            .map(|l| (part.partition, l))
    });
    let mut rows: Vec<L<'_>> = letters.collect();
    rows.sort_by(|(_, a), (_, b)| (&a.topic, a.partition, a.offset).cmp(&(&b.topic, b.partition, b.offset)));
    let rows = &rows[..];
    let text = Type::TEXT;
    let columns: [Column<'_, L<'_>>; 16] = [
        Column::new(rows, Type::INT4, |(p, _), out| put_i32(*p, out)),
        Column::new(rows, text.clone(), |(_, l), out| put_text(Some(&l.topic), out)),
        Column::new(rows, Type::INT4, |(_, l), out| put_i32(l.partition, out)),
        Column::new(rows, Type::INT8, |(_, l), out| put_i64(Some(l.offset), out)),
        Column::new(rows, Type::TIMESTAMPTZ, |(_, l), out| match l.timestamp_us {
            Some(us) => put_time(us, out),
            None => tokio_postgres::types::IsNull::Yes,
        }),
        Column::new(rows, Type::BYTEA, |(_, l), out| put_bytes(l.record.key(), out)),
        Column::new(rows, Type::BYTEA, |(_, l), out| put_bytes(l.record.value(), out)),
        Column::new(rows, Type::JSON, |(_, l), out| put_text(Some(&l.headers), out)),
        Column::new(rows, text.clone(), |(_, l), out| put_text(Some(&l.stage), out)),
        Column::new(rows, text.clone(), |(_, l), out| put_text(Some(&l.error_class), out)),
        Column::new(rows, text.clone(), |(_, l), out| put_text(l.sqlstate.as_deref(), out)),
        Column::new(rows, text, |(_, l), out| put_text(Some(&l.reason), out)),
        Column::new(rows, Type::INT4, |(_, l), out| put_i32(l.attempts, out)),
        Column::new(rows, Type::TIMESTAMPTZ, |(_, l), out| put_time(l.first_failed_us, out)),
        Column::new(rows, Type::TIMESTAMPTZ, |(_, l), out| put_time(l.last_failed_us, out)),
        Column::new(rows, Type::INT4, |(_, l), out| put_i32(l.redrive_count, out)),
    ];
    let mut params = fence.to_vec();
    params.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
    let types = || FENCE_TYPES.into_iter().chain(TYPES).collect();
    let statement = connection.prepared(WRITE, types).await?;
    connection.query_partitions(&statement, &params).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        let at = DateTime::from_timestamp(1_760_000_000, 0).expect("a time");
        Failure {
            topic: "orders.webhooks".into(),
            partition: 3,
            offset: 42,
            timestamp_ms: Some(1_760_000_000_123),
            stage: Stage::Write,
            error_class: "refused".into(),
            sqlstate: Some("22021".into()),
            message: "invalid byte \0 sequence".into(),
            attempts: 1,
            first_failed_at: at,
            last_failed_at: at,
            redrive_count: 0,
        }
    }

    #[test]
    fn headers_are_read_back_and_the_origins_own_are_kept_in_order() {
        let failure = failure().headers();
        let own = [("a", Some(&b"1"[..])), ("b", Some(&b"\xff"[..])), ("a", None)];
        let ours = failure.iter().map(|(key, value)| (*key, Some(value.as_bytes())));
        let record = Record::new(7, Some(5), None, Some(b"v"), own.into_iter().chain(ours));
        let letter = DeadLetter::read(record, "orders.webhooks.DLQ", 3);
        assert_eq!(
            (letter.topic.as_str(), letter.partition, letter.offset),
            ("orders.webhooks", 3, 42)
        );
        assert_eq!(
            (letter.stage.as_str(), letter.sqlstate.as_deref()),
            ("write", Some("22021"))
        );
        assert_eq!(letter.reason, "invalid byte \u{fffd} sequence");
        assert_eq!(
            letter.headers,
            r#"[{"key":"a","value":"1"},{"base64":"/w==","key":"b"},{"key":"a","value":null}]"#
        );
        assert_eq!(letter.timestamp_us, Some(1_760_000_000_123_000));
    }

    #[test]
    fn a_foreign_record_is_its_own_origin() {
        let headers = [
            ("dlq.stage", Some(&b"theirs"[..])),
            ("dlq.origin.offset", Some(&b"x"[..])),
        ];
        let record = Record::new(7, Some(i64::MAX), None, None, headers.into_iter());
        let letter = DeadLetter::read(record, "orders.webhooks.DLQ", 3);
        assert_eq!(
            (letter.topic.as_str(), letter.partition, letter.offset),
            ("orders.webhooks.DLQ", 3, 7)
        );
        assert_eq!(letter.stage, "foreign");
        assert_eq!(
            letter.headers,
            r#"[{"key":"dlq.stage","value":"theirs"},{"key":"dlq.origin.offset","value":"x"}]"#
        );
    }

    #[test]
    fn an_origins_headers_are_not_taken_for_ours() {
        let mut failure = failure();
        failure.sqlstate = None;
        let ours = failure.headers();
        let own = [
            ("dlq.error.sqlstate", Some(&b"theirs"[..])),
            ("dlq.stage", Some(&b"theirs"[..])),
        ];
        let ours = ours.iter().map(|(key, value)| (*key, Some(value.as_bytes())));
        let record = Record::new(7, Some(5), None, None, own.into_iter().chain(ours));
        let letter = DeadLetter::read(record, "orders.webhooks.DLQ", 3);
        assert_eq!((letter.stage.as_str(), letter.sqlstate), ("write", None));
        assert_eq!(
            letter.headers,
            r#"[{"key":"dlq.error.sqlstate","value":"theirs"},{"key":"dlq.stage","value":"theirs"}]"#
        );
    }
}
