//! One shard as the protocol sees it: rows of `consumer_offsets`, the tables, and statements that are under way.

use crate::mutant::Mutant;

/// A partition's number.
pub type Partition = u8;

/// A row of `consumer_offsets`: what the SQL of `schema/src/offsets.rs` and `schema/src/write.rs` does to it. The test
/// `postgres.rs` runs both side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetRow {
    /// First offset that is not in the tables.
    pub next: i64,
    /// Raised by every claim.
    pub epoch: i64,
}

impl OffsetRow {
    /// Takes the partition, whoever has it.
    pub fn claim(&mut self) -> Self {
        self.epoch += 1;
        *self
    }

    /// Takes it again, if nobody else has taken it since `held`.
    pub fn reclaim(&mut self, held: i64) -> Option<Self> {
        (self.epoch == held).then(|| self.claim())
    }

    /// Whether a part of a write passes the fence.
    pub fn admits(&self, from: i64, epoch: i64) -> bool {
        self.next == from && self.epoch == epoch
    }
}

/// A record's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub i64);

impl hookmill_actors::batch::BatchRow for Row {
    fn offset(&self) -> i64 {
        self.0
    }
    fn byte_len(&self) -> usize {
        0
    }
    fn received_at_us(&self) -> Option<i64> {
        None
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// An event with its identity; the same one again is the provider's redelivery.
    Event(char),
    /// Postgres refuses it.
    Poison,
}

impl Record {
    /// One for each letter: X is a bad record, another one an event's identity.
    pub fn read(text: &str) -> Vec<Self> {
        let record = |letter| match letter {
            'X' => Record::Poison,
            identity => Record::Event(identity),
        };
        text.chars().map(record).collect()
    }
}

/// What one partition contributes to a write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// Which partition.
    pub partition: Partition,
    /// Where its offset row must stand.
    pub from: i64,
    /// Where it stands afterwards.
    pub next: i64,
    /// The epoch under which it is held.
    pub epoch: i64,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sql {
    /// Raises the epoch.
    Claim(Partition),
    /// Raises the epoch of each where it is the given one.
    Reclaim(Vec<(Partition, i64)>),
    /// Fences, inserts and moves the offsets.
    Write(Vec<Part>),
}

/// How far a statement is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// On its way, or waiting for a lock.
    Sent,
    /// It has locked the rows of these partitions, and is not committed.
    Running(Vec<Partition>),
    /// Committed or refused; the answer is on its way.
    Done(Answer),
    /// Mutants: a claim that has read the offset and not raised the epoch yet.
    Peeked(i64),
    /// Mutants: a write that has committed the rows and not moved the offsets yet.
    Inserted(Vec<Partition>),
}

/// What a statement answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// The row as the claim has left it.
    Claimed(OffsetRow),
    /// Those that were still held, as the reclaim has left them.
    Reclaimed(Vec<(Partition, OffsetRow)>),
    /// The partitions that have passed the fence and are written.
    Passed(Vec<Partition>),
    /// A row is at fault: nothing was written.
    Refused,
}

/// A statement under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Statement {
    /// What it says.
    pub sql: Sql,
    /// How far it is.
    pub stage: Stage,
}

impl Statement {
    /// One that has been sent just now.
    pub fn new(sql: Sql) -> Self {
        let stage = Stage::Sent;
        Self { sql, stage }
    }

    /// Whether it is answered.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done(_))
    }

    /// The partitions whose offset rows it would lock now.
    fn wants(&self) -> Vec<Partition> {
        match (&self.sql, &self.stage) {
            (_, Stage::Running(_) | Stage::Done(_)) => Vec::new(),
            (Sql::Claim(p), _) => vec![*p],
            (Sql::Reclaim(held), _) => held.iter().map(|(p, _)| *p).collect(),
            (Sql::Write(parts), _) => parts.iter().map(|part| part.partition).collect(),
        }
    }

    fn locks(&self, partition: Partition) -> bool {
        matches!(&self.stage, Stage::Running(held) if held.contains(&partition))
    }
}

/// The shard's tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    /// `consumer_offsets`.
    pub offsets: Vec<OffsetRow>,
    /// For each partition the offsets whose rows were inserted, in the order of their commits, repeats included.
    pub written: Vec<Vec<i64>>,
}

impl Shard {
    /// Empty tables for `partitions` partitions.
    pub fn new(partitions: usize) -> Self {
        Self {
            offsets: vec![OffsetRow::default(); partitions],
            written: vec![Vec::new(); partitions],
        }
    }

    /// A partition's offset row.
    pub fn row(&self, partition: Partition) -> &OffsetRow {
        &self.offsets[usize::from(partition)]
    }

    fn row_mut(&mut self, partition: Partition) -> &mut OffsetRow {
        &mut self.offsets[usize::from(partition)]
    }

    /// Takes `statement` one stage further; `false` where it must wait for one of the `others`' locks.
    pub fn advance(
        &mut self,
        statement: &mut Statement,
        others: &[&Statement],
        records: &[Vec<Record>],
        mutant: Option<Mutant>,
    ) -> bool {
        let peeks = match &statement.sql {
            Sql::Claim(_) => mutant == Some(Mutant::PlainSelect) && statement.stage == Stage::Sent,
            Sql::Reclaim(_) => mutant == Some(Mutant::ReRead),
            Sql::Write(_) => false,
        };
        let waits = |p: &Partition| others.iter().any(|other| other.locks(*p));
        if !peeks && statement.wants().iter().any(waits) {
            return false;
        }
        statement.stage = match (&statement.sql, &statement.stage) {
            (Sql::Claim(p), Stage::Sent) if peeks => Stage::Peeked(self.row(*p).next),
            (Sql::Claim(p), Stage::Peeked(next)) => {
                let OffsetRow { epoch, .. } = self.row_mut(*p).claim();
                Stage::Done(Answer::Claimed(OffsetRow { next: *next, epoch }))
            }
            (Sql::Claim(p), _) => Stage::Done(Answer::Claimed(self.row_mut(*p).claim())),
            (Sql::Reclaim(held), _) => {
                let reclaim = |(p, epoch): &(Partition, i64)| match mutant {
                    Some(Mutant::ReRead) => Some((*p, *self.row(*p))),
                    Some(Mutant::BlindReclaim) => Some((*p, self.row_mut(*p).claim())),
                    _ => self.row_mut(*p).reclaim(*epoch).map(|row| (*p, row)),
                };
                Stage::Done(Answer::Reclaimed(held.iter().filter_map(reclaim).collect()))
            }
            (Sql::Write(parts), Stage::Running(passed)) => {
                let passed = passed.clone();
                for part in parts.iter().filter(|part| passed.contains(&part.partition)) {
                    let at = usize::from(part.partition);
                    self.written[at].extend(part.rows.iter().map(|row| row.0));
                    if mutant != Some(Mutant::OffsetApart) {
                        self.offsets[at].next = part.next;
                    }
                }
                match mutant {
                    Some(Mutant::OffsetApart) => Stage::Inserted(passed),
                    _ => Stage::Done(Answer::Passed(passed)),
                }
            }
            (Sql::Write(parts), Stage::Inserted(inserted)) => {
                let (mut passed, inserted) = (Vec::new(), inserted.clone());
                for part in parts.iter().filter(|part| inserted.contains(&part.partition)) {
                    let row = self.row_mut(part.partition);
                    if row.admits(part.from, part.epoch) {
                        row.next = part.next;
                        passed.push(part.partition);
                    }
                }
                Stage::Done(Answer::Passed(passed))
            }
            (Sql::Write(parts), _) => {
                let admitted = |part: &&Part| {
                    let row = self.row(part.partition);
                    match mutant {
                        Some(Mutant::NoEpoch) => row.next == part.from,
                        Some(Mutant::NoOffset) => row.epoch == part.epoch,
                        _ => row.admits(part.from, part.epoch),
                    }
                };
                let passed: Vec<&Part> = parts.iter().filter(admitted).collect();
                // A value that Postgres cannot take is refused before anything is executed, whoever has the partition.
                let bad = |part: &Part| part.rows.iter().any(|row| is_bad(part.partition, *row, records));
                let clashes = |part: &&Part| {
                    let mut rows = part.rows.iter();
                    mutant == Some(Mutant::NoConflictClause)
                        && rows.any(|row| self.is_written(part.partition, *row, records))
                };
                if parts.iter().any(bad) || passed.iter().any(clashes) {
                    Stage::Done(Answer::Refused)
                } else if passed.is_empty() {
                    Stage::Done(Answer::Passed(Vec::new()))
                } else {
                    Stage::Running(passed.iter().map(|part| part.partition).collect())
                }
            }
        };
        true
    }

    /// Whether an event is in the table already: no error, as there is ON CONFLICT DO NOTHING.
    fn is_written(&self, partition: Partition, row: Row, records: &[Vec<Record>]) -> bool {
        let event = record(usize::from(partition), row.0, records);
        (0..self.written.len()).any(|p| {
            self.written[p]
                .iter()
                .any(|offset| record(p, *offset, records) == event)
        })
    }
}

fn record(partition: usize, offset: i64, records: &[Vec<Record>]) -> Option<Record> {
    let at = usize::try_from(offset).ok()?;
    records[partition].get(at).copied()
}

fn is_bad(partition: Partition, row: Row, records: &[Vec<Record>]) -> bool {
    record(usize::from(partition), row.0, records) == Some(Record::Poison)
}
