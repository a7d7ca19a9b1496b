//! Writing a large batch more cheaply than by the statement of [`crate::write`]: the log by COPY, which looks for no
//! conflicts, inside a transaction that fences first. The primary key stays the judge: should a row be in the log
//! already, all is rolled back and the statement writes the batch. Rows that are likely to be redeliveries are therefore
//! kept out of the COPY and logged by the statement at the transaction's end, which updates the state as well.
//!
//! The transaction, two round trips: `BEGIN`, the fence and the start of a COPY; its rows, of partitions that passed, the rest and
//! `COMMIT`, which rolls back by itself if anything before it failed. Its future must run to its end or the connection be
//! given up, and it must not be used by others meanwhile: both hold by `&mut` and because a lane that stops waiting
//! discards its connection. A process that is frozen in between keeps its rows locked; a claim ends such sessions
//! ([`crate::offsets::claim`]).

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use futures_util::future::join3;
use tokio_postgres::types::ToSql;
use tokio_postgres::{CopyInSink, Statement};

use crate::arrays::put_sized;
use crate::error::{ErrorClass, ShardError};
use crate::recent::Recent;
use crate::row::Table;
use crate::shard::Connection;
use crate::write::{
    BEGIN, EventSql, FENCE_BEGUN, FENCE_TYPES, Fence, Field, LOG, Part, Placed, event_sql, event_types, place,
    write_events,
};

/// Rows from which on a COPY is worth its round trips.
const LARGE: usize = 500;

/// An event that was received so long after it happened (µs) is a likely redelivery, whether remembered or not: providers
/// send again for days. 15 minutes.
const LATE_US: i64 = 15 * 60 * 1_000_000;

/// Bytes of rows that are made ready before they are handed to the connection.
const CHUNK: usize = 256 << 10;

/// After how many refused COPYs in a row, at most, one is tried: 2 to the power of this.
const MOST_PATIENCE: u32 = 6;

/// Writes the batches of one lane.
#[derive(Debug)]
pub struct Writer {
    recent: Recent,
    /// Batches that go without COPY, because one was refused.
    waiting: u32,
    /// Grows with every refused COPY.
    patience: u32,
    copied: u64,
    refused: u64,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            recent: Recent::new(),
            waiting: 0,
            patience: 0,
            copied: 0,
            refused: 0,
        }
    }
}

impl Writer {
    /// Writes `parts` as [`crate::write`] does, and promises the same.
    pub async fn write(
        &mut self,
        connection: &mut Connection,
        table: Table,
        topic: &str,
        parts: &[Part<'_>],
    ) -> Result<Vec<i32>, ShardError> {
        let Some(sql) = event_sql(table) else {
            return crate::write(connection, table, topic, parts).await;
        };
        let placed = place(parts);
        let (suspects, new) = self.sort_out(&placed);
        let fence = Fence::new(&topic, parts);
        if new.len() >= LARGE && self.waiting == 0 {
            let batch = Batch {
                sql,
                new,
                suspects,
                state: placed.clone(),
            };
            match batch.write(connection, &fence).await {
                Ok(passed) => {
                    self.copied += 1;
                    self.patience = self.patience.saturating_sub(1);
                    return Ok(passed);
                }
                // A row that was in the log already, or one that can never be: the statement tells.
                Err(error) if error.class == ErrorClass::Row => {
                    self.refused += 1;
                    self.patience = (self.patience + 1).min(MOST_PATIENCE);
                    self.waiting = 1 << self.patience;
                }
                Err(error) => return Err(error),
            }
        }
        self.waiting = self.waiting.saturating_sub(1);
        let statement = connection.prepared(sql.write, event_types).await?;
        write_events(connection, &statement, &fence.params(), &placed, &placed).await
    }

    /// How many batches were written with COPY, and how many COPYs were refused.
    pub fn copies(&self) -> (u64, u64) {
        (self.copied, self.refused)
    }

    /// Does what precedes the first word to the server, and tells how many bytes of rows a COPY would send: what a batch costs
    /// by itself, for whoever counts that.
    pub fn rehearse(&mut self, table: Table, parts: &[Part<'_>]) -> Result<usize, ShardError> {
        let Some(sql) = event_sql(table) else { return Ok(0) };
        let (_, new) = self.sort_out(&place(parts));
        let mut chunks = Chunks::new(sql, &new);
        let mut bytes = 0;
        while let Some(chunk) = chunks.next()? {
            bytes += chunk.len();
        }
        Ok(bytes)
    }

    /// Likely redeliveries, and the others.
    fn sort_out<'a>(&mut self, placed: &[Placed<'a>]) -> (Vec<Placed<'a>>, Vec<Placed<'a>>) {
        placed.iter().copied().partition(|row| {
            let late = row.event.received_at_us().saturating_sub(row.event.occurred_at_us()) > LATE_US;
            // Asked in any case, as it must learn of each.
            self.recent.meets(row.event) || late
        })
    }
}

/// A batch that is written with COPY.
struct Batch<'a> {
    sql: &'static EventSql,
    /// To be copied.
    new: Vec<Placed<'a>>,
    /// To be logged by the statement, as they may be there already.
    suspects: Vec<Placed<'a>>,
    /// Of all of them.
    state: Vec<Placed<'a>>,
}

impl Batch<'_> {
    async fn write(mut self, connection: &mut Connection, fence: &Fence<'_>) -> Result<Vec<i32>, ShardError> {
        let fencing = connection.prepared(FENCE_BEGUN, || FENCE_TYPES.to_vec()).await?;
        let copying = connection.prepared(self.sql.copy, Vec::new).await?;
        let rest = connection.prepared(self.sql.write_fenced, event_types).await?;
        let params = fence.params();
        let (passed, copy) = match begin(connection, &fencing, &params, &copying).await {
            Ok(begun) => begun,
            Err(error) => {
                // The server answers a COPY that does not begin once more than tokio-postgres takes into account
                // (<https://github.com/rust-postgres/rust-postgres/issues/789>): from now on every answer would be taken for the
                // one before it. Without its connection the transaction is undone as well.
                connection.give_up();
                return Err(error);
            }
        };
        let written = self.finish(connection, &rest, &params, &passed, copy).await;
        if written.is_err() {
            // Wherever it broke: after this no transaction is open, or the connection is known to be lost.
            connection.client().batch_execute("ROLLBACK").await?;
        }
        written.map(|()| passed)
    }

    async fn finish(
        &mut self,
        connection: &Connection,
        rest: &Statement,
        fence: &[&(dyn ToSql + Sync)],
        passed: &[i32],
        copy: CopyInSink<Bytes>,
    ) -> Result<(), ShardError> {
        for rows in [&mut self.new, &mut self.suspects, &mut self.state] {
            rows.retain(|row| passed.contains(&row.partition));
        }
        let mut copy = pin!(copy);
        let mut chunks = Chunks::new(self.sql, &self.new);
        while let Some(chunk) = chunks.next()? {
            copy.send(chunk).await?;
        }
        // Polled in this order, so sent in this order, without waiting for each other's answer; so in `begin`.
        let (copied, logged, committed) = join3(
            copy.finish(),
            write_events(connection, rest, fence, &self.suspects, &self.state),
            connection.client().batch_execute("COMMIT"),
        )
        .await;
        copied?;
        logged?;
        committed?;
        Ok(())
    }
}

/// Opens the transaction; which partitions passed the fence, and a COPY for their rows.
async fn begin(
    connection: &Connection,
    fencing: &Statement,
    fence: &[&(dyn ToSql + Sync)],
    copying: &Statement,
) -> Result<(Vec<i32>, CopyInSink<Bytes>), ShardError> {
    let client = connection.client();
    let (begun, passed, copy) = join3(
        client.batch_execute(BEGIN),
        connection.query_partitions(fencing, fence),
        client.copy_in(copying),
    )
    .await;
    // The first error is the cause: what follows it in the transaction is only told that it failed before.
    begun?;
    Ok((passed?, copy?))
}

/// Rows in COPY's binary form (<https://www.postgresql.org/docs/18/sql-copy.html>), some at a time.
struct Chunks<'r, 'a> {
    fields: Vec<&'static Field>,
    rows: Option<std::slice::Iter<'r, Placed<'a>>>,
    buffer: BytesMut,
}

impl<'r, 'a> Chunks<'r, 'a> {
    fn new(sql: &EventSql, rows: &'r [Placed<'a>]) -> Self {
        let copied = |field: &&Field| sql.copies_dispute_id || field.name != "dispute_id";
        Self {
            fields: LOG.iter().filter(copied).collect(),
            rows: Some(rows.iter()),
            buffer: BytesMut::from(HEADER),
        }
    }

    fn next(&mut self) -> Result<Option<Bytes>, ShardError> {
        let Some(rows) = &mut self.rows else { return Ok(None) };
        self.buffer.reserve(CHUNK + CHUNK / 8);
        while self.buffer.len() < CHUNK {
            let Some(row) = rows.next() else {
                self.buffer.put_i16(-1);
                self.rows = None;
                break;
            };
            self.buffer
                .put_i16(i16::try_from(self.fields.len()).map_err(too_large)?);
            for field in &self.fields {
                put_sized(&mut self.buffer, |out| (field.put)(row, out)).map_err(too_large)?;
            }
        }
        Ok(Some(self.buffer.split().freeze()))
    }
}

/// Signature, flags, and the length of an extension that is not there.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// No record of Kafka has a value of 2 GiB.
fn too_large(_: std::num::TryFromIntError) -> ShardError {
    ShardError {
        class: ErrorClass::Row,
        sqlstate: None,
        message: "a value is too large".to_owned(),
    }
}
