//! What one partition has read and not yet committed, as pure values: filling batches, handing them out in order, and
//! cutting a rejected one down to the row at fault.

use std::collections::VecDeque;

use hookmill_schema::Row;

/// What a batch asks of a row.
pub trait BatchRow {
    /// Its record's offset.
    fn offset(&self) -> i64;
    /// Bytes that it occupies.
    fn byte_len(&self) -> usize;
    /// When its event was received, in µs since 1970; `None` where it does not say.
    fn received_at_us(&self) -> Option<i64>;
}

impl BatchRow for Row {
    fn offset(&self) -> i64 {
        self.record().offset
    }
    fn byte_len(&self) -> usize {
        self.record().byte_len()
    }
    fn received_at_us(&self) -> Option<i64> {
        self.event().map(|event| event.received_at_us())
    }
}

/// Consecutive offsets `from..next` of one partition and the rows among them. Offsets without a row are records that
/// went to the dead letters, or that Kafka itself skipped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch<R = Row> {
    /// First offset it covers: where the shard's offset row must stand.
    pub from: i64,
    /// Where that row stands afterwards.
    pub next: i64,
    /// In the order of their offsets.
    pub rows: Vec<R>,
}

impl<R: BatchRow> Batch<R> {
    /// Cuts it between two rows into halves that cover the same offsets.
    fn halve(mut self) -> (Self, Self) {
        let right = self.rows.split_off(self.rows.len() / 2);
        let at = right.first().map_or(self.next, BatchRow::offset);
        (
            Batch {
                from: self.from,
                next: at,
                rows: self.rows,
            },
            Batch {
                from: at,
                next: self.next,
                rows: right,
            },
        )
    }
}

/// Bounds of a batch; reading pauses while one is full and cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchLimits {
    /// Most rows in a batch.
    pub rows: usize,
    /// Bytes of records after which a batch is full.
    pub bytes: usize,
    /// Batches that may be with the writer at once, as long as they have no more than `rows` and `bytes` together: of small ones one is
    /// written and one waits for its turn, a full one keeps the writer busy by itself.
    pub in_flight: usize,
}

/// The way of a partition's records from read to committed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outbox<R = Row> {
    limits: BatchLimits,
    building: Batch<R>,
    building_bytes: usize,
    /// Batches that came back, in the order of their offsets. While there are any, one at a time is sent.
    returned: VecDeque<Batch<R>>,
    poison: Option<Batch<R>>,
    /// What is with the writer, oldest first.
    in_flight: VecDeque<Sent>,
}

/// What is remembered of a batch that is with the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sent {
    /// Offset behind its last record.
    pub next: i64,
    /// How many rows it has.
    pub rows: u64,
    /// Bytes of their records.
    pub bytes: usize,
    /// When the first of them was received, in µs since 1970; `None` where none of them says.
    pub oldest_received_us: Option<i64>,
}

impl Sent {
    fn of<R: BatchRow>(batch: &Batch<R>, bytes: usize) -> Self {
        Self {
            next: batch.next,
            rows: batch.rows.len() as u64,
            bytes,
            oldest_received_us: batch.rows.first().and_then(BatchRow::received_at_us),
        }
    }
}

impl<R: BatchRow> Outbox<R> {
    /// An empty one that starts at offset `next`.
    pub fn new(next: i64, limits: BatchLimits) -> Self {
        let building = Batch {
            from: next,
            next,
            rows: Vec::new(),
        };
        Self {
            limits,
            building,
            building_bytes: 0,
            returned: VecDeque::new(),
            poison: None,
            in_flight: VecDeque::new(),
        }
    }

    /// Whether another record may be read.
    pub fn has_room(&self) -> bool {
        self.returned.is_empty()
            && self.poison.is_none()
            && self.building.rows.len() < self.limits.rows
            && self.building_bytes < self.limits.bytes
    }

    /// The offset that the next record read should have at least.
    pub fn expected(&self) -> i64 {
        self.building.next
    }

    /// Takes a row that was read.
    pub fn push(&mut self, row: R) {
        self.building.next = row.offset() + 1;
        self.building_bytes += row.byte_len();
        self.building.rows.push(row);
    }

    /// Passes over offsets up to `next` that have no row.
    pub fn skip_to(&mut self, next: i64) {
        self.building.next = next;
    }

    /// The batch to send now, if any; it counts as in flight until [`committed`](Self::committed),
    /// [`rejected`](Self::rejected) or [`out_of_step`](Self::out_of_step).
    pub fn next_batch(&mut self) -> Option<Batch<R>> {
        if self.poison.is_some() {
            return None;
        }
        if !self.returned.is_empty() {
            if !self.in_flight.is_empty() {
                return None;
            }
            let batch = self.returned.pop_front()?;
            let bytes = batch.rows.iter().map(BatchRow::byte_len).sum();
            self.in_flight.push_back(Sent::of(&batch, bytes));
            return Some(batch);
        }
        if self.building.next == self.building.from || !self.may_follow() {
            return None;
        }
        let bytes = std::mem::take(&mut self.building_bytes);
        self.in_flight.push_back(Sent::of(&self.building, bytes));
        let next = self.building.next;
        Some(std::mem::replace(
            &mut self.building,
            Batch {
                from: next,
                next,
                rows: Vec::new(),
            },
        ))
    }

    /// Whether what has been gathered may go to the writer behind what is there.
    fn may_follow(&self) -> bool {
        let rows = self.in_flight.iter().map(|sent| sent.rows).sum::<u64>() + self.building.rows.len() as u64;
        let bytes = self.in_flight.iter().map(|sent| sent.bytes).sum::<usize>() + self.building_bytes;
        let fits = rows <= self.limits.rows as u64 && bytes <= self.limits.bytes;
        self.in_flight.is_empty() || (self.in_flight.len() < self.limits.in_flight && fits)
    }

    /// Rows that are held, be they with the writer or not.
    pub fn rows(&self) -> usize {
        let in_flight: u64 = self.in_flight.iter().map(|sent| sent.rows).sum();
        let poison = self.poison.as_ref().map_or(0, |batch| batch.rows.len());
        usize::try_from(in_flight).unwrap_or(usize::MAX) + self.waiting_rows() + poison
    }

    /// Rows that are held and not with the writer.
    pub fn waiting_rows(&self) -> usize {
        self.building.rows.len() + self.returned.iter().map(|b| b.rows.len()).sum::<usize>()
    }

    /// The oldest batch in flight is committed.
    pub fn committed(&mut self) -> Option<Sent> {
        self.in_flight.pop_front()
    }

    /// The oldest batch in flight was refused for a row's fault: it is cut in half, or its only row is the one at
    /// fault, see [`poison`](Self::poison).
    pub fn rejected(&mut self, batch: Batch<R>) {
        self.in_flight.pop_front();
        if batch.rows.len() > 1 {
            let (left, right) = batch.halve();
            self.returned.push_front(right);
            self.returned.push_front(left);
        } else {
            self.poison = Some(batch);
        }
    }

    /// A batch was not tried because one before it was refused.
    pub fn out_of_step(&mut self, batch: Batch<R>) {
        self.in_flight.pop_front();
        let at = self.returned.partition_point(|b| b.from < batch.from);
        self.returned.insert(at, batch);
    }

    /// The row that was found at fault, once nothing behind it is in flight any more: to be buried before
    /// [`step_over_poison`](Self::step_over_poison).
    pub fn poison(&self) -> Option<&R> {
        if !self.in_flight.is_empty() {
            None
        } else {
            self.poison.as_ref().and_then(|batch| batch.rows.first())
        }
    }

    /// The row at fault is buried: its offsets join the batch behind it.
    pub fn step_over_poison(&mut self) {
        if let Some(poison) = self.poison.take() {
            let behind = self.returned.front_mut().unwrap_or(&mut self.building);
            behind.from = poison.from;
        }
    }
}

#[cfg(test)]
mod tests;
