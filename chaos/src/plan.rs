//! What will be done to whom: drawn from the seed before anything starts.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng, SeedableRng};

/// A kind of fault. The list with its weights is [`Kind::weight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// SIGKILL to an instance, which is then started again.
    KillInstance,
    /// SIGTERM to an instance, which is then started again.
    StopInstance,
    /// An instance stands still, for less than the group waits for it.
    FreezeInstance,
    /// An instance stands still until the others have its partitions, and wakes up.
    Zombie,
    /// An instance's wall clock jumps, ahead or back, and later back to the truth.
    ClockJump,
    /// Instances join and leave each second.
    RebalanceStorm,
    /// SIGKILL to a broker.
    KillBroker,
    /// SIGTERM to a broker.
    StopBroker,
    /// A broker stands still.
    FreezeBroker,
    /// SIGKILL to a shard's postmaster.
    KillShard,
    /// A shard is stopped in good order.
    StopShard,
    /// A shard is told to end at once (an "immediate" shutdown), and recovers when it starts.
    ImmediateShard,
    /// A shard with all its backends stands still.
    FreezeShard,
    /// A backend of a shard crashes, and the server with it.
    CrashBackend,
    /// A shard's file system is full.
    DiskFull,
    /// A shard has no connection slot left, and the connections there are are ended.
    NoSlots,
    /// Somebody holds a table of a shard in an exclusive lock.
    TableLock,
    /// Somebody holds row locks on the offsets of a shard.
    RowLocks,
    /// A transaction stays open for long, with a snapshot and a row of each table.
    LongTransaction,
    /// The schema is migrated, and a table altered, while it is written.
    Migration,
    /// The month's partition of an event table is detached.
    MissingPartition,
    /// Connections are dropped, and new ones too.
    Cut,
    /// Each piece arrives late.
    Delay,
    /// Connections stay open, and nothing passes until much later.
    BlackHole,
    /// The same one way only.
    OneWay,
    /// The servers' ends of connections vanish, and their clients are not told.
    HalfOpen,
    /// A topic of a deployment of its own is deleted and made again: its readers must halt, loudly.
    TopicRecreated,
    /// Records of a deployment of its own are deleted before they are written: its readers must halt, loudly.
    RecordsDeleted,
}

impl Kind {
    /// Every kind.
    pub fn all() -> &'static [Kind] {
        Kind::value_variants()
    }

    /// Its name, as on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How many of it are in a deck. What real operations meet most, and what moves partitions, is there more often;
    /// what takes long is there once.
    fn weight(self) -> usize {
        match self {
            Kind::KillInstance | Kind::Zombie => 4,
            Kind::StopInstance | Kind::KillShard | Kind::KillBroker => 3,
            Kind::FreezeInstance
            | Kind::RebalanceStorm
            | Kind::FreezeBroker
            | Kind::ImmediateShard
            | Kind::FreezeShard
            | Kind::CrashBackend
            | Kind::Cut
            | Kind::Delay
            | Kind::BlackHole
            | Kind::OneWay
            | Kind::HalfOpen => 2,
            Kind::ClockJump
            | Kind::StopBroker
            | Kind::StopShard
            | Kind::DiskFull
            | Kind::NoSlots
            | Kind::TableLock
            | Kind::RowLocks
            | Kind::LongTransaction
            | Kind::Migration
            | Kind::MissingPartition
            | Kind::TopicRecreated
            | Kind::RecordsDeleted => 1,
        }
    }

    /// How long it lasts, in ms.
    fn hold(self, rng: &mut SmallRng) -> u64 {
        match self {
            // A server or instance is away for this long.
            Kind::KillInstance
            | Kind::StopInstance
            | Kind::KillBroker
            | Kind::StopBroker
            | Kind::KillShard
            | Kind::StopShard
            | Kind::ImmediateShard => rng.random_range(0..4000),
            Kind::CrashBackend | Kind::MissingPartition => 1000,
            Kind::FreezeInstance | Kind::Cut | Kind::Delay | Kind::DiskFull | Kind::NoSlots => {
                rng.random_range(1000..5000)
            }
            // Beyond the time-outs for locks and statements, or not.
            Kind::FreezeShard
            | Kind::FreezeBroker
            | Kind::TableLock
            | Kind::RowLocks
            | Kind::LongTransaction
            | Kind::Migration
            | Kind::BlackHole
            | Kind::OneWay => rng.random_range(1000..12_000),
            Kind::RebalanceStorm => rng.random_range(3000..9000),
            Kind::ClockJump => rng.random_range(3000..8000),
            Kind::HalfOpen => 2000,
            // They end by themselves.
            Kind::Zombie | Kind::TopicRecreated | Kind::RecordsDeleted => 0,
        }
    }

    /// Whether it may fall together with another one: those that need all the rest to work do not.
    fn goes_with_others(self) -> bool {
        !matches!(
            self,
            Kind::RebalanceStorm | Kind::Migration | Kind::TopicRecreated | Kind::RecordsDeleted
        )
    }

    /// What it is done to.
    fn victim(self) -> Victim {
        match self {
            Kind::KillInstance | Kind::StopInstance | Kind::FreezeInstance | Kind::Zombie | Kind::ClockJump => {
                Victim::Instance
            }
            Kind::KillBroker | Kind::StopBroker | Kind::FreezeBroker => Victim::Broker,
            Kind::KillShard
            | Kind::StopShard
            | Kind::ImmediateShard
            | Kind::FreezeShard
            | Kind::CrashBackend
            | Kind::DiskFull
            | Kind::NoSlots
            | Kind::TableLock
            | Kind::RowLocks
            | Kind::LongTransaction
            | Kind::Migration
            | Kind::MissingPartition => Victim::Shard,
            Kind::Cut | Kind::Delay | Kind::BlackHole | Kind::OneWay | Kind::HalfOpen => Victim::Wires,
            Kind::RebalanceStorm | Kind::TopicRecreated | Kind::RecordsDeleted => Victim::None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Instance,
    Broker,
    Shard,
    Wires,
    None,
}

/// A wire between two parts, with a proxy in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// From the providers to an instance.
    Providers(usize),
    /// From an instance to a broker.
    ToBroker(usize, usize),
    /// From an instance to a shard.
    ToShard(usize, usize),
    /// From all other brokers to a broker.
    Brokers(usize),
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wire::Providers(i) => write!(f, "providers to instance {i}"),
            Wire::ToBroker(i, broker) => write!(f, "instance {i} to broker {broker}"),
            Wire::ToShard(i, shard) => write!(f, "instance {i} to shard {shard}"),
            Wire::Brokers(broker) => write!(f, "brokers to broker {broker}"),
        }
    }
}

/// One fault, with all that is drawn for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// To which instance, where it is one's.
    pub instance: usize,
    /// To which broker.
    pub broker: usize,
    /// To which shard.
    pub shard: usize,
    /// On which wires.
    pub wires: Vec<Wire>,
    /// A number that some kinds take: seconds of a jump, ms of a delay, which table.
    pub amount: i64,
    /// How long it lasts before it is mended.
    pub hold: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault {
            kind,
            instance,
            broker,
            shard,
            amount,
            hold,
            ..
        } = self;
        write!(f, "{kind}")?;
        match kind.victim() {
            Victim::Instance => write!(f, " instance {instance}")?,
            Victim::Broker => write!(f, " broker {broker}")?,
            Victim::Shard => write!(f, " shard {shard}")?,
            Victim::Wires => {
                for wire in &self.wires {
                    write!(f, " ({wire})")?;
                }
            }
            Victim::None => {}
        }
        if *kind == Kind::ClockJump {
            write!(f, " by {amount} s")?;
        }
        if hold.is_zero() {
            Ok(())
        } else {
            write!(f, " for {:.1} s", hold.as_secs_f64())
        }
    }
}

impl Fault {
    /// Whether two may fall at the same time: not two on the same part, of which one could not be made, or mended.
    fn goes_with(&self, other: &Fault) -> bool {
        let same = match self.kind.victim() {
            Victim::Instance => self.instance == other.instance,
            Victim::Broker => self.broker == other.broker,
            Victim::Shard => self.shard == other.shard,
            Victim::Wires | Victim::None => true,
        };
        let both = self.kind.goes_with_others() && other.kind.goes_with_others();
        both && !(same && self.kind.victim() == other.kind.victim())
    }
}

/// What there is to break.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Instances of the product.
    pub instances: usize,
    /// Kafka brokers.
    pub brokers: usize,
    /// Postgres shards.
    pub shards: usize,
}

/// Faults that fall at the same time: mostly one, sometimes two.
pub type Round = Vec<Fault>;

/// Draws `count` faults of `kinds`, in rounds. The same seed draws the same ones for the same parts.
pub fn draw(seed: u64, count: usize, kinds: &[Kind], parts: Parts) -> Vec<Round> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0xfa17);
    let (mut deck, mut rounds, mut dealt) = (Vec::new(), Vec::<Round>::new(), 0);
    while dealt < count {
        if deck.is_empty() {
            deck = kinds.iter().flat_map(|kind| vec![*kind; kind.weight()]).collect();
            deck.shuffle(&mut rng);
        }
        let Some(kind) = deck.pop() else { break };
        let fault = fault(kind, parts, &mut rng);
        dealt += 1;
        let joins = rng.random_ratio(1, 4);
        match rounds.last_mut().filter(|round| joins && round.len() == 1) {
            Some(round) if round[0].goes_with(&fault) => round.push(fault),
            _ => rounds.push(vec![fault]),
        }
    }
    rounds
}

fn fault(kind: Kind, parts: Parts, rng: &mut SmallRng) -> Fault {
    let sign = if rng.random() { 1 } else { -1 };
    let amount = match kind {
        // From what a leap smear makes up to a clock that forgot the day.
        Kind::ClockJump => sign * [2, 90, 3600, 7200, 86_400].choose(rng).copied().unwrap_or(2),
        Kind::Delay => rng.random_range(20..400),
        Kind::OneWay => rng.random_range(0..2),
        _ => rng.random_range(0..4),
    };
    Fault {
        kind,
        instance: rng.random_range(0..parts.instances),
        broker: rng.random_range(0..parts.brokers),
        shard: rng.random_range(0..parts.shards),
        wires: wires(parts, rng),
        amount,
        hold: Duration::from_millis(kind.hold(rng)),
    }
}

/// One wire, or all of one part: an instance that loses one shard is another case than one that loses everything.
fn wires(parts: Parts, rng: &mut SmallRng) -> Vec<Wire> {
    let (i, broker, shard) = (
        rng.random_range(0..parts.instances),
        rng.random_range(0..parts.brokers),
        rng.random_range(0..parts.shards),
    );
    match rng.random_range(0..10) {
        0 => vec![Wire::Providers(i)],
        1 | 2 => vec![Wire::ToBroker(i, broker)],
        3 | 4 => (0..parts.brokers).map(|broker| Wire::ToBroker(i, broker)).collect(),
        5 | 6 => vec![Wire::ToShard(i, shard)],
        7 => (0..parts.instances).map(|i| Wire::ToShard(i, shard)).collect(),
        8 if parts.brokers > 1 => vec![Wire::Brokers(broker)],
        8 => vec![Wire::ToShard(i, shard)],
        _ => {
            let brokers = (0..parts.brokers).map(|broker| Wire::ToBroker(i, broker));
            let shards = (0..parts.shards).map(|shard| Wire::ToShard(i, shard));
            brokers.chain(shards).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Parts = Parts {
        instances: 3,
        brokers: 3,
        shards: 2,
    };

    #[test]
    fn a_seed_always_draws_the_same() {
        let draw = |seed| draw(seed, 100, Kind::all(), PARTS);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(draw(7).iter().map(Vec::len).sum::<usize>(), 100);
        assert!(draw(7).iter().any(|round| round.len() == 2), "some fall together");
    }

    #[test]
    fn a_deck_holds_every_kind() {
        let size = Kind::all().iter().map(|kind| kind.weight()).sum();
        let dealt = draw(1, size, Kind::all(), PARTS);
        for kind in Kind::all() {
            assert!(dealt.iter().flatten().any(|fault| fault.kind == *kind), "{kind}");
        }
    }
}
