//! Which events were written lately: a guess that is cheap and bounded. Whoever is wrongly taken for known is written in
//! the slower way, whoever is wrongly taken for new meets the primary key; so nothing hangs on it but time.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::event::Event;

/// Bits of a generation, a power of two: 512 KiB.
const BITS: u64 = 1 << 22;

/// Bits set for an event.
const PROBES: u64 = 4;

/// Events after which a generation is full; of strangers 1 % are then taken for known.
const FULL: usize = 400_000;

/// Two generations of a Bloom filter (<https://doi.org/10.1145/362686.362692>): the last 400,000 to 800,000 events.
pub(crate) struct Recent {
    young: Vec<u64>,
    old: Vec<u64>,
    in_young: usize,
}

impl Recent {
    /// With no event in it. Its memory is the system's until events come.
    pub(crate) fn new() -> Self {
        let empty = || vec![0; usize::try_from(BITS / 64).unwrap_or_default()];
        Self {
            young: empty(),
            old: empty(),
            in_young: 0,
        }
    }

    /// Whether the event is probably known; it is from now on.
    pub(crate) fn meets(&mut self, event: &Event) -> bool {
        let mut hasher = DefaultHasher::new();
        event.source().hash(&mut hasher);
        event.event_id().hash(&mut hasher);
        let hash = hasher.finish();
        // Double hashing: the probes are an arithmetic progression made of the two halves.
        let (start, step) = (hash >> 32, hash | 1);
        let mut known = (true, true);
        for probe in 0..PROBES {
            let bit = start.wrapping_add(probe.wrapping_mul(step)) % BITS;
            let (word, mask) = (usize::try_from(bit / 64).unwrap_or_default(), 1 << (bit % 64));
            known.0 &= self.young[word] & mask != 0;
            known.1 &= self.old[word] & mask != 0;
            self.young[word] |= mask;
        }
        if !known.0 {
            self.in_young += 1;
            if self.in_young >= FULL {
                std::mem::swap(&mut self.young, &mut self.old);
                self.young.fill(0);
                self.in_young = 0;
            }
        }
        known.0 || known.1
    }
}

impl std::fmt::Debug for Recent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recent")
            .field("in_young", &self.in_young)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;
    use crate::record::Record;

    fn event(id: usize) -> Event {
        let value = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"t","time":"2026-01-01T00:00:00Z","kind":"order","userid":"u","orderid":"o","status":"paid","data":{{}}}}"#
        );
        let record = Record::new(0, None, None, Some(value.as_bytes()), std::iter::empty());
        Event::decode(record, Kind::Order).expect("an event")
    }

    #[test]
    fn what_was_written_lately_is_known_and_few_others_are() {
        let mut recent = Recent::new();
        let wrong = (0..FULL + FULL / 2).filter(|id| recent.meets(&event(*id))).count();
        assert!(wrong < FULL / 50, "{wrong} strangers were taken for known");
        assert!((FULL..FULL + FULL / 2).all(|id| recent.meets(&event(id))));
        // A generation later the first ones are strangers again, or nearly all.
        (2 * FULL..4 * FULL).for_each(|id| {
            recent.meets(&event(id));
        });
        let known = (0..1000).filter(|id| recent.meets(&event(*id))).count();
        assert!(known < 50, "{known} of 1000 were never forgotten");
    }
}
