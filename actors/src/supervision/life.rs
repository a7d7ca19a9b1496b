//! What a supervisor gives each instance of a child for its life.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::stats::ActorStats;

/// How an actor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to, or had finished.
    Stopped,
    /// It gave up and says why.
    Failed(String),
    /// It panicked, with this message.
    Panicked(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Stopped => f.write_str("stopped"),
            Exit::Failed(why) => write!(f, "failed: {why}"),
            Exit::Panicked(message) => write!(f, "panicked: {message}"),
        }
    }
}

/// Handed to one instance of a child: how it learns that it shall stop, where it counts, and how it says why it ends.
#[derive(Clone)]
pub struct Life {
    stop: CancellationToken,
    stats: Arc<ActorStats>,
    exit: Arc<Mutex<Option<String>>>,
}

impl Life {
    pub(super) fn new(stop: CancellationToken, stats: Arc<ActorStats>) -> Self {
        Self {
            stop,
            stats,
            exit: Arc::default(),
        }
    }

    /// The token that is cancelled when this instance shall stop. Stopping travels by it and not by the mailbox, so
    /// that it never waits behind data.
    pub fn token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Resolves when this instance shall stop.
    pub fn stopped(&self) -> WaitForCancellationFutureOwned {
        self.stop.clone().cancelled_owned()
    }

    /// The actor's counters; they outlive its restarts.
    pub fn stats(&self) -> &Arc<ActorStats> {
        &self.stats
    }

    /// Records why the actor is about to end; its supervisor sees [`Exit::Failed`]. The first reason stands.
    pub fn fail(&self, why: impl Into<String>) {
        let mut exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        exit.get_or_insert_with(|| why.into());
    }

    pub(super) fn take_exit(&self) -> Exit {
        let mut exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        exit.take().map_or(Exit::Stopped, Exit::Failed)
    }
}
