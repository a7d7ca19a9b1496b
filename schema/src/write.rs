//! Writing a batch: exactly once is one SQL text.
//!
//! The statement's first part fences: it moves each partition's offset from where the batch begins to where it ends, if
//! and only if it stands there and the epoch is still ours. Its other parts insert only rows of partitions that passed.
//! So rows and offset are committed together or not at all, by a single statement that is atomic by itself: one
//! round trip, and nothing that could be cancelled half-way. A redelivered event meets `ON CONFLICT DO NOTHING`.
//!
//! A large batch can be written more cheaply, see [`crate::writer`]; the statement is what everything falls back to.

use bytes::BytesMut;
use tokio_postgres::Statement;
use tokio_postgres::types::{IsNull, ToSql, Type};

use crate::arrays::{Column, put_bytes, put_i16, put_i32, put_i64, put_text, put_time};
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
#[derive(Clone, Copy)]
pub(crate) struct Placed<'a> {
    pub(crate) partition: i32,
    pub(crate) event: &'a Event,
    /// Whether it is the latest state of its entity within its part: only one row of an entity may reach the upsert.
    pub(crate) latest: bool,
}

/// Moves the offsets of the parts that stand where they should, under the epoch they should, on a further condition if one is
/// given; yields their partitions. Parameters: topic; partition, from, next, epoch of each part.
macro_rules! fence {
    () => {
        fence!("")
    };
    ($further:literal) => {
        concat!(
            "UPDATE consumer_offsets o SET next_offset = v.next, updated_at = now()
    FROM unnest($2, $3, $4, $5) AS v (partition, start, next, epoch)
    WHERE o.topic = $1 AND o.partition = v.partition AND o.next_offset = v.start AND o.epoch = v.epoch",
            $further,
            "
    RETURNING o.partition"
        )
    };
}
pub(crate) use fence;

/// Opens a transaction in which [`FENCE_BEGUN`] lets parts pass.
pub(crate) const BEGIN: &str = "BEGIN; SET LOCAL hookmill.begun = 'yes'";

/// [`fence`] for the start of a transaction, sent without waiting for [`BEGIN`]'s answer. Where that fails by itself (an
/// operator may cancel it), an UPDATE would be committed alone, and the rows be lost: this one then lets nobody pass.
pub(crate) const FENCE_BEGUN: &str = fence!(" AND current_setting('hookmill.begun', true) = 'yes'");

/// Takes the place of [`fence`] later in a transaction in which exactly the parts in its parameters have passed it.
macro_rules! fenced_before {
    () => {
        "SELECT unnest($2) AS partition"
    };
}
pub(crate) use fenced_before;

/// All SQL that writes the events of one kind.
pub(crate) struct EventSql {
    /// Fences, logs, updates the state. Parameters: those of the fence; the columns [`LOG`]; the columns [`STATE`].
    pub(crate) write: &'static str,
    /// The same with the same parameters, for a transaction that has fenced already.
    pub(crate) write_fenced: &'static str,
    /// Logs rows of which none is in the log already.
    pub(crate) copy: &'static str,
    /// Whether `copy` has the column `dispute_id`.
    pub(crate) copies_dispute_id: bool,
}

/// The SQL of a table's events; `None` for dead letters.
pub(crate) fn event_sql(table: Table) -> Option<&'static EventSql> {
    match table {
        Table::Orders => Some(&orders::SQL),
        Table::Disputes => Some(&disputes::SQL),
        Table::DeadLetters => None,
    }
}

/// Writes `parts`, each partition at most once among them, to the tables of `topic`, by one statement. Returns the
/// partitions that passed the fence; of the others nothing was written.
pub async fn write(
    connection: &mut Connection,
    table: Table,
    topic: &str,
    parts: &[Part<'_>],
) -> Result<Vec<i32>, ShardError> {
    let fence = Fence::new(&topic, parts);
    match event_sql(table) {
        Some(sql) => {
            let placed = place(parts);
            let statement = connection.prepared(sql.write, event_types).await?;
            write_events(connection, &statement, &fence.params(), &placed, &placed).await
        }
        None => dead_letters::write(connection, &fence.params(), parts).await,
    }
}

/// The fence's parameters.
pub(crate) struct Fence<'a> {
    topic: &'a &'a str,
    columns: [Column<'a, Part<'a>>; 4],
}

impl<'a> Fence<'a> {
    pub(crate) fn new(topic: &'a &'a str, parts: &'a [Part<'a>]) -> Self {
        let columns = [
            Column::new(parts, Type::INT4, |p: &Part<'_>, out| put_i32(p.partition, out)),
            Column::new(parts, Type::INT8, |p: &Part<'_>, out| put_i64(Some(p.from), out)),
            Column::new(parts, Type::INT8, |p: &Part<'_>, out| put_i64(Some(p.next), out)),
            Column::new(parts, Type::INT8, |p: &Part<'_>, out| put_i64(Some(p.epoch), out)),
        ];
        Self { topic, columns }
    }

    pub(crate) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![self.topic];
        params.extend(self.columns.iter().map(|column| column as &(dyn ToSql + Sync)));
        params
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

/// A column of the event tables: its name, its type, the type of an array of it, and how a row's value is put.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    element: Type,
    array: Type,
    pub(crate) put: fn(&Placed<'_>, &mut BytesMut) -> IsNull,
}

macro_rules! fields {
    ($($name:ident $element:ident $array:ident $put:expr;)*) => {
        [$(Field { name: stringify!($name), element: Type::$element, array: Type::$array, put: $put }),*]
    };
}

/// The columns of the event log, in the order of the statements' parameters and of COPY.
pub(crate) static LOG: [Field; 16] = fields! {
    kafka_partition INT4 INT4_ARRAY |r, out| put_i32(r.partition, out);
    kafka_offset INT8 INT8_ARRAY |r, out| put_i64(Some(r.event.record().offset), out);
    event_id TEXT TEXT_ARRAY |r, out| put_bytes(Some(r.event.raw(r.event.event_id)), out);
    source TEXT TEXT_ARRAY |r, out| put_bytes(Some(r.event.raw(r.event.source)), out);
    order_id TEXT TEXT_ARRAY |r, out| put_bytes(r.event.raw_option(r.event.order_id), out);
    dispute_id TEXT TEXT_ARRAY |r, out| put_bytes(r.event.raw_option(r.event.dispute_id), out);
    user_id TEXT TEXT_ARRAY |r, out| put_bytes(Some(r.event.raw(r.event.user_id)), out);
    event_type TEXT TEXT_ARRAY |r, out| put_bytes(Some(r.event.raw(r.event.event_type)), out);
    status TEXT TEXT_ARRAY |r, out| put_text(Some(r.event.status().as_str()), out);
    provider_status TEXT TEXT_ARRAY |r, out| put_bytes(r.event.raw_option(r.event.provider_status), out);
    amount_minor INT8 INT8_ARRAY |r, out| put_i64(r.event.amount_minor(), out);
    currency TEXT TEXT_ARRAY |r, out| put_bytes(r.event.raw_option(r.event.currency), out);
    entity_version INT8 INT8_ARRAY |r, out| put_i64(r.event.entity_version(), out);
    occurred_at TIMESTAMPTZ TIMESTAMPTZ_ARRAY |r, out| put_time(r.event.occurred_at_us(), out);
    received_at TIMESTAMPTZ TIMESTAMPTZ_ARRAY |r, out| put_time(r.event.received_at_us(), out);
    // The json type takes its text as it is: no parse on this side.
    payload JSON JSON_ARRAY |r, out| put_bytes(Some(r.event.payload()), out);
};

/// The columns that make the state, in the order of the statements' parameters.
static STATE: [Field; 13] = fields! {
    kafka_partition INT4 INT4_ARRAY |r, out| put_i32(r.partition, out);
    event_id TEXT TEXT_ARRAY |r, out| put_bytes(Some(r.event.raw(r.event.event_id)), out);
    source TEXT TEXT_ARRAY |r, out| put_bytes(Some(r.event.raw(r.event.source)), out);
    order_id TEXT TEXT_ARRAY |r, out| put_bytes(r.event.raw_option(r.event.order_id), out);
    dispute_id TEXT TEXT_ARRAY |r, out| put_bytes(r.event.raw_option(r.event.dispute_id), out);
    user_id TEXT TEXT_ARRAY |r, out| put_bytes(Some(r.event.raw(r.event.user_id)), out);
    status TEXT TEXT_ARRAY |r, out| put_text(Some(r.event.status().as_str()), out);
    provider_status TEXT TEXT_ARRAY |r, out| put_bytes(r.event.raw_option(r.event.provider_status), out);
    amount_minor INT8 INT8_ARRAY |r, out| put_i64(r.event.amount_minor(), out);
    currency TEXT TEXT_ARRAY |r, out| put_bytes(r.event.raw_option(r.event.currency), out);
    entity_version INT8 INT8_ARRAY |r, out| put_i64(r.event.entity_version(), out);
    occurred_at TIMESTAMPTZ TIMESTAMPTZ_ARRAY |r, out| put_time(r.event.occurred_at_us(), out);
    status_rank INT2 INT2_ARRAY |r, out| put_i16(r.event.state_key().2, out);
};

/// Runs an event table's [`EventSql::write`] or [`EventSql::write_fenced`]: `log` is logged, the latest of `state` are the
/// entities' states.
pub(crate) async fn write_events(
    connection: &Connection,
    statement: &Statement,
    fence: &[&(dyn ToSql + Sync)],
    log: &[Placed<'_>],
    state: &[Placed<'_>],
) -> Result<Vec<i32>, ShardError> {
    let latest: Vec<Placed<'_>> = state.iter().copied().filter(|r| r.latest).collect();
    let columns: Vec<Column<'_, Placed<'_>>> = LOG
        .iter()
        .map(|field| Column::new(log, field.element.clone(), field.put))
        .chain(
            STATE
                .iter()
                .map(|field| Column::new(&latest, field.element.clone(), field.put)),
        )
        .collect();
    let mut params = fence.to_vec();
    params.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
    connection.query_partitions(statement, &params).await
}

/// The types of those statements' parameters.
pub(crate) fn event_types() -> Vec<Type> {
    let columns = LOG.iter().chain(&STATE).map(|field| field.array.clone());
    FENCE_TYPES.into_iter().chain(columns).collect()
}

/// Puts the events in the order of their entities, so that two statements never wait for each other in a circle, and
/// marks the latest state of each entity within its part.
pub(crate) fn place<'a>(parts: &[Part<'a>]) -> Vec<Placed<'a>> {
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
    let entity = |p: &Placed<'a>| (p.event.entity(), p.partition);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// COPY's columns must stand in the order in which the fields are put.
    #[test]
    fn copy_names_the_fields_in_their_order() {
        for (sql, table) in [(&orders::SQL, "order_events"), (&disputes::SQL, "dispute_events")] {
            let names: Vec<&str> = LOG.iter().map(|field| field.name).collect();
            let names: Vec<&str> = names
                .into_iter()
                .filter(|name| sql.copies_dispute_id || *name != "dispute_id")
                .collect();
            let copy = sql.copy.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(copy, format!("COPY {table} ({}) FROM STDIN BINARY", names.join(", ")));
        }
    }
}
