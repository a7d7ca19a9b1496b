//! What the readers of one lane may hold together. However many they are, the lane writes one statement after another: rows beyond
//! those of the next two would only lie in memory. Readers with a backlog take turns, each with a full batch, rather than all
//! with small ones: the events of an order lie close together on a partition, and those in one statement change its state once.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Counts the rows that the readers of one lane may still take.
#[derive(Debug)]
pub struct Allowance {
    rows: Semaphore,
    batch: u32,
}

impl Allowance {
    /// Two statements of `statement_rows` rows, or two batches of `batch_rows` where these are larger.
    pub fn new(statement_rows: usize, batch_rows: usize) -> Self {
        let rows = statement_rows.max(batch_rows).saturating_mul(2);
        Self {
            rows: Semaphore::new(rows.min(Semaphore::MAX_PERMITS)),
            batch: u32::try_from(batch_rows).unwrap_or(u32::MAX),
        }
    }

    /// One reader's part, nothing to begin with.
    pub(super) fn share(&self) -> Share<'_> {
        Share {
            allowance: self,
            held: None,
            reserved: false,
            turn: None,
        }
    }
}

/// One reader's part; dropping it gives back what it holds, and its place among those who wait.
pub(super) struct Share<'a> {
    allowance: &'a Allowance,
    held: Option<SemaphorePermit<'a>>,
    /// Whether a batch's worth is among what is held, for rows that are not read yet.
    reserved: bool,
    turn: Option<Pin<Box<dyn Future<Output = Option<SemaphorePermit<'a>>> + 'a>>>,
}

impl<'a> Share<'a> {
    /// Whether a batch may be filled now. Otherwise this reader has a place among those who wait, first come first served:
    /// [`granted`](Self::granted) says when.
    pub(super) fn reserve(&mut self) -> bool {
        if self.reserved || self.turn.is_some() {
            return self.reserved;
        }
        let Allowance { rows, batch } = self.allowance;
        match rows.try_acquire_many(*batch) {
            Ok(permit) => self.take(permit),
            Err(_) => self.turn = Some(Box::pin(async { rows.acquire_many(*batch).await.ok() })),
        }
        self.reserved
    }

    fn take(&mut self, permit: SemaphorePermit<'a>) {
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        self.reserved = true;
    }

    /// Whether it has a place among those who wait.
    pub(super) fn is_waiting(&self) -> bool {
        self.turn.is_some()
    }

    /// Waits until a batch may be filled. May be dropped and called again, without losing the place.
    pub(super) async fn granted(&mut self) {
        let Some(turn) = &mut self.turn else { return };
        let permit = turn.await;
        self.turn = None;
        if let Some(permit) = permit {
            self.take(permit);
        }
    }

    /// Keeps what is needed for `rows` rows that are in hand, and gives back the rest.
    pub(super) fn keep(&mut self, rows: usize) {
        self.reserved = false;
        if let Some(held) = &mut self.held {
            drop(held.split(held.num_permits().saturating_sub(rows)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll(share: &mut Share<'_>) -> Poll<()> {
        let mut waiting = std::pin::pin!(share.granted());
        waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_batch_is_reserved_and_what_was_not_read_given_back() {
        let allowance = Allowance::new(10, 6);
        let (mut one, mut two) = (allowance.share(), allowance.share());
        assert!(one.reserve() && one.reserve(), "once is enough");
        assert_eq!(allowance.rows.available_permits(), 14);
        one.keep(2);
        assert!(two.reserve());
        two.keep(6);
        assert_eq!(allowance.rows.available_permits(), 12);
        one.keep(0);
        drop(two);
        assert_eq!(allowance.rows.available_permits(), 20);
    }

    #[test]
    fn who_finds_nothing_left_waits_for_his_turn_behind_those_before_him() {
        let allowance = Allowance::new(3, 6);
        let [mut one, mut two, mut three] = [(); 3].map(|()| allowance.share());
        assert!(one.reserve());
        one.keep(6);
        assert!(one.reserve(), "a second batch while the first is written");
        one.keep(12);
        assert!(!two.reserve() && !three.reserve());
        assert!(two.is_waiting() && three.is_waiting());
        assert_eq!((poll(&mut three), poll(&mut two)), (Poll::Pending, Poll::Pending));
        one.keep(8);
        assert!(!one.reserve(), "what has come back is for those who wait");
        assert_eq!(poll(&mut two), Poll::Pending, "four of six");
        one.keep(6);
        // Who asked first comes first, whoever was polled first.
        assert_eq!((poll(&mut three), poll(&mut two)), (Poll::Ready(()), Poll::Pending));
        drop(three);
        assert_eq!(poll(&mut two), Poll::Ready(()));
        assert!(two.reserve() && !two.is_waiting());
    }

    #[test]
    fn a_place_among_those_who_wait_goes_with_him_who_leaves() {
        let allowance = Allowance::new(1, 1);
        let [mut one, mut two, mut three] = [(); 3].map(|()| allowance.share());
        assert!(one.reserve());
        one.keep(1);
        assert!(one.reserve());
        one.keep(2);
        assert!(!two.reserve() && !three.reserve());
        assert!(poll(&mut two).is_pending() && poll(&mut three).is_pending());
        drop(two);
        one.keep(1);
        assert!(poll(&mut three).is_ready());
    }
}
