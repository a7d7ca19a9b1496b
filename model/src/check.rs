//! Running the checker over a protocol.

use serde_json::{Value, json};
use stateright::{Checker, Model};

use crate::protocol::Protocol;
use crate::state::Step;

/// What a check found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states that were reached.
    pub states: usize,
    /// Steps that were tried.
    pub steps: usize,
    /// Steps of the longest of the shortest histories that lead to a state.
    pub depth: usize,
    /// Promises that do not hold, each with a shortest history that breaks it.
    pub broken: Vec<(&'static str, Vec<Step>)>,
    /// Situations that must come up, lest the promises hold for want of trouble, and did not.
    pub never_seen: Vec<&'static str>,
}

/// Tries every history of `protocol`.
pub fn check(protocol: Protocol, threads: usize) -> Report {
    let promises = protocol.properties();
    let checker = protocol.checker().threads(threads).spawn_bfs().join();
    let mut report = Report {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        broken: Vec::new(),
        never_seen: Vec::new(),
    };
    for promise in promises {
        match (promise.expectation, checker.discovery(promise.name)) {
            (stateright::Expectation::Sometimes, None) => report.never_seen.push(promise.name),
            (stateright::Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => report.broken.push((promise.name, path.into_actions())),
        }
    }
    report
}

impl Report {
    /// For programs.
    pub fn json(&self) -> Value {
        let broken = self.broken.iter().map(|(promise, history)| {
            let steps: Vec<String> = history.iter().map(|step| format!("{step:?}")).collect();
            json!({ "promise": promise, "history": steps })
        });
        json!({
            "states": self.states,
            "steps": self.steps,
            "depth": self.depth,
            "broken": broken.collect::<Vec<_>>(),
            "never_seen": self.never_seen,
        })
    }
}
