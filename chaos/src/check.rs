//! The reckoning: everything that was sent, on Kafka and in the tables is held against each other.

pub mod audit;
mod dead;
mod order;
pub mod records;
pub mod rows;
mod state;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use anyhow::Result;
use dev::place::{partition_of, shard_of};

use crate::deployment::Deployment;
use crate::kafka;
use crate::provider::Sent;
use crate::world::{Progress, World};
use audit::Audit;
use records::{Body, Event, Record};
use rows::{Dead, Row, State};

/// Which event: its source and id.
pub type EventKey = (String, String);

/// Everything there is to look at.
pub struct Evidence {
    /// What providers sent.
    pub sent: Vec<Sent>,
    /// What is on the topics of events.
    pub records: Vec<Record>,
    /// What is in the event tables.
    pub rows: Vec<Row>,
    /// What is in the state tables, by kind.
    pub states: Vec<(&'static str, State)>,
    /// What is in the tables of dead letters.
    pub dead: Vec<Dead>,
    /// The origins on the topics of dead letters.
    pub buried: Vec<records::Origin>,
    /// What happened to the offsets.
    pub audit: Audit,
    /// How far the tables are.
    pub offsets: HashMap<(String, i32), Progress>,
    /// How far Kafka is: by topic and partition.
    pub ends: HashMap<(String, i32), i64>,
    /// How many shards there are.
    pub shards: usize,
    /// Whose evidence it is.
    pub deployment: Deployment,
}

impl Evidence {
    /// Reads all of it.
    pub async fn read(world: &World, sent: Vec<Sent>) -> Result<Self> {
        let began = Instant::now();
        let (brokers, deployment) = (world.stack.brokers(), &world.deployment);
        let topics = deployment.topics();
        let mut ends = HashMap::new();
        for (topic, marks) in topics.iter().zip(kafka::watermarks(&brokers, &topics).await?) {
            for (p, (_, high)) in (0..).zip(marks) {
                ends.insert((topic.name.clone(), p), high);
            }
        }
        let mut buried = Vec::new();
        for topic in topics.iter().filter(|topic| topic.dead) {
            buried.extend(records::read_dead(&brokers, topic).await?);
        }
        let (mut all_rows, mut states, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        let mut audit = Audit::default();
        for (index, shard) in world.stack.shards().iter().enumerate() {
            all_rows.extend(rows::events(shard, index, &deployment.name).await?);
            for kind in ["order", "dispute"] {
                let found = rows::states(shard, index, &deployment.name, kind).await?;
                states.extend(found.into_iter().map(|state| (kind, state)));
            }
            dead.extend(rows::dead(shard, index, &deployment.name).await?);
            audit::read(shard, &deployment.name, &mut audit).await?;
        }
        let evidence = Self {
            sent,
            records: records::read(&brokers, deployment).await?,
            rows: all_rows,
            states,
            dead,
            buried,
            audit,
            offsets: world.offsets(deployment).await?,
            ends,
            shards: world.stack.shards().len(),
            deployment: deployment.clone(),
        };
        eprintln!(
            "read {} records and {} rows in {:.1} s",
            evidence.records.len(),
            evidence.rows.len(),
            began.elapsed().as_secs_f64()
        );
        Ok(evidence)
    }

    /// Records that must be dead letters.
    pub fn poison(&self) -> usize {
        let poison: HashSet<(&str, &str)> = self
            .sent
            .iter()
            .filter(|sent| sent.expect.poison)
            .map(|sent| (sent.expect.source, sent.expect.event_id.as_str()))
            .collect();
        let is_poison = |record: &&Record| match &record.body {
            Body::Event(event) => poison.contains(&(event.source.as_str(), event.event_id.as_str())),
            Body::Garbage => true,
            Body::Unknown => false,
        };
        self.records.iter().filter(is_poison).count()
    }

    /// The first record of every event, which is the one that counts, without those that can never be written.
    pub fn events(&self) -> HashMap<(&str, &str, i64), (&Record, &Event)> {
        let mut first = HashMap::new();
        for (record, event) in self.records.iter().filter_map(with_event) {
            // Records come in the order of their offsets.
            first.entry(identity(event)).or_insert((record, event));
        }
        first
    }
}

fn with_event(record: &Record) -> Option<(&Record, &Event)> {
    match &record.body {
        Body::Event(event) => Some((record, event)),
        Body::Garbage | Body::Unknown => None,
    }
}

fn identity(event: &Event) -> (&str, &str, i64) {
    (&event.source, &event.event_id, event.occurred_us)
}

fn key(event: &Event) -> EventKey {
    (event.source.clone(), event.event_id.clone())
}

/// What is wrong.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// By rule: how often, and the first of them.
    pub broken: BTreeMap<&'static str, (usize, Vec<Finding>)>,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// In words.
    pub what: String,
    /// The event that it is about, if it is about one.
    pub event: Option<EventKey>,
}

/// So many of each rule are kept.
const KEPT: usize = 20;

impl Findings {
    /// Notes that `rule` is broken.
    pub fn add(&mut self, rule: &'static str, event: Option<EventKey>, what: impl Into<String>) {
        let (count, kept) = self.broken.entry(rule).or_default();
        *count += 1;
        if kept.len() < KEPT {
            let what = what.into();
            kept.push(Finding { what, event });
        }
    }

    /// How often a rule is broken.
    pub fn count(&self, rule: &str) -> usize {
        self.broken.get(rule).map_or(0, |(count, _)| *count)
    }
}

/// All rules.
pub const LOST: &str = "lost";
/// An event or state is there twice.
pub const REPEATED: &str = "repeated";
/// Something is there that was never sent.
pub const STRANGE: &str = "never sent";
/// A row or record says something else than was sent.
pub const CONTENTS: &str = "contents";
/// On another partition or shard than its key says.
pub const PLACE: &str = "place";
/// Out of order.
pub const ORDER: &str = "order";
/// A state is not the one that a replay gives.
pub const STATE: &str = "state";
/// Dead letters are not exactly the poison.
pub const DEAD: &str = "dead letters";
/// Something was written by who had not claimed it, or not together with its offset.
pub const FENCE: &str = "fence";
/// Offsets are not where the tables are.
pub const OFFSETS: &str = "offsets";

/// Holds everything against each other.
pub fn reckon(evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let sent: HashMap<(&str, &str), &Sent> = evidence
        .sent
        .iter()
        .map(|sent| ((sent.expect.source, sent.expect.event_id.as_str()), sent))
        .collect();
    let events = evidence.events();
    on_kafka(evidence, &sent, &events, &mut findings);
    in_tables(evidence, &sent, &events, &mut findings);
    order::check(evidence, &events, &mut findings);
    states(evidence, &sent, &events, &mut findings);
    dead::check(evidence, &sent, &mut findings);
    offsets(evidence, &mut findings);
    audit::check(evidence, &mut findings);
    findings
}

type SentBy<'a> = HashMap<(&'a str, &'a str), &'a Sent>;
type Events<'a> = HashMap<(&'a str, &'a str, i64), (&'a Record, &'a Event)>;

/// Every acknowledged event is on Kafka, everything there was sent, and says what was sent.
fn on_kafka(evidence: &Evidence, sent: &SentBy<'_>, events: &Events<'_>, findings: &mut Findings) {
    for sent in &evidence.sent {
        let expect = &sent.expect;
        let identity = (
            expect.source,
            expect.event_id.as_str(),
            expect.occurred_at.timestamp_micros(),
        );
        if sent.acked_us().is_some() && !events.contains_key(&identity) {
            let key = (expect.source.to_owned(), expect.event_id.clone());
            findings.add(LOST, Some(key), "acknowledged, and not on Kafka");
        }
    }
    for record in evidence.records.iter().filter(|r| matches!(r.body, Body::Unknown)) {
        findings.add(STRANGE, None, format!("a record that nobody sent: {record:?}"));
    }
    for (record, event) in evidence.records.iter().filter_map(with_event) {
        let Some(sent) = sent.get(&(event.source.as_str(), event.event_id.as_str())) else {
            findings.add(STRANGE, Some(key(event)), "on Kafka, and nobody sent it");
            continue;
        };
        let expect = &sent.expect;
        let same = expect.kind == record.kind
            && expect.user_id == event.user_id
            && Some(&expect.order_id) == event.order_id.as_ref()
            && expect.dispute_id == event.dispute_id
            && expect.status == event.status
            && expect.occurred_at.timestamp_micros() == event.occurred_us
            && sent.digest == event.digest
            && record.key.as_deref() == Some(event.user_id.as_bytes());
        if !same {
            let what = format!("on Kafka it is {event:?}, and it was sent as {expect:?}");
            findings.add(CONTENTS, Some(key(event)), what);
        }
        let partitions = evidence.deployment.topic(record.kind).partitions;
        let due = partition_of(event.user_id.as_bytes(), partitions);
        if record.partition != due {
            let what = format!(
                "on partition {} of Kafka, and its key belongs to {due}",
                record.partition
            );
            findings.add(PLACE, Some(key(event)), what);
        }
    }
}

/// Every event on Kafka is a row, once, on its shard, with what its first record says; and nothing else is.
fn in_tables(evidence: &Evidence, sent: &SentBy<'_>, events: &Events<'_>, findings: &mut Findings) {
    let mut rows: HashMap<(&str, &str, i64), &Row> = HashMap::with_capacity(evidence.rows.len());
    for row in &evidence.rows {
        if let Some(other) = rows.insert(identity(&row.event), row) {
            let what = format!("in the tables twice, of offsets {} and {}", other.offset, row.offset);
            findings.add(REPEATED, Some(key(&row.event)), what);
        }
        let Some((record, event)) = events.get(&identity(&row.event)) else {
            findings.add(STRANGE, Some(key(&row.event)), "in the tables, and not on Kafka");
            continue;
        };
        let expected = Event {
            // Orders keep no dispute.
            dispute_id: event.dispute_id.clone().filter(|_| row.kind == "dispute"),
            ..(*event).clone()
        };
        if row.event != expected || row.kind != record.kind {
            let what = format!("in the tables it is {:?}, on Kafka {expected:?}", row.event);
            findings.add(CONTENTS, Some(key(&row.event)), what);
        }
        if (row.partition, row.offset) != (record.partition, record.offset) {
            let what = format!(
                "in the tables as of partition {} offset {}, and its first record is {} {}",
                row.partition, row.offset, record.partition, record.offset
            );
            findings.add(ORDER, Some(key(&row.event)), what);
        }
        if row.shard != shard_of(row.partition, evidence.shards) {
            let what = format!("partition {} is on shard {}", row.partition, row.shard);
            findings.add(PLACE, Some(key(&row.event)), what);
        }
    }
    for (identity, (record, event)) in events {
        let poison = sent
            .get(&(identity.0, identity.1))
            .is_some_and(|sent| sent.expect.poison);
        match (poison, rows.contains_key(identity)) {
            (false, false) => {
                let what = format!(
                    "on partition {} offset {}, and not in the tables",
                    record.partition, record.offset
                );
                findings.add(LOST, Some(key(event)), what);
            }
            (true, true) => findings.add(DEAD, Some(key(event)), "poison, and in the tables"),
            _ => {}
        }
    }
}

fn states(evidence: &Evidence, sent: &SentBy<'_>, events: &Events<'_>, findings: &mut Findings) {
    let good = events.values().copied().filter(|(_, event)| {
        sent.get(&(event.source.as_str(), event.event_id.as_str()))
            .is_none_or(|sent| !sent.expect.poison)
    });
    let mut model = state::replay(good);
    for (kind, state) in &evidence.states {
        let entity = state::entity(kind, &state.event);
        let Some((partition, latest)) = model.remove(&entity) else {
            let what = format!("a state that no event gives, or that is there twice: {state:?}");
            findings.add(STATE, Some(key(&state.event)), what);
            continue;
        };
        let expected = Event {
            event_type: String::new(),
            digest: [0; 8],
            dispute_id: latest.dispute_id.clone().filter(|_| *kind == "dispute"),
            ..latest.clone()
        };
        if state.event != expected || state.partition != partition {
            let what = format!("the state is {state:?}, and the latest event gives {expected:?}");
            findings.add(STATE, Some(key(latest)), what);
        }
        if state.shard != shard_of(partition, evidence.shards) {
            findings.add(PLACE, Some(key(latest)), format!("a state on shard {}", state.shard));
        }
    }
    for (entity, (_, latest)) in model {
        findings.add(STATE, Some(key(latest)), format!("{entity:?} has no state"));
    }
}

/// The tables are where Kafka is, each partition on its shard.
fn offsets(evidence: &Evidence, findings: &mut Findings) {
    for (id, end) in &evidence.ends {
        match evidence.offsets.get(id) {
            Some(progress) if progress.next_offset == *end => {
                if progress.shard != shard_of(id.1, evidence.shards) {
                    findings.add(
                        PLACE,
                        None,
                        format!("the offsets of {id:?} are on shard {}", progress.shard),
                    );
                }
            }
            // Never claimed, and never needed.
            None if *end == 0 => {}
            progress => findings.add(
                OFFSETS,
                None,
                format!("{id:?} ends at {end} on Kafka, the tables say {progress:?}"),
            ),
        }
    }
    for id in evidence.offsets.keys().filter(|id| !evidence.ends.contains_key(*id)) {
        findings.add(OFFSETS, None, format!("offsets of {id:?}, which is no partition"));
    }
}
