//! Dead letters are exactly the poison that was sent, untouched.

use std::collections::{HashMap, HashSet};

use super::{Body, DEAD, Evidence, Findings, Record, SentBy, key, shard_of};

pub(super) fn check(evidence: &Evidence, sent: &SentBy<'_>, findings: &mut Findings) {
    let mut due: HashMap<(String, i32, i64), &Record> = HashMap::new();
    for record in &evidence.records {
        let poison = match &record.body {
            Body::Garbage => true,
            Body::Unknown => false,
            Body::Event(event) => sent
                .get(&(event.source.as_str(), event.event_id.as_str()))
                .is_some_and(|sent| sent.expect.poison),
        };
        if poison {
            let topic = evidence.deployment.topic(record.kind).name;
            due.insert((topic, record.partition, record.offset), record);
        }
    }
    let origins: HashSet<(String, i32, i64)> = evidence.buried.iter().flatten().cloned().collect();
    let nameless = evidence.buried.iter().filter(|origin| origin.is_none()).count();
    if nameless > 0 {
        findings.add(
            DEAD,
            None,
            format!("{nameless} dead letters do not say where they come from"),
        );
    }
    for origin in &origins {
        if !due.contains_key(origin) {
            findings.add(
                DEAD,
                None,
                format!("{origin:?} was dead-lettered, and nothing is wrong with it"),
            );
        }
    }
    for dead in &evidence.dead {
        let origin = (dead.topic.clone(), dead.partition, dead.offset);
        let Some(record) = due.remove(&origin) else {
            let what = format!("buried because {}: no poison, or there twice: {dead:?}", dead.reason);
            findings.add(DEAD, None, what);
            continue;
        };
        if dead.key != record.key || dead.value != record.value {
            findings.add(DEAD, None, format!("not as it came: {dead:?}, {record:?}"));
        }
        let stage = match record.body {
            Body::Event(_) => "write",
            Body::Garbage | Body::Unknown => "decode",
        };
        if dead.stage != stage {
            findings.add(DEAD, None, format!("found out at another stage than {stage}: {dead:?}"));
        }
        if dead.shard != shard_of(dead.partition, evidence.shards) {
            findings.add(DEAD, None, format!("on the wrong shard: {dead:?}"));
        }
        if !origins.contains(&origin) {
            findings.add(DEAD, None, format!("in the table and not on its topic: {dead:?}"));
        }
    }
    for (origin, record) in due {
        let event = match &record.body {
            Body::Event(event) => Some(key(event)),
            Body::Garbage | Body::Unknown => None,
        };
        findings.add(
            DEAD,
            event,
            format!("poison that is not among the dead letters: {origin:?}"),
        );
    }
}
