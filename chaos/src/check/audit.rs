//! The protocol itself, seen from outside: triggers on the offsets of every shard note each change, in its own
//! transaction. So a fence that does not hold is seen also where luck kept the data right.

use std::collections::HashMap;

use anyhow::Result;
use chrono::{DateTime, Utc};
use dev::stack::Shard;

use super::{Evidence, FENCE, Findings, key};

const INSTALL: &str = "
CREATE SCHEMA chaos;
CREATE TABLE chaos.audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic       text NOT NULL,
    partition   integer NOT NULL,
    old_next    bigint,
    new_next    bigint NOT NULL,
    old_epoch   bigint,
    new_epoch   bigint NOT NULL,
    owner       text,
    backend     integer NOT NULL DEFAULT pg_backend_pid(),
    transaction bigint NOT NULL DEFAULT pg_current_xact_id()::xid::text::bigint,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION chaos.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos.audit (topic, partition, old_next, new_next, old_epoch, new_epoch, owner)
    VALUES (NEW.topic, NEW.partition, OLD.next_offset, NEW.next_offset, OLD.epoch, NEW.epoch, NEW.owner);
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON consumer_offsets FOR EACH ROW EXECUTE FUNCTION chaos.audit();";

/// Installs the triggers on a shard whose tables are there.
pub async fn install(shard: &Shard, database: &str) -> Result<()> {
    shard.execute(database, INSTALL).await
}

/// A change of an offset row. Those of one partition are noted in their order.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose.
    pub topic: String,
    /// Whose.
    pub partition: i32,
    /// Offset and epoch before; `None` for the first claim.
    pub old: Option<(i64, i64)>,
    /// Offset and epoch afterwards.
    pub new: (i64, i64),
    /// Who claimed it last.
    pub owner: String,
    /// The server's process that did it.
    pub backend: i32,
    /// In which transaction.
    pub transaction: i64,
    /// When.
    pub at: DateTime<Utc>,
}

impl Change {
    /// Whether it raised the epoch, by one, and nothing else.
    pub fn is_claim(&self) -> bool {
        match self.old {
            None => self.new == (0, 1),
            Some((next, epoch)) => self.new == (next, epoch + 1),
        }
    }

    /// Whether it moved the offset ahead, and nothing else.
    pub fn is_write(&self) -> bool {
        self.old
            .is_some_and(|(next, epoch)| self.new.0 > next && self.new.1 == epoch)
    }
}

/// The changes of each partition, in their order.
pub type Audit = HashMap<(String, i32), Vec<Change>>;

/// Reads what a shard noted into `audit`.
pub async fn read(shard: &Shard, database: &str, audit: &mut Audit) -> Result<()> {
    let sql = "SELECT topic, partition, old_next, old_epoch, new_next, new_epoch, coalesce(owner, ''), backend, transaction, at
        FROM chaos.audit ORDER BY id";
    for row in shard.connect(database).await?.query(sql, &[]).await? {
        let old: (Option<i64>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
        let change = Change {
            topic: row.try_get(0)?,
            partition: row.try_get(1)?,
            old: old.0.zip(old.1),
            new: (row.try_get(4)?, row.try_get(5)?),
            owner: row.try_get(6)?,
            backend: row.try_get(7)?,
            transaction: row.try_get(8)?,
            at: row.try_get(9)?,
        };
        let id = (change.topic.clone(), change.partition);
        audit.entry(id).or_default().push(change);
    }
    Ok(())
}

/// Every change is a claim or a write, follows the one before, and is written by who claimed last; every row was written
/// by the transaction that moved the offset over it.
pub(super) fn check(evidence: &Evidence, findings: &mut Findings) {
    for (id, changes) in &evidence.audit {
        let mut claimed: Option<&Change> = None;
        for (i, change) in changes.iter().enumerate() {
            let before = i.checked_sub(1).map(|before| changes[before].new);
            if change.old != before {
                findings.add(FENCE, None, format!("{id:?}: {change:?} does not follow {before:?}"));
            }
            if change.is_claim() {
                claimed = Some(change);
            } else if !change.is_write() {
                findings.add(FENCE, None, format!("{id:?}: neither a claim nor a write: {change:?}"));
            } else if claimed.is_none_or(|claim| claim.backend != change.backend) {
                findings.add(
                    FENCE,
                    None,
                    format!("{id:?}: {change:?} was not made by who had claimed it: {claimed:?}"),
                );
            }
        }
    }
    for row in &evidence.rows {
        let id = (evidence.deployment.topic(row.kind).name, row.partition);
        let write = evidence
            .audit
            .get(&id)
            .and_then(|changes| write_of(changes, row.offset));
        if write.is_none_or(|write| write.transaction != row.transaction) {
            let what = format!(
                "written by transaction {}, and the offset was moved over it by {write:?}",
                row.transaction
            );
            findings.add(FENCE, Some(key(&row.event)), what);
        }
    }
}

/// The write that moved the offset over `offset`.
pub fn write_of(changes: &[Change], offset: i64) -> Option<&Change> {
    // Offsets only rise, and a claim leaves them.
    let at = changes.partition_point(|change| change.new.0 <= offset);
    changes.get(at)
}
