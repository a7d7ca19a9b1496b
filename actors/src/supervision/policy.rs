//! Whether, when and with whom a child is restarted: pure, so that it is tested in microseconds.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Which siblings share a child's fate (the terms are Erlang/OTP's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Only the child that ended is restarted.
    OneForOne,
    /// The child and those started after it are restarted: they depend on it.
    RestForOne,
    /// Only the child that ended is restarted, and none needs another to stop well: all stop at the same time, not in
    /// the reverse order of their start. (OTP's `simple_one_for_one`.)
    Independent,
}

impl Strategy {
    /// The children, by their place in the start order, that restart when the one at `ended` does.
    pub fn affected(self, ended: usize, children: usize) -> Range<usize> {
        match self {
            Strategy::OneForOne | Strategy::Independent => ended..ended + 1,
            Strategy::RestForOne => ended..children,
        }
    }
}

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always: it has no reason to end.
    Permanent,
    /// Only after a panic or a failure; a clean end is final.
    Transient,
    /// Not after a failure: that is its supervisor's too. For a supervisor, which fails only after it has restarted what
    /// is below it; were each level to try anew, a failure deep in the tree would hardly ever reach the root.
    AfterPanic,
}

/// More than `max_restarts` within `within` means that restarting does not help.
#[derive(Clone, Copy, Debug)]
pub struct Intensity {
    /// Restarts that are allowed in one window.
    pub max_restarts: usize,
    /// The sliding window.
    pub within: Duration,
}

/// Exponential delay before a restart, so that a child that fails at once does not spin.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Delay before the first restart.
    pub initial: Duration,
    /// Upper bound of the delay.
    pub max: Duration,
}

impl Backoff {
    /// The delay before attempt number `attempt` (0 is the first). `jitter` in 0..1 takes up to half of it away, so that
    /// many children that lost the same server do not come back in step.
    pub fn delay(&self, attempt: u32, jitter: f64) -> Duration {
        let full = self
            .initial
            .saturating_mul(1u32.checked_shl(attempt.min(20)).unwrap_or(u32::MAX))
            .min(self.max);
        full.mul_f64(1.0 - 0.5 * jitter.clamp(0.0, 1.0))
    }
}

/// What to do about a child that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start it again after this delay.
    RestartAfter(Duration),
    /// It failed too often: the supervisor gives up.
    Escalate,
}

/// The recent restarts of one child.
#[derive(Debug, Default)]
pub struct History(VecDeque<Instant>);

impl History {
    /// Decides about an end at `now` and remembers it.
    pub fn decide(&mut self, now: Instant, intensity: Intensity, backoff: Backoff, jitter: f64) -> Decision {
        while self
            .0
            .front()
            .is_some_and(|&t| now.duration_since(t) > intensity.within)
        {
            self.0.pop_front();
        }
        if self.0.len() >= intensity.max_restarts {
            return Decision::Escalate;
        }
        let attempt = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push_back(now);
        Decision::RestartAfter(backoff.delay(attempt, jitter))
    }

    /// Restarts within the window that ended at the last decision.
    pub fn recent(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTENSITY: Intensity = Intensity {
        max_restarts: 3,
        within: Duration::from_secs(10),
    };
    const BACKOFF: Backoff = Backoff {
        initial: Duration::from_millis(100),
        max: Duration::from_secs(1),
    };

    #[test]
    fn the_fourth_failure_within_the_window_escalates() {
        let (mut history, start) = (History::default(), Instant::now());
        for expected in [100, 200, 400] {
            let decision = history.decide(start, INTENSITY, BACKOFF, 0.0);
            assert_eq!(decision, Decision::RestartAfter(Duration::from_millis(expected)));
        }
        assert_eq!(history.decide(start, INTENSITY, BACKOFF, 0.0), Decision::Escalate);
    }

    #[test]
    fn failures_spread_wider_than_the_window_never_escalate_and_start_with_the_first_delay() {
        let (mut history, start) = (History::default(), Instant::now());
        for i in 0..20 {
            let decision = history.decide(start + Duration::from_secs(11 * i), INTENSITY, BACKOFF, 0.0);
            assert_eq!(decision, Decision::RestartAfter(Duration::from_millis(100)));
        }
    }

    #[test]
    fn a_restart_counts_until_the_window_has_passed_it() {
        let (mut history, start) = (History::default(), Instant::now());
        assert_eq!(history.recent(), 0);
        for _ in 0..3 {
            history.decide(start, INTENSITY, BACKOFF, 0.0);
        }
        assert_eq!(history.recent(), 3);
        let last = start + INTENSITY.within;
        assert_eq!(history.decide(last, INTENSITY, BACKOFF, 0.0), Decision::Escalate);
        let after = last + Duration::from_nanos(1);
        let first = Decision::RestartAfter(Duration::from_millis(100));
        assert_eq!(history.decide(after, INTENSITY, BACKOFF, 0.0), first);
        assert_eq!(history.recent(), 1);
    }

    #[test]
    fn delay_is_capped_and_jitter_takes_at_most_half() {
        assert_eq!(BACKOFF.delay(40, 0.0), Duration::from_secs(1));
        assert_eq!(BACKOFF.delay(40, 1.0), Duration::from_millis(500));
        assert_eq!(BACKOFF.delay(0, 0.5), Duration::from_millis(75));
        assert_eq!(BACKOFF.delay(0, 7.0), Duration::from_millis(50));
    }

    #[test]
    fn rest_for_one_takes_those_started_later() {
        assert_eq!(Strategy::RestForOne.affected(1, 4), 1..4);
        assert_eq!(Strategy::OneForOne.affected(1, 4), 1..2);
        assert_eq!(Strategy::Independent.affected(1, 4), 1..2);
    }
}
