//! What a lane has claimed, as a pure value: which of the waiting batches make the next statement, what is answered
//! without one, and what an answer of the shard changes. The protocol's model runs this very code.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One claimed partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hold {
    /// Names the claim; a batch under another one is not written.
    pub claim: u64,
    /// The epoch that the claim, or the reclaim after it, has set.
    pub epoch: i64,
    /// Where the offset row stands, as far as the lane has heard.
    pub next: i64,
}

/// A batch that waits to be written, as far as choosing it goes.
pub trait Waiting<P> {
    /// Its partition.
    fn id(&self) -> &P;
    /// The claim under which its records were read.
    fn claim(&self) -> u64;
    /// Where the offset row must stand.
    fn from(&self) -> i64;
    /// Where it stands afterwards.
    fn next(&self) -> i64;
    /// How many rows it has.
    fn rows(&self) -> usize;
    /// Whether anybody still waits for its outcome.
    fn is_wanted(&self) -> bool;
    /// Whether both can be in one statement.
    fn goes_with(&self, other: &Self) -> bool;
}

/// An outcome that takes no statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its statement was committed, and the answer lost with the connection.
    Committed,
    /// A batch of its partition before it was refused.
    OutOfStep,
    /// Its claim is not held any more.
    Fenced,
}

/// What to do with the batches that wait.
#[derive(Debug)]
pub struct Choice<W> {
    /// For one statement, in order.
    pub chosen: Vec<W>,
    /// To be answered now.
    pub answered: Vec<(W, Verdict)>,
    /// For later, in order.
    pub left: VecDeque<W>,
}

/// What one partition contributes to a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged<P> {
    /// Which partition.
    pub id: P,
    /// Where its offset row must stand.
    pub from: i64,
    /// Where it stands afterwards.
    pub next: i64,
    /// The epoch under which it is held.
    pub epoch: i64,
    /// Its batches, by their places among the chosen.
    pub batches: Vec<usize>,
}

/// The partitions that a lane has claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holdings<P: Ord> {
    /// Each with its claim.
    pub held: BTreeMap<P, Hold>,
    /// Claims with a lower number were made by a writer that has ended.
    pub first_claim: u64,
}

impl<P: Ord + Clone> Holdings<P> {
    /// Holds nothing; claims below `first_claim` are its predecessor's.
    pub fn new(first_claim: u64) -> Self {
        Self {
            held: BTreeMap::new(),
            first_claim,
        }
    }

    /// Takes the batches for one statement: those that go with the first one, in order, up to `max_rows`. Batches that
    /// cannot be written any more are answered; whose sender has gone, or waits for a former writer, is dropped: without
    /// an answer its consumer claims again.
    pub fn choose<W: Waiting<P>>(&self, waiting: VecDeque<W>, max_rows: usize) -> Choice<W> {
        let mut choice = Choice {
            chosen: Vec::new(),
            answered: Vec::new(),
            left: VecDeque::new(),
        };
        let mut rows = 0;
        let mut expected: BTreeMap<P, i64> = BTreeMap::new();
        let mut postponed: BTreeSet<P> = BTreeSet::new();
        for batch in waiting {
            if !batch.is_wanted() || batch.claim() < self.first_claim {
                continue;
            }
            let held = match self.held.get(batch.id()) {
                Some(held) if held.claim == batch.claim() => held,
                _ => {
                    choice.answered.push((batch, Verdict::Fenced));
                    continue;
                }
            };
            if postponed.contains(batch.id()) {
                choice.left.push_back(batch);
                continue;
            }
            let stands = expected.get(batch.id()).copied().unwrap_or(held.next);
            if batch.next() <= stands {
                choice.answered.push((batch, Verdict::Committed));
                continue;
            }
            let apart = choice.chosen.first().is_some_and(|first| !first.goes_with(&batch));
            let full = !choice.chosen.is_empty() && rows + batch.rows() > max_rows;
            if apart || full {
                postponed.insert(batch.id().clone());
                choice.left.push_back(batch);
            } else if batch.from() != stands {
                choice.answered.push((batch, Verdict::OutOfStep));
            } else {
                rows += batch.rows();
                expected.insert(batch.id().clone(), batch.next());
                choice.chosen.push(batch);
            }
        }
        choice
    }

    /// One part for each partition: consecutive batches of one are one part.
    pub fn merge<W: Waiting<P>>(&self, chosen: &[W]) -> Vec<Merged<P>> {
        let mut parts: Vec<Merged<P>> = Vec::with_capacity(chosen.len());
        for (place, batch) in chosen.iter().enumerate() {
            if let Some(part) = parts.iter_mut().find(|part| part.id == *batch.id()) {
                part.next = batch.next();
                part.batches.push(place);
            } else if let Some(held) = self.held.get(batch.id()) {
                parts.push(Merged {
                    id: batch.id().clone(),
                    from: batch.from(),
                    next: batch.next(),
                    epoch: held.epoch,
                    batches: vec![place],
                });
            }
        }
        parts
    }

    /// Whether a batch begins where its partition stands.
    pub fn is_in_step<W: Waiting<P>>(&self, batch: &W) -> bool {
        self.held.get(batch.id()).is_some_and(|held| held.next == batch.from())
    }

    /// A statement has moved a partition's offset.
    pub fn moved(&mut self, id: &P, next: i64) {
        if let Some(held) = self.held.get_mut(id) {
            held.next = next;
        }
    }

    /// What a reclaim has found: the partition's new epoch and true offset, or that somebody else has claimed it.
    pub fn reclaimed(&mut self, id: &P, found: Option<(i64, i64)>) {
        match found {
            None => {
                self.held.remove(id);
            }
            Some((epoch, next)) => {
                if let Some(held) = self.held.get_mut(id) {
                    (held.epoch, held.next) = (epoch, next);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Job(&'static str, u64, i64, i64);

    impl Waiting<&'static str> for Job {
        fn id(&self) -> &&'static str {
            &self.0
        }
        fn claim(&self) -> u64 {
            self.1
        }
        fn from(&self) -> i64 {
            self.2
        }
        fn next(&self) -> i64 {
            self.3
        }
        fn rows(&self) -> usize {
            usize::try_from(self.3 - self.2).expect("few")
        }
        fn is_wanted(&self) -> bool {
            self.1 != UNWANTED
        }
        fn goes_with(&self, other: &Self) -> bool {
            self.0.starts_with('d') == other.0.starts_with('d')
        }
    }

    const UNWANTED: u64 = 99;

    fn holdings() -> Holdings<&'static str> {
        let hold = |claim, next| Hold { claim, epoch: 7, next };
        Holdings {
            held: BTreeMap::from([("o0", hold(5, 10)), ("o1", hold(6, 0)), ("d0", hold(7, 0))]),
            first_claim: 5,
        }
    }

    fn choose(jobs: &[Job], max_rows: usize) -> Choice<Job> {
        holdings().choose(jobs.iter().cloned().collect(), max_rows)
    }

    #[test]
    fn consecutive_batches_of_partitions_of_one_topic_make_one_statement() {
        let jobs = [
            Job("o0", 5, 10, 12),
            Job("o1", 6, 0, 1),
            Job("d0", 7, 0, 1),
            Job("o0", 5, 12, 13),
        ];
        let choice = choose(&jobs, 100);
        assert_eq!(choice.chosen, [jobs[0].clone(), jobs[1].clone(), jobs[3].clone()]);
        assert_eq!(choice.left, [jobs[2].clone()]);
        assert!(choice.answered.is_empty());
        let parts = holdings().merge(&choice.chosen);
        let spans: Vec<_> = parts.iter().map(|p| (p.id, p.from, p.next, p.epoch)).collect();
        assert_eq!(spans, [("o0", 10, 13, 7), ("o1", 0, 1, 7)]);
        assert_eq!((&parts[0].batches[..], &parts[1].batches[..]), (&[0, 2][..], &[1][..]));
    }

    #[test]
    fn a_full_statement_leaves_the_rest_in_order_and_one_batch_is_always_taken() {
        let jobs = [
            Job("o0", 5, 10, 19),
            Job("o0", 5, 19, 20),
            Job("o1", 6, 0, 9),
            Job("o0", 5, 20, 21),
        ];
        let choice = choose(&jobs, 9);
        assert_eq!(choice.chosen, [jobs[0].clone()]);
        assert_eq!(choice.left, [jobs[1].clone(), jobs[2].clone(), jobs[3].clone()]);
        assert_eq!(choose(&jobs[..1], 1).chosen.len(), 1);
        assert_eq!(choose(&jobs[..2], 10).chosen.len(), 2, "filled to the last row");
    }

    #[test]
    fn what_needs_no_statement_is_answered() {
        let verdict = |job: Job| choose(&[job], 100).answered.pop().map(|(_, verdict)| verdict);
        assert_eq!(verdict(Job("o0", 5, 8, 10)), Some(Verdict::Committed));
        assert_eq!(verdict(Job("o0", 5, 11, 12)), Some(Verdict::OutOfStep));
        // It overlaps what is written: it would be written in part.
        assert_eq!(verdict(Job("o0", 5, 9, 11)), Some(Verdict::OutOfStep));
        assert_eq!(verdict(Job("o0", 6, 10, 11)), Some(Verdict::Fenced));
        assert_eq!(verdict(Job("o2", 6, 0, 1)), Some(Verdict::Fenced));
    }

    #[test]
    fn whoever_waits_no_more_or_for_a_former_writer_gets_no_answer() {
        let choice = choose(&[Job("o0", UNWANTED, 10, 11), Job("o0", 4, 10, 11)], 100);
        assert!(choice.chosen.is_empty() && choice.answered.is_empty() && choice.left.is_empty());
    }

    #[test]
    fn a_reclaim_brings_the_truth_or_takes_the_partition_away() {
        let mut holdings = holdings();
        holdings.reclaimed(&"o0", Some((8, 12)));
        holdings.reclaimed(&"o1", None);
        let verdict = |job| holdings.choose(VecDeque::from([job]), 9).answered.pop().map(|(_, v)| v);
        assert_eq!(verdict(Job("o0", 5, 10, 12)), Some(Verdict::Committed));
        assert_eq!(verdict(Job("o1", 6, 0, 1)), Some(Verdict::Fenced));
        assert!(holdings.is_in_step(&Job("o0", 5, 12, 13)) && !holdings.is_in_step(&Job("o0", 5, 10, 13)));
        assert!(!holdings.is_in_step(&Job("o1", 6, 0, 1)));
        assert_eq!(holdings.merge(&[Job("o0", 5, 12, 13)])[0].epoch, 8);
        holdings.moved(&"o0", 13);
        assert!(holdings.is_in_step(&Job("o0", 5, 13, 14)));
    }
}
