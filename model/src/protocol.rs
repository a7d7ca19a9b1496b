//! The protocol as a model: its state, every step that can come next, and what must hold after each.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use hookmill_actors::batch::Outbox;
use stateright::{Model, Property};

use crate::instance::{Consumer, Instance, Spins};
use crate::mutant::Mutant;
use crate::reached::Reached;
use crate::shard::{Answer, Partition, Record, Row, Shard, Sql, Stage, Statement};

/// A process, by its place.
pub type Process = u8;

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

/// All that there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The shard.
    pub shard: Shard,
    /// For each partition the offsets that are on its dead-letter topic.
    pub dead: Vec<Vec<i64>>,
    /// Whose each partition is, by the group's coordinator.
    pub owners: Vec<Option<Process>>,
    /// The processes. One that is frozen is one that takes no step for a while: nothing of its own need be said.
    pub instances: Vec<Instance>,
    /// Statements whose connection is gone. They may run at any later time, or never.
    pub orphans: Vec<Statement>,
    /// Faults that may still happen.
    pub faults: u8,
    /// A process runs in a circle.
    pub spins: bool,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The group gives a partition to a process, which starts to claim it.
    Assign(Partition, Process),
    /// A process hears that a partition is not its any more, and stops its consumer.
    Hear(Process, Partition),
    /// A consumer reads so many records and hands them to its writer.
    Read(Process, Partition, i64),
    /// The shard takes a process's statement one stage further: it locks and decides, then commits.
    Run(Process),
    /// The answer arrives.
    Answer(Process),
    /// The shard takes a statement whose connection is gone one stage further.
    RunOrphan(usize),
    /// Kafka acknowledges the dead letter that a consumer waits for.
    Bury(Process, Partition),
    /// A fenced consumer whose partition is still its process's claims again.
    ClaimAgain(Process, Partition),
    /// Mutants: Kafka acknowledges a dead letter that nobody waits for.
    BuryLate(Process),
    /// Fault: the group takes a partition from a process that does not answer (frozen, or cut off); it will hear of it later.
    Evict(Partition),
    /// Fault: a fenced consumer claims again before its process has heard that the partition is not its any more.
    ClaimUnheard(Process, Partition),
    /// Fault: a process is killed, and started again.
    Kill(Process),
    /// Fault: a writer ends and is restarted by its supervisor.
    CrashWriter(Process),
    /// Fault: a consumer ends and is restarted by its supervisor.
    CrashConsumer(Process, Partition),
    /// Fault: a process's connection breaks; its statement may run later, or have run, or never run.
    Break(Process),
    /// Fault: the shard gives a statement up (time-out, deadlock, shutdown of its work) and says so.
    GiveUp(Process),
}

impl Step {
    /// Whether this is one of the counted faults.
    pub fn is_fault(&self) -> bool {
        match self {
            Step::Assign(..) | Step::Hear(..) | Step::Read(..) | Step::Run(_) | Step::Answer(_) => false,
            Step::RunOrphan(_) | Step::Bury(..) | Step::ClaimAgain(..) | Step::BuryLate(_) => false,
            Step::Evict(_) | Step::Kill(_) | Step::CrashWriter(_) | Step::CrashConsumer(..) => true,
            Step::ClaimUnheard(..) | Step::Break(_) | Step::GiveUp(_) => true,
        }
    }
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

    fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
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

    fn ordinary_steps(&self, state: &State, steps: &mut Vec<Step>) {
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
    fn after(&self, state: &State, step: &Step) -> Option<State> {
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

    /// Brings states that cannot be told apart to one form.
    fn simplify(&self, state: &mut State) {
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

    /// Whether everything is written or buried.
    fn is_done(&self, state: &State) -> bool {
        self.partitions().all(|p| state.shard.row(p).next == self.len(p))
    }

    /// Whether, without another fault, everything gets written from here on. Statements without a connection never run
    /// again here, but for those that hold locks; that they run is another step from this state, and so checked too.
    fn recovers(&self, state: &State) -> bool {
        let mut way = Vec::new();
        let mut here = state.clone();
        while !self.is_done(&here) && !self.recovers.contains(mark(&here)) {
            way.push(mark(&here));
            if way.len() > FAULTLESS_STEPS {
                return false;
            }
            let mut steps = Vec::new();
            self.ordinary_steps(&here, &mut steps);
            steps.sort_by_key(|step| calm_order(step, &here));
            let next = steps
                .iter()
                .filter(|step| calm_order(step, &here) < NEVER)
                .find_map(|step| self.after(&here, step));
            match next {
                Some(next) => here = next,
                None => return false,
            }
        }
        self.recovers.extend(way);
        true
    }
}

/// Steps without a fault within which everything must be written; what it takes is about 40.
const FAULTLESS_STEPS: usize = 200;

const NEVER: u8 = u8::MAX;

/// In which order things happen when nothing is wrong: news of the group first, then what is under way, then new work.
fn calm_order(step: &Step, state: &State) -> u8 {
    match step {
        Step::Hear(..) => 0,
        Step::RunOrphan(at) => match state.orphans[*at].stage {
            Stage::Running(_) => 1,
            _ => NEVER,
        },
        Step::BuryLate(_) => 2,
        Step::Answer(_) => 3,
        Step::Run(_) => 4,
        Step::Bury(..) => 5,
        Step::Assign(..) => 6,
        Step::ClaimAgain(..) => 7,
        Step::Read(..) => 8,
        _ => NEVER,
    }
}

fn mark(state: &State) -> u64 {
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

impl State {
    fn instance(&mut self, process: Process) -> &mut Instance {
        &mut self.instances[usize::from(process)]
    }

    fn settle(&mut self, process: Process) {
        if let Err(Spins) = self.instance(process).settle() {
            self.spins = true;
        }
    }

    fn orphan(&mut self, statement: Statement) {
        if !statement.is_done() {
            self.orphans.push(statement);
        }
    }

    fn bury(&mut self, partition: Partition, offset: i64) {
        let dead = &mut self.dead[usize::from(partition)];
        if !dead.contains(&offset) {
            dead.push(offset);
            dead.sort_unstable();
        }
    }

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

/// Names of what must hold.
pub mod promises {
    /// What is before the offset is in the tables, or bad and among the dead letters.
    pub const NO_LOSS: &str = "nothing is lost";
    /// Rows are inserted once, and in the order of their offsets.
    pub const ONCE_IN_ORDER: &str = "nothing is repeated or reordered";
    /// No good record is among the dead letters.
    pub const ONLY_POISON: &str = "only bad records are buried";
    /// What a writer has been told, or concludes, is so.
    pub const TRUTH: &str = "what a writer takes for written is written";
    /// Nobody runs in a circle.
    pub const NO_SPIN: &str = "nobody runs in a circle";
    /// When faults stop, everything gets written.
    pub const PROGRESS: &str = "everything gets written when faults stop";
}
use promises::*;

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
