//! A process's writer: what it has claimed, what waits for it, and the statement it is about. Batches are chosen, merged and
//! answered by the product's [`Holdings`].

use std::collections::VecDeque;

use hookmill_actors::batch::Batch;
use hookmill_actors::shard_writer::holdings::{Holdings, Merged, Waiting};

use crate::shard::{Part, Partition, Row, Sql, Statement};

/// A batch with the writer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job {
    pub(crate) partition: Partition,
    pub(crate) claim: u64,
    pub(crate) batch: Batch<Row>,
    pub(crate) wanted: bool,
}

impl Waiting<Partition> for Job {
    fn id(&self) -> &Partition {
        &self.partition
    }
    fn claim(&self) -> u64 {
        self.claim
    }
    fn from(&self) -> i64 {
        self.batch.from
    }
    fn next(&self) -> i64 {
        self.batch.next
    }
    fn rows(&self) -> usize {
        self.batch.rows.len()
    }
    fn is_wanted(&self) -> bool {
        self.wanted
    }
    fn goes_with(&self, _: &Self) -> bool {
        true
    }
}

/// What the writer is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Claims; whether the consumer still waits for it.
    Claim(Partition, bool),
    /// Asks, over a new connection, for all that it holds.
    Reconnect(Vec<(Partition, i64)>),
    /// Writes.
    Write(Vec<Job>),
    /// Asks for partitions that did not pass; their batches wait.
    Confirm(Vec<(Partition, i64)>, Vec<Job>),
}

/// The shard's writer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// What it has claimed.
    pub holdings: Holdings<Partition>,
    pub(crate) claims_made: u64,
    pub(crate) connected: bool,
    /// Mutants: statements on this connection are never committed.
    pub inside_transaction: bool,
    pub(crate) claims: VecDeque<Partition>,
    pub(crate) waiting: VecDeque<Job>,
    /// Of a refused statement: to be tried one by one.
    pub(crate) alone: VecDeque<Job>,
    /// What it is about, and the statement that is under way for it.
    pub working: Option<(Work, Statement)>,
}

impl Lane {
    pub(crate) fn new(claims_made: u64) -> Self {
        Self {
            holdings: Holdings::new(claims_made),
            claims_made,
            connected: false,
            inside_transaction: false,
            claims: VecDeque::new(),
            waiting: VecDeque::new(),
            alone: VecDeque::new(),
            working: None,
        }
    }

    pub(crate) fn begin(&mut self, work: Work, sql: Sql) {
        self.working = Some((work, Statement::new(sql)));
    }

    pub(crate) fn write(&mut self, jobs: Vec<Job>) {
        let part = |part: Merged<Partition>| Part {
            partition: part.id,
            from: part.from,
            next: part.next,
            epoch: part.epoch,
            rows: part
                .batches
                .iter()
                .flat_map(|at| jobs[*at].batch.rows.clone())
                .collect(),
        };
        let parts = self.holdings.merge(&jobs).into_iter().map(part).collect();
        self.begin(Work::Write(jobs), Sql::Write(parts));
    }

    pub(crate) fn give_back(&mut self, jobs: Vec<Job>) {
        let mut all: VecDeque<Job> = jobs.into();
        all.append(&mut self.alone);
        all.append(&mut self.waiting);
        self.waiting = all;
    }

    /// All batches that are with the writer.
    pub(crate) fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        let under_way = match &mut self.working {
            Some((Work::Write(jobs) | Work::Confirm(_, jobs), _)) => jobs.as_mut_slice(),
            _ => &mut [],
        };
        self.waiting.iter_mut().chain(&mut self.alone).chain(under_way)
    }
}
