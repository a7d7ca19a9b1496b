//! Memory for the bodies of requests under way.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that a body has without asking, so that webhooks, which are small, are taken even when large ones have used up the
/// rest.
const FREE: usize = 16 << 10;

/// What all bodies together may take beyond that, in bytes.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
        }
    }

    /// The share of one body.
    pub(super) fn share(&self) -> Share<'_> {
        Share { budget: self, held: 0 }
    }
}

/// What one body holds, until it is dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    budget: &'a Budget,
    held: usize,
}

impl Share<'_> {
    /// Whether the body may have `length` bytes by now.
    pub(super) fn grow_to(&mut self, length: usize) -> bool {
        let more = length.saturating_sub(FREE).saturating_sub(self.held);
        if more == 0 {
            return true;
        }
        if self.budget.used.fetch_add(more, Relaxed).saturating_add(more) > self.budget.limit {
            self.budget.used.fetch_sub(more, Relaxed);
            return false;
        }
        self.held += more;
        true
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_share_and_small_ones_always_fit() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.grow_to(FREE) && one.grow_to(FREE + 60));
        assert!(!two.grow_to(FREE + 41) && two.grow_to(FREE + 40));
        let mut small = budget.share();
        assert!(small.grow_to(FREE) && !small.grow_to(FREE + 1));
        drop(one);
        assert!(small.grow_to(FREE + 60));
        drop((two, small));
        assert_eq!(budget.used.load(Relaxed), 0);
    }
}
