//! A group commit without a timer: once many records are under way to Kafka, those that come are held back until all of these
//! have arrived, and go together. A request has the records of one partition: so each has more of them, and the broker and
//! librdkafka's own thread have fewer requests. Where few are under way nothing waits.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Once so many or more are under way, what comes is held back. With a smaller number records would wait that nothing comes after.
pub(super) const MANY: usize = 32;

/// Most that are held back: as many as librdkafka takes into its own queue, unless configured. Of their bytes the bodies' memory
/// (`ingest.body_memory`) is the bound: they are of webhooks that wait for their answer.
const MOST_HELD: usize = 50_000;

/// What is held back, in the order in which it came.
pub(super) struct Waves<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    held: Vec<T>,
    /// Somebody is handing a wave on: what comes now must not overtake it.
    breaking: bool,
    /// Nothing is held back any longer than it takes to hand it on.
    last: bool,
    /// The first of those held back has come since [`Waves::overdue`] was asked.
    fresh: bool,
    /// So many of those under way have been so for long, and are no reason to hold anything back.
    slow: usize,
    /// Those under way came to be [`MANY`], and have not all arrived since.
    many: bool,
}

/// What becomes of something that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    /// It goes at once.
    Now(T),
    /// It goes later.
    Held,
    /// It goes at once, behind what was held back. Whoever is told this hands all of it on, and asks [`Waves::follow`].
    Wave(Vec<T>),
    /// There is no room.
    Full(T),
}

impl<T> Default for Waves<T> {
    fn default() -> Self {
        let state = State {
            held: Vec::new(),
            breaking: false,
            last: false,
            fresh: false,
            slow: 0,
            many: false,
        };
        Self {
            state: Mutex::new(state),
        }
    }
}

// How many are under way is asked under the lock. So whoever finds that one has arrived and then finds another one handing on a
// wave may leave the rest to that one: it asks again, and later.
impl<T> Waves<T> {
    /// When `item` goes, where so many are under way.
    pub(super) fn arrive(&self, item: T, under_way: impl FnOnce() -> usize) -> Turn<T> {
        let mut state = self.lock();
        let may_go = !state.breaking && state.may_go(under_way());
        if may_go && state.held.is_empty() {
            return Turn::Now(item);
        }
        if state.held.len() >= MOST_HELD {
            return Turn::Full(item);
        }
        state.fresh |= state.held.is_empty();
        state.held.push(item);
        if !may_go {
            return Turn::Held;
        }
        state.breaking = true;
        Turn::Wave(std::mem::take(&mut state.held))
    }

    /// The wave that goes now, if any: to be asked whenever one of those under way has arrived. Whoever gets one hands it on, and
    /// asks [`follow`](Self::follow).
    pub(super) fn next(&self, under_way: impl FnOnce() -> usize) -> Option<Vec<T>> {
        let mut state = self.lock();
        if state.breaking { None } else { state.take(under_way()) }
    }

    /// Whether [`next`](Self::next) has a wave: for who may not hand one on.
    pub(super) fn are_due(&self, under_way: impl FnOnce() -> usize) -> bool {
        let mut state = self.lock();
        let may_go = state.may_go(under_way());
        may_go && !state.breaking && !state.held.is_empty()
    }

    /// What has waited since this was asked before: those under way may be for a broker that is away, and the others shall not wait
    /// for that any longer. To be asked now and then, and as [`next`](Self::next).
    pub(super) fn overdue(&self, under_way: impl FnOnce() -> usize) -> Option<Vec<T>> {
        let mut state = self.lock();
        if std::mem::take(&mut state.fresh) || state.breaking || state.held.is_empty() {
            return None;
        }
        let under_way = under_way();
        state.slow = under_way;
        state.take(under_way)
    }

    /// A wave has been handed on; the one behind it, if any goes now.
    pub(super) fn follow(&self, under_way: impl FnOnce() -> usize) -> Option<Vec<T>> {
        self.lock().take(under_way())
    }

    /// Who handed a wave on has come to grief half-way; somebody else sees to the next one.
    pub(super) fn broke(&self) {
        self.lock().breaking = false;
    }

    /// From now on no wave waits for those under way.
    pub(super) fn last(&self) {
        self.lock().last = true;
    }

    /// Whether nothing is held back, and all waves have been handed on.
    pub(super) fn are_over(&self) -> bool {
        let state = self.lock();
        state.held.is_empty() && !state.breaking
    }

    /// Nothing panics half-way under it, nor may who tells what is under way.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn may_go(&mut self, under_way: usize) -> bool {
        self.slow = self.slow.min(under_way);
        self.many = under_way - self.slow >= if self.many { 1 } else { MANY };
        self.last || !self.many
    }

    fn take(&mut self, under_way: usize) -> Option<Vec<T>> {
        // Asked in any case, as it must learn how few were under way.
        let may_go = self.may_go(under_way);
        self.breaking = may_go && !self.held.is_empty();
        self.breaking.then(|| std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: usize = MANY - 1;

    #[test]
    fn where_few_are_under_way_nothing_waits() {
        let waves = Waves::default();
        for under_way in [0, 1, FEW] {
            assert_eq!(waves.arrive('a', || under_way), Turn::Now('a'));
        }
        assert_eq!(waves.next(|| 0), None);
        assert!(waves.are_over());
    }

    #[test]
    fn what_came_while_many_were_under_way_goes_together_and_in_order() {
        let waves = Waves::default();
        assert_eq!(waves.arrive('a', || MANY), Turn::Held);
        assert_eq!(waves.next(|| MANY), None);
        assert_eq!(
            waves.arrive('b', || FEW),
            Turn::Held,
            "some of those are still under way"
        );
        assert_eq!(waves.next(|| 1), None);
        assert!(!waves.are_due(|| 1) && waves.are_due(|| 0));
        assert_eq!(waves.next(|| 0), Some(vec!['a', 'b']));
        assert!(!waves.are_due(|| 0), "there are none");
        assert_eq!(waves.next(|| 0), None);
        assert_eq!(waves.follow(|| MANY), None);
        assert!(waves.are_over());
        assert_eq!(waves.arrive('c', || FEW), Turn::Held, "the wave itself was large");
        assert_eq!(waves.arrive('d', || 0), Turn::Wave(vec!['c', 'd']));
        assert_eq!(waves.arrive('e', || FEW), Turn::Held, "it would overtake them");
        assert!(!waves.are_due(|| FEW), "somebody else's");
        assert_eq!(waves.follow(|| 0), Some(vec!['e']));
        assert_eq!(waves.follow(|| 0), None);
        assert_eq!(waves.arrive('f', || FEW), Turn::Now('f'));
    }

    #[test]
    fn a_wave_is_not_overtaken_and_who_hands_it_on_sees_to_the_next_one() {
        let waves = Waves::default();
        assert_eq!(waves.arrive('a', || MANY), Turn::Held);
        assert_eq!(waves.next(|| 0), Some(vec!['a']));
        assert!(!waves.are_over(), "it is still being handed on");
        assert_eq!(waves.arrive('b', || 0), Turn::Held);
        assert_eq!(waves.next(|| 0), None, "somebody else's");
        assert_eq!(waves.overdue(|| 0), None, "it has just come");
        assert_eq!(waves.overdue(|| 0), None, "somebody else's, however long it takes");
        assert_eq!(waves.follow(|| 0), Some(vec!['b']));
        assert_eq!(waves.arrive('c', || MANY), Turn::Held);
        assert_eq!(waves.follow(|| MANY), None, "those under way see to it");
        assert!(!waves.are_over());
        assert_eq!(waves.next(|| 0), Some(vec!['c']));
    }

    #[test]
    fn what_is_stuck_holds_nothing_back_for_long() {
        let waves = Waves::default();
        assert_eq!(waves.overdue(|| MANY), None, "nothing waits");
        assert_eq!(waves.arrive('a', || MANY), Turn::Held, "and nothing is slow");
        assert_eq!(waves.overdue(|| MANY), None, "it has just come");
        assert_eq!(waves.overdue(|| MANY), Some(vec!['a']));
        assert_eq!(waves.follow(|| MANY + 1), None);
        // Of those under way `MANY` are slow.
        assert_eq!(waves.arrive('b', || MANY + FEW), Turn::Now('b'));
        assert_eq!(waves.arrive('c', || 2 * MANY), Turn::Held);
        assert_eq!(waves.next(|| MANY + 1), None);
        assert_eq!(waves.next(|| MANY), Some(vec!['c']), "only they are left");
        assert_eq!(waves.follow(|| 2 * MANY), None);
        // They have arrived after all.
        assert_eq!(waves.next(|| 1), None);
        assert_eq!(waves.arrive('d', || MANY + 1), Turn::Held);
    }

    #[test]
    fn a_wave_that_broke_stops_nobody() {
        let waves = Waves::default();
        assert_eq!(waves.arrive('a', || MANY), Turn::Held);
        assert_eq!(waves.next(|| 0), Some(vec!['a']));
        waves.broke();
        assert_eq!(waves.arrive('b', || 0), Turn::Now('b'));
    }

    #[test]
    fn no_more_is_held_back_than_there_is_room_for() {
        let waves = Waves::default();
        for n in 0..MOST_HELD {
            assert_eq!(waves.arrive(n, || MANY), Turn::Held);
        }
        assert_eq!(waves.arrive(MOST_HELD, || MANY), Turn::Full(MOST_HELD));
        assert_eq!(waves.next(|| 0).map(|wave| wave.len()), Some(MOST_HELD));
        assert_eq!(waves.arrive(0, || MANY), Turn::Held);
    }

    #[test]
    fn at_the_end_nothing_waits_for_what_is_under_way() {
        let waves = Waves::default();
        assert_eq!(waves.arrive('a', || MANY), Turn::Held);
        waves.last();
        assert_eq!(waves.next(|| MANY), Some(vec!['a']));
        assert_eq!(waves.follow(|| MANY), None);
        assert!(waves.are_over());
    }
}
