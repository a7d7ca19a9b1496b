//! States that cannot be told apart are brought to one form: there are far fewer of them then.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::instance::Instance;
use crate::protocol::Protocol;
use crate::shard::{Answer, Partition, Sql, Stage, Statement};
use crate::state::{Process, State};

impl Protocol {
    /// Brings states that cannot be told apart to one form.
    pub(crate) fn simplify(&self, state: &mut State) {
        state.orphans.sort_unstable();
        for p in self.partitions() {
            state.forget_old_epochs(p);
        }
        state.instances.iter_mut().for_each(Instance::renumber_claims);
        if self.nameless {
            let mut order: Vec<usize> = (0..state.instances.len()).collect();
            let rank = |i: &usize| {
                let owned: Vec<bool> = state
                    .owners
                    .iter()
                    .map(|o| o.is_some_and(|o| usize::from(o) == *i))
                    .collect();
                (&state.instances[*i], owned)
            };
            order.sort_by(|a, b| rank(a).cmp(&rank(b)));
            let place = |i: Process| {
                order
                    .iter()
                    .position(|o| *o == usize::from(i))
                    .and_then(|at| u8::try_from(at).ok())
            };
            for owner in &mut state.owners {
                *owner = owner.and_then(place);
            }
            state.instances = order.iter().map(|i| state.instances[*i].clone()).collect();
        }
    }
}

impl State {
    /// An epoch is only ever compared with the row's, which never comes back to an old one: the row's becomes 1, every
    /// older one 0.
    fn forget_old_epochs(&mut self, partition: Partition) {
        let current = self.shard.row(partition).epoch;
        let age = |epoch: &mut i64| *epoch = i64::from(*epoch == current && current > 0);
        for instance in &mut self.instances {
            instance
                .epochs_mut()
                .filter(|(p, _)| *p == partition)
                .for_each(|(_, epoch)| age(epoch));
            if let Some((_, statement)) = &mut instance.lane.working {
                epochs_of(statement)
                    .into_iter()
                    .filter(|(p, _)| *p == partition)
                    .for_each(|(_, epoch)| age(epoch));
                if let (Sql::Claim(p), Stage::Done(Answer::Claimed(row))) = (&statement.sql, &mut statement.stage)
                    && *p == partition
                {
                    age(&mut row.epoch);
                }
            }
        }
        for statement in &mut self.orphans {
            epochs_of(statement)
                .into_iter()
                .filter(|(p, _)| *p == partition)
                .for_each(|(_, epoch)| age(epoch));
        }
        age(&mut self.shard.offsets[usize::from(partition)].epoch);
    }
}

/// The epochs that a statement carries or answers with, but for a claim's.
fn epochs_of(statement: &mut Statement) -> Vec<(Partition, &mut i64)> {
    let Statement { sql, stage } = statement;
    let mut epochs: Vec<(Partition, &mut i64)> = match sql {
        Sql::Claim(_) => Vec::new(),
        Sql::Reclaim(held) => held.iter_mut().map(|(p, epoch)| (*p, epoch)).collect(),
        Sql::Write(parts) => parts.iter_mut().map(|part| (part.partition, &mut part.epoch)).collect(),
    };
    if let Stage::Done(Answer::Reclaimed(ours)) = stage {
        epochs.extend(ours.iter_mut().map(|(p, row)| (*p, &mut row.epoch)));
    }
    epochs
}

/// Names a state, whatever may still come.
pub(crate) fn mark(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    // How many faults may still come does not matter where none does.
    (
        &state.shard,
        &state.dead,
        &state.owners,
        &state.instances,
        &state.orphans,
    )
        .hash(&mut hasher);
    hasher.finish()
}
