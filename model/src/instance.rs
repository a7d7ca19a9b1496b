//! One process: a member of the group with a consumer for each partition, and its shard's writer. Batches are cut by the
//! product's [`Outbox`], and what the writer makes of its answers is in [`crate::lane`].

use hookmill_actors::batch::{BatchLimits, Outbox};
use hookmill_actors::shard_writer::holdings::{Hold, Verdict};

use crate::lane::{Job, Lane, Work};
use crate::mutant::Mutant;
use crate::shard::{Answer, OffsetRow, Partition, Row, Sql, Stage};

/// A partition's consumer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consumer {
    /// The partition is not assigned, as far as this instance has heard.
    Idle,
    /// Waits for its claim.
    Claiming,
    /// Reads under the claim of this number.
    Reading(u64, Outbox<Row>),
    /// Somebody else has claimed the partition.
    Fenced,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// By partition.
    pub consumers: Vec<Consumer>,
    /// Its only lane.
    pub lane: Lane,
    /// Mutants: dead letters that are not acknowledged.
    pub graves: Vec<(Partition, i64)>,
}

/// Steps after which an instance that still has something to do without an answer from anybody is running in a circle.
const SPIN: usize = 64;

/// It runs in a circle.
pub struct Spins;

/// What became of a batch.
enum Outcome {
    Committed,
    Rejected,
    OutOfStep,
    Fenced,
}

impl Instance {
    /// A process that has just started.
    pub fn new(partitions: usize) -> Self {
        Self {
            consumers: vec![Consumer::Idle; partitions],
            lane: Lane::new(0),
            graves: Vec::new(),
        }
    }

    fn consumer(&mut self, partition: Partition) -> &mut Consumer {
        &mut self.consumers[usize::from(partition)]
    }

    /// The partition's consumer ends, or starts again: nobody waits for its batches and its claim any more.
    fn forget(&mut self, partition: Partition) {
        self.lane.claims.retain(|p| *p != partition);
        for job in self.lane.jobs_mut().filter(|job| job.partition == partition) {
            job.wanted = false;
        }
        if let Some((Work::Claim(p, wanted), _)) = &mut self.lane.working
            && *p == partition
        {
            *wanted = false;
        }
        *self.consumer(partition) = Consumer::Idle;
    }

    /// The partition was taken away.
    pub fn revoked(&mut self, partition: Partition) {
        self.forget(partition);
    }

    /// A fresh consumer claims the partition.
    pub fn claim(&mut self, partition: Partition) {
        self.forget(partition);
        *self.consumer(partition) = Consumer::Claiming;
        self.lane.claims.push_back(partition);
    }

    /// The consumer reads `rows` records and hands them on.
    pub fn read(&mut self, partition: Partition, rows: i64) {
        if let Consumer::Reading(_, outbox) = self.consumer(partition) {
            for _ in 0..rows {
                outbox.push(Row(outbox.expected()));
            }
        }
    }

    /// The record that waits for its burial.
    pub fn poison(&self, partition: Partition) -> Option<Row> {
        match &self.consumers[usize::from(partition)] {
            Consumer::Reading(_, outbox) => outbox.poison().copied(),
            _ => None,
        }
    }

    /// That record is buried.
    pub fn step_over(&mut self, partition: Partition) {
        if let Consumer::Reading(_, outbox) = self.consumer(partition) {
            outbox.step_over_poison();
        }
    }

    /// The writer ends and is started again. Who waits for it claims again; the others do not notice.
    pub fn crash_lane(&mut self) {
        let mut waiting: Vec<Partition> = self.lane.claims.iter().copied().collect();
        waiting.extend(self.lane.jobs_mut().filter(|job| job.wanted).map(|job| job.partition));
        waiting.extend(match &self.lane.working {
            Some((Work::Claim(p, true), _)) => Some(*p),
            _ => None,
        });
        waiting.sort_unstable();
        waiting.dedup();
        self.lane = Lane::new(self.lane.claims_made);
        for partition in waiting {
            self.claim(partition);
        }
    }

    /// The statement under way has failed without an effect, or the connection is lost and nobody knows.
    pub fn failed(&mut self, connection_lost: bool, mutant: Option<Mutant>) {
        let Some((work, _)) = self.lane.working.take() else {
            return;
        };
        if connection_lost {
            self.lane.connected = false;
            self.lane.inside_transaction = false;
        }
        match work {
            Work::Claim(partition, wanted) => {
                if wanted {
                    self.lane.claims.push_front(partition);
                }
            }
            Work::Reconnect(_) => self.lane.connected = false,
            Work::Write(jobs) if connection_lost && mutant == Some(Mutant::AssumeCommitted) => {
                for job in jobs {
                    self.lane.holdings.moved(&job.partition, job.batch.next);
                    self.answer(job, Outcome::Committed);
                }
            }
            Work::Write(jobs) if connection_lost && mutant == Some(Mutant::BuryOnOutage) => self.refused(jobs),
            Work::Write(jobs) | Work::Confirm(_, jobs) => {
                if !connection_lost && mutant == Some(Mutant::InsideTransaction) {
                    self.lane.inside_transaction = true;
                }
                self.lane.give_back(jobs);
            }
        }
    }

    /// The answer of the statement under way has arrived.
    pub fn answered(&mut self) {
        let Some((work, statement)) = self.lane.working.take() else {
            return;
        };
        let Stage::Done(answer) = statement.stage else { return };
        match (work, answer) {
            (Work::Claim(partition, wanted), Answer::Claimed(row)) => {
                let claim = self.lane.claims_made;
                self.lane.claims_made += 1;
                let hold = Hold {
                    claim,
                    epoch: row.epoch,
                    next: row.next,
                };
                self.lane.holdings.held.insert(partition, hold);
                if wanted {
                    *self.consumer(partition) = Consumer::Reading(claim, Outbox::new(row.next, LIMITS));
                }
            }
            (Work::Reconnect(asked), Answer::Reclaimed(ours)) => {
                self.reclaimed(&asked, &ours);
                self.lane.connected = true;
            }
            (Work::Write(jobs), Answer::Passed(passed)) => {
                let merged = self.lane.holdings.merge(&jobs);
                for part in merged.iter().filter(|part| passed.contains(&part.id)) {
                    self.lane.holdings.moved(&part.id, part.next);
                }
                let (done, rest): (Vec<Job>, Vec<Job>) =
                    jobs.into_iter().partition(|job| passed.contains(&job.partition));
                for job in done {
                    self.answer(job, Outcome::Committed);
                }
                if !rest.is_empty() {
                    let out = merged.iter().filter(|part| !passed.contains(&part.id));
                    let asked: Vec<_> = out.map(|part| (part.id, part.epoch)).collect();
                    self.lane.begin(Work::Confirm(asked.clone(), rest), Sql::Reclaim(asked));
                }
            }
            (Work::Write(jobs), Answer::Refused) => self.refused(jobs),
            (Work::Confirm(asked, jobs), Answer::Reclaimed(ours)) => {
                self.reclaimed(&asked, &ours);
                self.lane.give_back(jobs);
            }
            (work, answer) => unreachable!("{work:?} is not answered by {answer:?}"),
        }
    }

    fn reclaimed(&mut self, asked: &[(Partition, i64)], ours: &[(Partition, OffsetRow)]) {
        for (partition, _) in asked {
            let found = ours
                .iter()
                .find(|(p, _)| p == partition)
                .map(|(_, row)| (row.epoch, row.next));
            self.lane.holdings.reclaimed(partition, found);
        }
    }

    fn refused(&mut self, jobs: Vec<Job>) {
        if jobs.len() == 1 {
            for job in jobs {
                self.answer(job, Outcome::Rejected);
            }
        } else {
            self.lane.alone = jobs.into();
        }
    }

    fn answer(&mut self, job: Job, outcome: Outcome) {
        let Job {
            partition,
            claim,
            batch,
            wanted,
        } = job;
        if !wanted {
            return;
        }
        let Consumer::Reading(current, outbox) = self.consumer(partition) else {
            return;
        };
        debug_assert_eq!(*current, claim, "a wanted batch is its consumer's");
        match outcome {
            Outcome::Committed => {
                outbox.committed();
            }
            Outcome::Rejected => outbox.rejected(batch),
            Outcome::OutOfStep => outbox.out_of_step(batch),
            Outcome::Fenced => {
                self.forget(partition);
                *self.consumer(partition) = Consumer::Fenced;
            }
        }
    }

    /// Does all that needs no answer from anybody: consumers hand on their batches, the writer begins its next statement.
    pub fn settle(&mut self) -> Result<(), Spins> {
        for _ in 0..SPIN {
            let moved = self.hand_on();
            if !(self.work() || moved) {
                return Ok(());
            }
        }
        Err(Spins)
    }

    fn hand_on(&mut self) -> bool {
        let mut moved = false;
        for (partition, consumer) in (0..).zip(&mut self.consumers) {
            if let Consumer::Reading(claim, outbox) = consumer {
                while let Some(batch) = outbox.next_batch() {
                    moved = true;
                    self.lane.waiting.push_back(Job {
                        partition,
                        claim: *claim,
                        batch,
                        wanted: true,
                    });
                }
            }
        }
        moved
    }

    /// One step of the writer; `false` if it waits, for work or for an answer.
    fn work(&mut self) -> bool {
        let lane = &mut self.lane;
        if lane.working.is_some() || (lane.claims.is_empty() && lane.waiting.is_empty() && lane.alone.is_empty()) {
            return false;
        }
        if !lane.connected {
            let held: Vec<_> = lane.holdings.held.iter().map(|(p, hold)| (*p, hold.epoch)).collect();
            if held.is_empty() {
                lane.connected = true;
            } else {
                lane.begin(Work::Reconnect(held.clone()), Sql::Reclaim(held));
            }
        } else if let Some(job) = lane.alone.pop_front() {
            if lane.holdings.is_in_step(&job) {
                lane.write(vec![job]);
            } else {
                self.answer(job, Outcome::OutOfStep);
            }
        } else if let Some(partition) = lane.claims.pop_front() {
            lane.begin(Work::Claim(partition, true), Sql::Claim(partition));
        } else {
            self.choose();
        }
        true
    }

    fn choose(&mut self) {
        let waiting = std::mem::take(&mut self.lane.waiting);
        let first_claim = self.lane.holdings.first_claim;
        let unanswered = waiting.iter().filter(|job| job.wanted && job.claim < first_claim);
        let unanswered: Vec<Partition> = unanswered.map(|job| job.partition).collect();
        let choice = self.lane.holdings.choose(waiting, usize::MAX);
        self.lane.waiting = choice.left;
        if !choice.chosen.is_empty() {
            self.lane.write(choice.chosen);
        }
        for (job, verdict) in choice.answered {
            let outcome = match verdict {
                Verdict::Committed => Outcome::Committed,
                Verdict::OutOfStep => Outcome::OutOfStep,
                Verdict::Fenced => Outcome::Fenced,
            };
            self.answer(job, outcome);
        }
        for partition in unanswered {
            self.claim(partition);
        }
    }

    /// Numbers its claims from 0 in their order: only that matters.
    pub fn renumber_claims(&mut self) {
        let lane = &self.lane;
        let mut known: Vec<u64> = lane.holdings.held.values().map(|hold| hold.claim).collect();
        known.push(lane.holdings.first_claim);
        known.push(lane.claims_made);
        known.extend(self.consumers.iter().filter_map(|consumer| match consumer {
            Consumer::Reading(claim, _) => Some(*claim),
            _ => None,
        }));
        known.extend(self.lane.jobs_mut().map(|job| job.claim));
        known.sort_unstable();
        known.dedup();
        let rank = |claim: &mut u64| *claim = known.partition_point(|other| other < claim) as u64;
        self.lane
            .holdings
            .held
            .values_mut()
            .for_each(|hold| rank(&mut hold.claim));
        rank(&mut self.lane.holdings.first_claim);
        rank(&mut self.lane.claims_made);
        for consumer in &mut self.consumers {
            if let Consumer::Reading(claim, _) = consumer {
                rank(claim);
            }
        }
        self.lane.jobs_mut().for_each(|job| rank(&mut job.claim));
    }

    /// Every place where it keeps an epoch of a partition, but for its statement.
    pub fn epochs_mut(&mut self) -> impl Iterator<Item = (Partition, &mut i64)> {
        let asked = match &mut self.lane.working {
            Some((Work::Reconnect(asked) | Work::Confirm(asked, _), _)) => asked.as_mut_slice(),
            _ => &mut [],
        };
        let held = self
            .lane
            .holdings
            .held
            .iter_mut()
            .map(|(p, hold)| (*p, &mut hold.epoch));
        held.chain(asked.iter_mut().map(|(p, epoch)| (*p, epoch)))
    }
}

/// As the product's, but that three rows make a batch full: so one of two can be refused with another one behind it.
const LIMITS: BatchLimits = BatchLimits {
    rows: 3,
    bytes: usize::MAX,
    in_flight: 2,
};
