//! Writing a batch: exactly once is one SQL text.
//!
//! The statement's first part fences: it moves each partition's offset from where the batch begins to where it ends, if
//! and only if it stands there and the epoch is still ours. Its other parts insert only rows of partitions that passed.
//! So rows and offset are committed together or not at all, by a single statement that is atomic by itself: one
//! round trip, and nothing that could be cancelled half-way. A redelivered event meets `ON CONFLICT DO NOTHING`.

use tokio_postgres::types::{ToSql, Type};

use crate::arrays::{Column, put_bool, put_bytes, put_i16, put_i32, put_i64, put_text, put_time};
use crate::error::ShardError;
use crate::event::Event;
use crate::row::{Row, Table};
use crate::shard::Connection;
use crate::{dead_letters, disputes, orders};

/// What one partition contributes to a statement.
#[derive(Debug)]
pub struct Part<'a> {
    /// Which partition.
    pub partition: i32,
    /// Where its offset row must stand.
    pub from: i64,
    /// Where it stands afterwards.
    pub next: i64,
    /// The epoch under which it was claimed.
    pub epoch: i64,
    /// Rows between, in the order of their offsets; none where there is only the offset to move.
    pub rows: Vec<&'a Row>,
}

/// An event in its place in the statement.
pub(crate) struct Placed<'a> {
    pub(crate) partition: i32,
    pub(crate) event: &'a Event,
    /// Whether it is the latest state of its entity within its part: only one row of an entity may reach the upsert.
    pub(crate) latest: bool,
}

/// Writes `parts`, each partition at most once among them, to the tables of `topic`. Returns the partitions that passed
/// the fence; of the others nothing was written.
pub async fn write(
    connection: &mut Connection,
    table: Table,
    topic: &str,
    parts: &[Part<'_>],
) -> Result<Vec<i32>, ShardError> {
    let partition = Column::new(parts, Type::INT4, |p: &Part<'_>, out| put_i32(p.partition, out));
    let from = Column::new(parts, Type::INT8, |p: &Part<'_>, out| put_i64(Some(p.from), out));
    let next = Column::new(parts, Type::INT8, |p: &Part<'_>, out| put_i64(Some(p.next), out));
    let epoch = Column::new(parts, Type::INT8, |p: &Part<'_>, out| put_i64(Some(p.epoch), out));
    let fence: [&(dyn ToSql + Sync); 5] = [&topic, &partition, &from, &next, &epoch];
    match table {
        Table::Orders => write_events(connection, table, orders::WRITE, &fence, &place(parts)).await,
        Table::Disputes => write_events(connection, table, disputes::WRITE, &fence, &place(parts)).await,
        Table::DeadLetters => dead_letters::write(connection, &fence, parts).await,
    }
}

/// The types of the fence's parameters.
pub(crate) const FENCE_TYPES: [Type; 5] = [
    Type::TEXT,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
];

const EVENT_TYPES: [Type; 18] = [
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::JSON_ARRAY,
    Type::INT2_ARRAY,
    Type::BOOL_ARRAY,
];

async fn write_events(
    connection: &mut Connection,
    table: Table,
    sql: &'static str,
    fence: &[&(dyn ToSql + Sync)],
    rows: &[Placed<'_>],
) -> Result<Vec<i32>, ShardError> {
    type P<'a> = Placed<'a>;
    let text = Type::TEXT;
    let columns: [Column<'_, P<'_>>; 18] = [
        Column::new(rows, Type::INT4, |r, out| put_i32(r.partition, out)),
        Column::new(rows, Type::INT8, |r, out| put_i64(Some(r.event.record().offset), out)),
        Column::new(rows, text.clone(), |r, out| put_text(Some(r.event.event_id()), out)),
        Column::new(rows, text.clone(), |r, out| put_text(Some(r.event.source()), out)),
        Column::new(rows, text.clone(), |r, out| put_text(r.event.order_id(), out)),
        Column::new(rows, text.clone(), |r, out| put_text(r.event.dispute_id(), out)),
        Column::new(rows, text.clone(), |r, out| put_text(Some(r.event.user_id()), out)),
        Column::new(rows, text.clone(), |r, out| put_text(Some(r.event.event_type()), out)),
        Column::new(rows, text.clone(), |r, out| {
            put_text(Some(r.event.status().as_str()), out)
        }),
        Column::new(rows, text.clone(), |r, out| put_text(r.event.provider_status(), out)),
        Column::new(rows, Type::INT8, |r, out| put_i64(r.event.amount_minor(), out)),
        Column::new(rows, text, |r, out| put_text(r.event.currency(), out)),
        Column::new(rows, Type::INT8, |r, out| put_i64(r.event.entity_version(), out)),
        Column::new(rows, Type::TIMESTAMPTZ, |r, out| {
            put_time(r.event.occurred_at_us(), out)
        }),
        Column::new(rows, Type::TIMESTAMPTZ, |r, out| {
            put_time(r.event.received_at_us(), out)
        }),
        // The json type takes its text as it is: no parse on this side.
        Column::new(rows, Type::JSON, |r, out| put_bytes(Some(r.event.payload()), out)),
        Column::new(rows, Type::INT2, |r, out| put_i16(r.event.state_key().2, out)),
        Column::new(rows, Type::BOOL, |r, out| put_bool(r.latest, out)),
    ];
    let mut params = fence.to_vec();
    params.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
    let types: Vec<Type> = FENCE_TYPES.into_iter().chain(EVENT_TYPES).collect();
    connection.query_partitions(table, sql, &types, &params).await
}

/// Puts the events in the order of their entities, so that two statements never wait for each other in a circle, and
/// marks the latest state of each entity within its part.
fn place<'a>(parts: &[Part<'a>]) -> Vec<Placed<'a>> {
    let rows = parts.iter().flat_map(|part| {
        part.rows
            .iter()
            .filter_map(|row| row.event())
            .map(|event| (part.partition, event))
    });
    let mut placed: Vec<Placed<'a>> = rows
        .map(|(partition, event)| Placed {
            partition,
            event,
            latest: true,
        })
        .collect();
    let entity = |p: &Placed<'a>| (p.event.source(), p.event.entity_id(), p.partition);
    placed.sort_by(|a, b| {
        entity(a)
            .cmp(&entity(b))
            .then_with(|| a.event.state_key().cmp(&b.event.state_key()))
    });
    for i in 1..placed.len() {
        placed[i - 1].latest = entity(&placed[i - 1]) != entity(&placed[i]);
    }
    placed
}
