//! Which events were written lately: a guess that is cheap and bounded. Whoever is wrongly taken for known is written in
//! the slower way, whoever is wrongly taken for new meets the primary key; so nothing hangs on it but time.

use std::hash::{DefaultHasher, Hasher};

use crate::event::Event;

/// Blocks of a generation, a power of two: 512 KiB.
const BLOCKS: usize = 1 << 13;

/// A cache line: an event's bits are all in one.
type Block = [u64; 8];

/// Bits set for an event.
const PROBES: u32 = 4;

/// Events after which a generation is full; of strangers 2 % are then taken for known.
const FULL: usize = 400_000;

/// Two generations of a blocked Bloom filter (<https://doi.org/10.1145/1498698.1594230>): the last 400,000 to 800,000 events.
pub(crate) struct Recent {
    young: Vec<Block>,
    old: Vec<Block>,
    in_young: usize,
}

impl Recent {
    /// With no event in it. Its memory is the system's until events come.
    pub(crate) fn new() -> Self {
        Self {
            young: vec![[0; 8]; BLOCKS],
            old: vec![[0; 8]; BLOCKS],
            in_young: 0,
        }
    }

    /// Whether the event is probably known; it is from now on.
    pub(crate) fn meets(&mut self, event: &Event) -> bool {
        let mut hasher = DefaultHasher::new();
        hasher.write(event.raw(event.source));
        hasher.write(event.raw(event.event_id));
        let hash = hasher.finish();
        let block = usize::try_from(hash >> 36).unwrap_or_default() % BLOCKS;
        let (young, old) = (&mut self.young[block], &self.old[block]);
        let mut known = (true, true);
        for probe in 0..PROBES {
            // Nine bits of the hash: three choose a word, six a bit of it.
            let (word, bit) = (
                (hash >> (9 * probe)) as usize % 8,
                1 << ((hash >> (9 * probe + 3)) % 64),
            );
            known.0 &= young[word] & bit != 0;
            known.1 &= old[word] & bit != 0;
            young[word] |= bit;
        }
        if !known.0 {
            self.in_young += 1;
            if self.in_young >= FULL {
                std::mem::swap(&mut self.young, &mut self.old);
                self.young.fill([0; 8]);
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
        // 3265 as it is: four bits that are less than independent of each other show here.
        assert!(wrong < 3400, "{wrong} strangers were taken for known");
        assert!((FULL..FULL + FULL / 2).all(|id| recent.meets(&event(id))));
        // A generation later the first ones are strangers again, or nearly all.
        (2 * FULL..4 * FULL).for_each(|id| {
            recent.meets(&event(id));
        });
        let known = (0..1000).filter(|id| recent.meets(&event(*id))).count();
        assert!(known < 50, "{known} of 1000 were never forgotten");
    }
}
