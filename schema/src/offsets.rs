//! Who owns a partition and how far it is written: all SQL of `consumer_offsets`, but for the fence in [`crate::write`].

use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio_postgres::types::Type;

use crate::error::ShardError;
use crate::shard::Connection;
use crate::tables::consumer_offsets;

/// A claim that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// First offset that is not in the tables.
    pub next_offset: i64,
    /// The partition's new epoch; 1 if it was never claimed before.
    pub epoch: i64,
}

/// What a claim says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claimant<'a> {
    /// Who claims.
    pub owner: &'a str,
    /// The id of the Kafka topic as it is now, if the brokers tell it.
    pub topic_id: Option<&'a str>,
    /// Why nobody may read the partition from now on.
    pub halt: Option<&'a str>,
}

/// What the shard keeps about a partition besides its progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The id of the Kafka topic that its offsets are of.
    pub topic_id: Option<String>,
    /// Why nobody may read it, until an operator has decided.
    pub halted: Option<String>,
}

// Where nothing was written yet, any topic of this name will do.
const CLAIM: &str = "\
INSERT INTO consumer_offsets AS o (topic, partition, next_offset, epoch, owner, topic_id, halted)
VALUES ($1, $2, 0, 1, $3, $4, $5)
ON CONFLICT (topic, partition) DO UPDATE SET epoch = o.epoch + 1, owner = excluded.owner, claimed_at = now(),
    topic_id = CASE WHEN o.next_offset = 0 THEN excluded.topic_id ELSE coalesce(o.topic_id, excluded.topic_id) END,
    halted = coalesce(o.halted, excluded.halted)
RETURNING next_offset, epoch, topic_id, halted";

/// A writer that is frozen, or whose host is gone, in the middle of a transaction keeps its rows locked while the server
/// waits for it to go on, without end in the middle of a COPY, where no time-out of the server's counts. One that was
/// silent for so long is not waited for; should it be alive after all, it connects again and finds itself fenced or not.
const END_SILENT: &str = "\
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
    AND application_name = current_setting('application_name')
    AND wait_event = 'ClientRead' AND xact_start < clock_timestamp() - interval '5 s'";

/// Takes ownership of a partition by raising its epoch. Waits for a former owner's statement that is under way, so the
/// offset is the truth: a plain SELECT would read a stale one.
pub async fn claim(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    claimant: Claimant<'_>,
) -> Result<(Claimed, Kept), ShardError> {
    connection.client().batch_execute(END_SILENT).await?;
    let types = [Type::TEXT, Type::INT4, Type::TEXT, Type::TEXT, Type::TEXT];
    let statement = connection.client().prepare_typed(CLAIM, &types).await?;
    let Claimant { owner, topic_id, halt } = claimant;
    let row = connection
        .client()
        .query_one(&statement, &[&topic, &partition, &owner, &topic_id, &halt])
        .await?;
    let claimed = Claimed {
        next_offset: row.try_get(0)?,
        epoch: row.try_get(1)?,
    };
    let kept = Kept {
        topic_id: row.try_get(2)?,
        halted: row.try_get(3)?,
    };
    Ok((claimed, kept))
}

const RECLAIM: &str = "\
UPDATE consumer_offsets o SET epoch = o.epoch + 1, owner = $4, claimed_at = now()
FROM unnest($2, $3) AS held (partition, epoch)
WHERE o.topic = $1 AND o.partition = held.partition AND o.epoch = held.epoch
RETURNING o.partition, o.next_offset, o.epoch";

/// Takes ownership again of those `held` partitions (each with the epoch it was claimed with) that nobody else has claimed since, after
/// what became of a statement is unknown: it waits for that statement, fences it, and reads the truth.
pub async fn reclaim(
    connection: &mut Connection,
    topic: &str,
    held: &[(i32, i64)],
    owner: &str,
) -> Result<Vec<(i32, Claimed)>, ShardError> {
    // The session that is waited for may be ours, of a connection that ended without the server's hearing of it.
    connection.client().batch_execute(END_SILENT).await?;
    let (partitions, epochs): (Vec<i32>, Vec<i64>) = held.iter().copied().unzip();
    let types = [Type::TEXT, Type::INT4_ARRAY, Type::INT8_ARRAY, Type::TEXT];
    let statement = connection.client().prepare_typed(RECLAIM, &types).await?;
    let rows = connection
        .client()
        .query(&statement, &[&topic, &partitions, &epochs, &owner])
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                row.try_get(0)?,
                Claimed {
                    next_offset: row.try_get(1)?,
                    epoch: row.try_get(2)?,
                },
            ))
        })
        .collect()
}

/// How far a partition is.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct OffsetRow {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// First offset that is not in the tables.
    pub next_offset: i64,
    /// Its epoch.
    pub epoch: i64,
    /// Who claimed it last.
    pub owner: Option<String>,
}

/// All partitions that were ever claimed on this shard.
pub async fn read_all(connection: &mut AsyncPgConnection) -> Result<Vec<OffsetRow>, ShardError> {
    use consumer_offsets::{epoch, next_offset, owner, partition, topic};
    let rows = consumer_offsets::table
        .select((topic, partition, next_offset, epoch, owner))
        .order((topic, partition));
    Ok(rows.load(connection).await?)
}
