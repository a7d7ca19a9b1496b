//! What is in the tables.

use anyhow::Result;
use chrono::{DateTime, Utc};
use dev::stack::Shard;
use futures_util::TryStreamExt as _;
use tokio_postgres::Row as PgRow;
use tokio_postgres::types::ToSql;

use super::records::Event;

/// A row of an event table.
#[derive(Clone, Debug)]
pub struct Row {
    /// `order` or `dispute`, by its table.
    pub kind: &'static str,
    /// On which shard.
    pub shard: usize,
    /// Where its record stands on Kafka, as it says.
    pub partition: i32,
    /// The same.
    pub offset: i64,
    /// The transaction that wrote it: transactions that wait for each other's offset row are numbered in their order.
    pub transaction: i64,
    /// When the transaction that wrote it began.
    pub recorded_at: DateTime<Utc>,
    /// What it says.
    pub event: Event,
}

/// A row of a state table.
#[derive(Clone, Debug)]
pub struct State {
    /// On which shard.
    pub shard: usize,
    /// The partition that it says its events come from.
    pub partition: i32,
    /// The latest event, as far as a state holds it: without type and digest.
    pub event: Event,
}

/// A row of the dead letters.
#[derive(Clone, Debug)]
pub struct Dead {
    /// On which shard.
    pub shard: usize,
    /// Its origin.
    pub topic: String,
    /// The same.
    pub partition: i32,
    /// The same.
    pub offset: i64,
    /// As it came.
    pub key: Option<Vec<u8>>,
    /// The beginning of its value's SHA-256.
    pub value: Option<[u8; 8]>,
    /// Where it was found to be bad.
    pub stage: String,
    /// Why.
    pub reason: String,
}

fn start(bytes: Option<&[u8]>) -> Option<[u8; 8]> {
    bytes.and_then(|bytes| bytes.get(..8)?.try_into().ok())
}

async fn all<T>(shard: &Shard, database: &str, sql: &str, read: impl Fn(&PgRow) -> Result<T>) -> Result<Vec<T>> {
    let client = shard.connect(database).await?;
    let none: [&(dyn ToSql + Sync); 0] = [];
    let mut rows = std::pin::pin!(client.query_raw(sql, none).await?);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await? {
        found.push(read(&row)?);
    }
    Ok(found)
}

fn event(row: &PgRow) -> Result<Event> {
    Ok(Event {
        source: row.try_get("source")?,
        event_id: row.try_get("event_id")?,
        event_type: row.try_get("event_type")?,
        user_id: row.try_get("user_id")?,
        order_id: row.try_get("order_id")?,
        dispute_id: row.try_get("dispute_id")?,
        status: row.try_get("status")?,
        provider_status: row.try_get("provider_status")?,
        amount_minor: row.try_get("amount_minor")?,
        currency: row.try_get("currency")?,
        entity_version: row.try_get("entity_version")?,
        occurred_us: row.try_get::<_, DateTime<Utc>>("occurred_at")?.timestamp_micros(),
        digest: start(Some(row.try_get("digest")?)).unwrap_or_default(),
    })
}

/// Every event of a shard.
pub async fn events(shard: &Shard, index: usize, database: &str) -> Result<Vec<Row>> {
    let mut found = Vec::new();
    for (kind, dispute_id) in [("order", "NULL::text AS dispute_id"), ("dispute", "dispute_id")] {
        let sql = format!(
            "SELECT event_id, source, order_id, {dispute_id}, user_id, event_type, status, provider_status, amount_minor, currency,
                entity_version, occurred_at, kafka_partition, kafka_offset, recorded_at, xmin::text::bigint AS transaction,
                sha256(convert_to(payload::text, 'UTF8')) AS digest
             FROM {kind}_events"
        );
        let read = |row: &PgRow| {
            Ok(Row {
                kind,
                shard: index,
                partition: row.try_get("kafka_partition")?,
                offset: row.try_get("kafka_offset")?,
                transaction: row.try_get("transaction")?,
                recorded_at: row.try_get("recorded_at")?,
                event: event(row)?,
            })
        };
        found.extend(all(shard, database, &sql, read).await?);
    }
    Ok(found)
}

/// Every state of a shard, of one kind.
pub async fn states(shard: &Shard, index: usize, database: &str, kind: &str) -> Result<Vec<State>> {
    let dispute_id = if kind == "order" {
        "NULL::text AS dispute_id"
    } else {
        "dispute_id"
    };
    let sql = format!(
        "SELECT last_event_id AS event_id, source, order_id, {dispute_id}, user_id, '' AS event_type, status, provider_status,
            amount_minor, currency, entity_version, occurred_at, kafka_partition, '\\x0000000000000000'::bytea AS digest
         FROM {kind}s"
    );
    let read = |row: &PgRow| {
        Ok(State {
            shard: index,
            partition: row.try_get("kafka_partition")?,
            event: event(row)?,
        })
    };
    all(shard, database, &sql, read).await
}

/// Every dead letter of a shard.
pub async fn dead(shard: &Shard, index: usize, database: &str) -> Result<Vec<Dead>> {
    let sql = "SELECT topic, partition, \"offset\", key, sha256(value), stage, reason FROM dead_letters";
    let read = |row: &PgRow| {
        Ok(Dead {
            shard: index,
            topic: row.try_get(0)?,
            partition: row.try_get(1)?,
            offset: row.try_get(2)?,
            key: row.try_get(3)?,
            value: start(row.try_get(4)?),
            stage: row.try_get(5)?,
            reason: row.try_get(6)?,
        })
    };
    all(shard, database, sql, read).await
}
