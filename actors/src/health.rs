//! Liveness is not readiness: a live process may have nobody to talk to. Probes are named, and stamped with the time
//! of their last answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::stats::rfc3339;

/// What the process knows of those it depends on.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    draining: AtomicBool,
    probes: Mutex<BTreeMap<String, Checked>>,
}

#[derive(Clone, Debug)]
struct Checked {
    /// For people.
    at: DateTime<Utc>,
    /// By a clock that nobody can set: an answer must neither get old nor stay fresh by a jump of the other.
    when: Instant,
    problem: Option<String>,
}

/// A probe's answer counts for so long.
const FRESH: Duration = Duration::from_secs(15);

impl Health {
    /// The answer of the probe `name`; `None` means that all is well. What changes is logged, once.
    pub fn checked(&self, name: &str, problem: Option<String>) {
        let mut probes = self.0.probes.lock().unwrap_or_else(PoisonError::into_inner);
        let was_well = probes.get(name).is_none_or(|c| c.problem.is_none());
        match &problem {
            Some(problem) if was_well => warn!(check = name, %problem, "health: not well"),
            None if !was_well => info!(check = name, "health: well again"),
            Some(_) | None => {}
        }
        probes.insert(
            name.to_owned(),
            Checked {
                at: Utc::now(),
                when: Instant::now(),
                problem,
            },
        );
    }

    /// From now on the process is not ready: it finishes what it has and ends.
    pub fn drain(&self) {
        self.0.draining.store(true, Relaxed);
    }

    /// Whether to send work here, and why not. Kafka is needed for everything. A shard that is away, or a partition that is
    /// halted, is shown and does not make the process unready: webhooks are taken all the same, and the others are written.
    pub fn readiness(&self) -> (bool, Value) {
        let draining = self.0.draining.load(Relaxed);
        let probes = self.0.probes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let good = |c: &Checked| c.problem.is_none() && c.when.elapsed() < FRESH;
        let ready = !draining && probes.get("kafka").is_some_and(good);
        let status = match (draining, ready, probes.values().all(good)) {
            (true, ..) => "draining",
            (_, false, _) => "unready",
            (_, true, false) => "degraded",
            (_, true, true) => "ready",
        };
        let checks: Vec<Value> = probes
            .iter()
            .map(|(name, c)| json!({ "name": name, "ok": good(c), "checked_at": rfc3339(c.at), "problem": c.problem }))
            .collect();
        (ready, json!({ "status": status, "checks": checks }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_shard_degrades_and_a_dead_kafka_or_draining_makes_unready() {
        let health = Health::default();
        assert!(!health.readiness().0, "nothing has been checked yet");
        health.checked("kafka", None);
        health.checked("shard.0", Some("refused".into()));
        let (ready, value) = health.readiness();
        assert!(ready);
        assert_eq!(value["status"], "degraded");
        health.checked("kafka", Some("no broker answered".into()));
        assert!(!health.readiness().0);
        health.checked("kafka", None);
        health.drain();
        assert_eq!(health.readiness().1["status"], "draining");
    }
}
