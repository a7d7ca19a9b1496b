//! All that there is at one moment, and what can happen next.

use crate::instance::{Instance, Spins};
use crate::shard::{Partition, Shard, Statement};

/// A process, by its place.
pub type Process = u8;

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

impl State {
    pub(crate) fn instance(&mut self, process: Process) -> &mut Instance {
        &mut self.instances[usize::from(process)]
    }

    pub(crate) fn settle(&mut self, process: Process) {
        if let Err(Spins) = self.instance(process).settle() {
            self.spins = true;
        }
    }

    pub(crate) fn orphan(&mut self, statement: Statement) {
        if !statement.is_done() {
            self.orphans.push(statement);
        }
    }

    pub(crate) fn bury(&mut self, partition: Partition, offset: i64) {
        let dead = &mut self.dead[usize::from(partition)];
        if !dead.contains(&offset) {
            dead.push(offset);
            dead.sort_unstable();
        }
    }
}
