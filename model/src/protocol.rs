//! The protocol as a model: every step that can come next, what it does, and what must hold after each.

use std::sync::Arc;

use hookmill_actors::batch::Outbox;
use stateright::{Model, Property};

use crate::instance::{Consumer, Instance};
use crate::mutant::Mutant;
use crate::promises::{NO_LOSS, NO_SPIN, ONCE_IN_ORDER, ONLY_POISON, PROGRESS, TRUTH};
use crate::reached::Reached;
use crate::shard::{Answer, Partition, Record, Row, Shard, Sql, Stage, Statement};
use crate::state::{Process, State, Step};

/// What is checked, and its bounds.
#[derive(Clone)]
pub struct Protocol {
    /// Processes.
    pub instances: usize,
    /// Each partition's records.
    pub records: Vec<Vec<Record>>,
    /// Faults in one history.
    pub faults: u8,
    /// One thing that is wrong.
    pub mutant: Option<Mutant>,
    /// Whether states that differ only in the names of the processes count as one. Histories are then hard to read.
    pub nameless: bool,
    /// Whether a write's locks and its commit are two steps. Only a claim that does not wait could tell.
    pub locks: bool,
    /// States from which everything is known to get written.
    pub recovers: Arc<Reached>,
}

impl Protocol {
    /// Three processes and two partitions, one of them with a record that Postgres refuses.
    pub fn new(records: Vec<Vec<Record>>, faults: u8) -> Self {
        Self {
            instances: 3,
            records,
            faults,
            mutant: None,
            nameless: true,
            locks: false,
            recovers: Arc::default(),
        }
    }

    /// The same with one thing wrong. Processes keep their names, so that a history can be read.
    pub fn with(mut self, mutant: Mutant) -> Self {
        (self.mutant, self.nameless) = (Some(mutant), false);
        self.locks = mutant == Mutant::PlainSelect;
        self
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        0..u8::try_from(self.records.len()).unwrap_or(u8::MAX)
    }

    fn processes(&self) -> impl Iterator<Item = Process> + use<> {
        0..u8::try_from(self.instances).unwrap_or(u8::MAX)
    }

    fn len(&self, partition: Partition) -> i64 {
        i64::try_from(self.records[usize::from(partition)].len()).unwrap_or(i64::MAX)
    }

    fn is_poison(&self, partition: Partition, offset: i64) -> bool {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        self.records[usize::from(partition)].get(at) == Some(&Record::Poison)
    }

    /// How many more records a consumer could read and hand on now.
    fn readable(&self, partition: Partition, outbox: &Outbox<Row>) -> i64 {
        let mut outbox = outbox.clone();
        let mut rows = 0;
        while outbox.has_room() && outbox.expected() < self.len(partition) {
            outbox.push(Row(outbox.expected()));
            rows += 1;
        }
        // What cannot be handed on is as well read later.
        if outbox.next_batch().is_some() { rows } else { 0 }
    }

    pub(crate) fn ordinary_steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (i, instance) in (0..).zip(&state.instances) {
            if let Some((_, statement)) = &instance.lane.working {
                if statement.is_done() {
                    steps.push(Step::Answer(i));
                } else {
                    steps.push(Step::Run(i));
                }
            }
            if !instance.graves.is_empty() {
                steps.push(Step::BuryLate(i));
            }
            for (p, consumer) in (0..).zip(&instance.consumers) {
                match consumer {
                    Consumer::Idle => {}
                    _ if state.owners[usize::from(p)] != Some(i) => steps.push(Step::Hear(i, p)),
                    Consumer::Claiming | Consumer::Reading(..) | Consumer::Fenced => {}
                }
                match consumer {
                    Consumer::Idle if state.owners[usize::from(p)].is_none() => steps.push(Step::Assign(p, i)),
                    Consumer::Idle | Consumer::Claiming => {}
                    Consumer::Fenced if state.owners[usize::from(p)] == Some(i) => steps.push(Step::ClaimAgain(i, p)),
                    Consumer::Fenced => {}
                    Consumer::Reading(_, outbox) => {
                        if outbox.poison().is_some() {
                            steps.push(Step::Bury(i, p));
                        }
                        steps.extend((1..=self.readable(p, outbox)).rev().map(|rows| Step::Read(i, p, rows)));
                    }
                }
            }
        }
        steps.extend((0..state.orphans.len()).map(Step::RunOrphan));
    }

    fn faults(&self, state: &State, steps: &mut Vec<Step>) {
        if state.faults == 0 {
            return;
        }
        for p in self.partitions().filter(|p| state.owners[usize::from(*p)].is_some()) {
            steps.push(Step::Evict(p));
        }
        for (i, instance) in (0..).zip(&state.instances) {
            if *instance != Instance::new(self.records.len()) {
                steps.push(Step::Kill(i));
            }
            if !instance.lane.holdings.held.is_empty() || instance.lane.working.is_some() {
                steps.push(Step::CrashWriter(i));
            }
            for (p, consumer) in (0..).zip(&instance.consumers) {
                match consumer {
                    Consumer::Reading(..) => steps.push(Step::CrashConsumer(i, p)),
                    Consumer::Fenced if state.owners[usize::from(p)] != Some(i) => steps.push(Step::ClaimUnheard(i, p)),
                    Consumer::Idle | Consumer::Claiming | Consumer::Fenced => {}
                }
            }
            if let Some((_, statement)) = &instance.lane.working {
                steps.push(Step::Break(i));
                if !statement.is_done() {
                    steps.push(Step::GiveUp(i));
                }
            }
        }
    }

    /// What `step` makes of `state`; `None` where it would change nothing.
    pub(crate) fn after(&self, state: &State, step: &Step) -> Option<State> {
        let mut next = state.clone();
        if step.is_fault() {
            next.faults -= 1;
        }
        match *step {
            Step::Assign(p, i) => {
                next.owners[usize::from(p)] = Some(i);
                next.instance(i).claim(p);
                next.settle(i);
            }
            Step::Hear(i, p) => {
                next.instance(i).revoked(p);
                next.settle(i);
            }
            Step::Read(i, p, rows) => {
                next.instance(i).read(p, rows);
                next.settle(i);
            }
            Step::Run(i) => {
                let (work, mut statement) = next.instance(i).lane.working.take()?;
                let State {
                    shard,
                    instances,
                    orphans,
                    ..
                } = &mut next;
                let lost = instances[usize::from(i)].lane.inside_transaction;
                if let (true, Sql::Write(parts)) = (lost, &statement.sql) {
                    let all = parts.iter().map(|part| part.partition).collect();
                    statement.stage = Stage::Done(Answer::Passed(all));
                } else {
                    let under_way = instances.iter().filter_map(|other| other.lane.working.as_ref());
                    let others: Vec<&Statement> = under_way.map(|(_, s)| s).chain(orphans.iter()).collect();
                    self.run(shard, &mut statement, &others)?;
                }
                next.instance(i).lane.working = Some((work, statement));
            }
            Step::Answer(i) => {
                next.instance(i).answered();
                next.settle(i);
            }
            Step::RunOrphan(at) => {
                let mut statement = next.orphans.remove(at);
                let State {
                    shard,
                    instances,
                    orphans,
                    ..
                } = &mut next;
                let under_way = instances.iter().filter_map(|other| other.lane.working.as_ref());
                let others: Vec<&Statement> = under_way.map(|(_, s)| s).chain(orphans.iter()).collect();
                self.run(shard, &mut statement, &others)?;
                next.orphan(statement);
            }
            Step::Bury(i, p) => {
                let row = next.instance(i).poison(p)?;
                if self.mutant == Some(Mutant::StepBeforeBuried) {
                    next.instance(i).graves.push((p, row.0));
                } else {
                    next.bury(p, row.0);
                }
                next.instance(i).step_over(p);
                next.settle(i);
            }
            Step::BuryLate(i) => {
                let (p, offset) = next.instance(i).graves.pop()?;
                next.bury(p, offset);
            }
            Step::ClaimAgain(i, p) | Step::ClaimUnheard(i, p) => {
                next.instance(i).claim(p);
                next.settle(i);
            }
            Step::Evict(p) => next.owners[usize::from(p)] = None,
            Step::Kill(i) => {
                if let Some((_, statement)) = next.instance(i).lane.working.take() {
                    next.orphan(statement);
                }
                *next.instance(i) = Instance::new(self.records.len());
                for owner in next.owners.iter_mut().filter(|owner| **owner == Some(i)) {
                    *owner = None;
                }
            }
            Step::CrashWriter(i) => {
                let working = next.instance(i).lane.working.clone();
                next.instance(i).crash_lane();
                if let Some((_, statement)) = working {
                    next.orphan(statement);
                }
                next.settle(i);
            }
            Step::CrashConsumer(i, p) => {
                next.instance(i).claim(p);
                next.settle(i);
            }
            Step::Break(i) => {
                let statement = next.instance(i).lane.working.as_ref()?.1.clone();
                next.orphan(statement);
                next.instance(i).failed(true, self.mutant);
                next.settle(i);
            }
            Step::GiveUp(i) => {
                next.instance(i).failed(false, self.mutant);
                next.settle(i);
            }
        }
        self.simplify(&mut next);
        Some(next)
    }

    /// Takes a statement one stage further; where nobody can see it between its lock and its commit, over both.
    fn run(&self, shard: &mut Shard, statement: &mut Statement, others: &[&Statement]) -> Option<()> {
        shard
            .advance(statement, others, &self.records, self.mutant)
            .then_some(())?;
        if !self.locks && matches!(statement.stage, Stage::Running(_)) {
            shard.advance(statement, others, &self.records, self.mutant);
        }
        Some(())
    }

    /// Whether everything is written or buried.
    pub(crate) fn is_done(&self, state: &State) -> bool {
        self.partitions().all(|p| state.shard.row(p).next == self.len(p))
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let partitions = self.records.len();
        vec![State {
            shard: Shard::new(partitions),
            dead: vec![Vec::new(); partitions],
            owners: vec![None; partitions],
            instances: self.processes().map(|_| Instance::new(partitions)).collect(),
            orphans: Vec::new(),
            faults: self.faults,
            spins: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        // Nothing needs to be known about what comes after that.
        if !state.spins {
            self.ordinary_steps(state, steps);
            self.faults(state, steps);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        self.after(state, &step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_LOSS, |model: &Self, state: &State| {
                model.partitions().all(|p| {
                    let at = usize::from(p);
                    (0..state.shard.row(p).next).all(|offset| {
                        let (written, dead) = (&state.shard.written[at], &state.dead[at]);
                        written.contains(&offset) || (model.is_poison(p, offset) && dead.contains(&offset))
                    })
                })
            }),
            Property::always(ONCE_IN_ORDER, |_, state: &State| {
                state.shard.written.iter().all(|rows| rows.is_sorted_by(|a, b| a < b))
            }),
            Property::always(ONLY_POISON, |model: &Self, state: &State| {
                let buried = |p: Partition| {
                    state.dead[usize::from(p)]
                        .iter()
                        .all(|offset| model.is_poison(p, *offset))
                };
                model.partitions().all(buried)
            }),
            Property::always(TRUTH, |_, state: &State| {
                let believes = state.instances.iter().flat_map(|instance| &instance.lane.holdings.held);
                believes
                    .into_iter()
                    .all(|(p, hold)| hold.next <= state.shard.row(*p).next)
            }),
            Property::always(NO_SPIN, |_, state: &State| !state.spins),
            Property::always(PROGRESS, |model: &Self, state: &State| {
                state.spins || model.recovers(state)
            }),
            Property::sometimes("everything is written", |model: &Self, state: &State| {
                model.is_done(state)
            }),
            Property::sometimes("a zombie is fenced", |_, state: &State| {
                let zombie = |i: usize, p: usize| state.owners[p].is_some_and(|owner| usize::from(owner) != i);
                let fenced = |(i, instance): (usize, &Instance)| {
                    (0..)
                        .zip(&instance.consumers)
                        .any(|(p, c)| *c == Consumer::Fenced && zombie(i, p))
                };
                state.instances.iter().enumerate().any(fenced)
            }),
            Property::sometimes(
                "a statement without a connection has been committed",
                |_, state: &State| {
                    state.instances.iter().any(|instance| {
                        let held = &instance.lane.holdings.held;
                        held.iter().any(|(p, hold)| {
                            hold.next < state.shard.row(*p).next && hold.epoch == state.shard.row(*p).epoch
                        }) && instance
                            .lane
                            .working
                            .as_ref()
                            .is_none_or(|(_, s)| matches!(s.sql, Sql::Reclaim(_)))
                    })
                },
            ),
            Property::sometimes("a bad record is buried", |_, state: &State| {
                state.dead.iter().any(|dead| !dead.is_empty())
            }),
        ]
    }
}
