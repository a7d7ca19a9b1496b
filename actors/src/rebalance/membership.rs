//! Whether a client is settled in its group. Once in a while one is not for as long as it lives (seen after its broker was
//! frozen for longer than the session): librdkafka reports nothing, and its partitions are nobody's.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// The state that a member has between rebalances
/// (<https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md>, `cgrp.join_state`).
const SETTLED: &str = "steady";

/// What the last reports said.
#[derive(Debug, Default)]
pub struct Membership(Mutex<Option<Unsettled>>);

#[derive(Debug)]
struct Unsettled {
    state: String,
    rebalances: i64,
    since: Instant,
}

#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    cgrp: Option<Group>,
}

#[derive(Deserialize)]
struct Group {
    join_state: String,
    rebalance_cnt: i64,
}

impl Membership {
    /// Takes a report, as JSON. A rebalance that came to an end meanwhile is progress.
    pub fn report(&self, statistics: &[u8], now: Instant) {
        let Ok(Report { cgrp: Some(group) }) = serde_json::from_slice(statistics) else {
            return;
        };
        let mut unsettled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if group.join_state == SETTLED {
            *unsettled = None;
            return;
        }
        let since = match unsettled.as_ref() {
            Some(before) if before.rebalances == group.rebalance_cnt => before.since,
            _ => now,
        };
        *unsettled = Some(Unsettled {
            state: group.join_state,
            rebalances: group.rebalance_cnt,
            since,
        });
    }

    /// The state in which it has been stuck for longer than `patience`, if so.
    pub fn stuck(&self, patience: Duration, now: Instant) -> Option<String> {
        let unsettled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = unsettled.as_ref().filter(|u| now.duration_since(u.since) > patience)?;
        Some(stuck.state.clone())
    }

    /// Counts from now on: nobody could have settled so far.
    pub fn excuse(&self, now: Instant) {
        if let Some(unsettled) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            unsettled.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_stuck_that_stays_on_its_way_without_a_rebalance() {
        let (membership, start) = (Membership::default(), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        let say = |s: u64, state: &str, rebalances: i64| {
            let report = format!(
                r#"{{"name":"x","cgrp":{{"state":"up","join_state":"{state}","rebalance_cnt":{rebalances}}}}}"#
            );
            membership.report(report.as_bytes(), at(s));
        };
        let stuck = |s: u64| membership.stuck(Duration::from_secs(30), at(s));
        membership.report(b"{}", at(0));
        say(5, "wait-join", 1);
        say(10, "wait-sync", 1);
        assert_eq!((stuck(35), stuck(36)), (None, Some("wait-sync".to_owned())));
        say(36, "wait-join", 2);
        assert_eq!(stuck(60), None);
        membership.excuse(at(60));
        say(65, "wait-join", 2);
        assert_eq!((stuck(90), stuck(91)), (None, Some("wait-join".to_owned())));
        say(91, "steady", 3);
        assert_eq!(stuck(200), None);
    }
}
