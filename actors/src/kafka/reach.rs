//! Whether a client still knows a broker. librdkafka forgets brokers that an answer about the cluster does not list, and a
//! cluster lists none while all its brokers are fenced, as after a freeze for longer than their session with the
//! controller. A client that was answered so asks nobody any more, for as long as it lives, and reports nothing
//! (<https://github.com/confluentinc/librdkafka/issues/5301>); its statistics show it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// How often librdkafka reports, in ms (its `statistics.interval.ms`).
pub const REPORT_EVERY_MS: u32 = 5000;

/// A client that knows no broker for so long is lost: while it starts, or learns of others, it knows some.
const LOST_AFTER: Duration = Duration::from_secs(9);

/// What the last reports said.
#[derive(Debug, Default)]
pub struct Reach(Mutex<Option<Instant>>);

#[derive(Deserialize)]
struct Report {
    brokers: HashMap<String, Broker>,
}

/// <https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md>
#[derive(Deserialize)]
struct Broker {
    source: String,
}

impl Reach {
    /// Takes a report, as JSON.
    pub fn report(&self, statistics: &[u8], now: Instant) {
        let Ok(Report { brokers }) = serde_json::from_slice(statistics) else {
            return;
        };
        let real = |broker: &Broker| matches!(broker.source.as_str(), "configured" | "learned");
        let mut none_since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *none_since = match brokers.values().any(real) {
            true => None,
            false => none_since.or(Some(now)),
        };
    }

    /// Whether nothing can be expected of the client any more.
    pub fn is_lost(&self, now: Instant) -> bool {
        let none_since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        none_since.is_some_and(|since| now.duration_since(since) >= LOST_AFTER)
    }
}

#[cfg(test)]
mod tests;
