//! A set of marks that several threads fill.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// A set of 64-bit marks, in parts, so that threads seldom wait for each other.
#[derive(Debug)]
pub struct Reached(Vec<Mutex<HashSet<u64>>>);

const PARTS: usize = 64;

impl Default for Reached {
    fn default() -> Self {
        Self((0..PARTS).map(|_| Mutex::default()).collect())
    }
}

impl Reached {
    fn part(&self, mark: u64) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        let at = usize::try_from(mark % PARTS as u64).unwrap_or(0);
        self.0[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `mark` is in it.
    pub fn contains(&self, mark: u64) -> bool {
        self.part(mark).contains(&mark)
    }

    /// Puts `marks` in.
    pub fn extend(&self, marks: impl IntoIterator<Item = u64>) {
        for mark in marks {
            self.part(mark).insert(mark);
        }
    }
}
