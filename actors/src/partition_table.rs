//! How far each partition is: what its consumer knows of it, and what the lag watcher has read from every shard and from Kafka.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::time::Instant;

use chrono::Utc;
use serde::Serialize;

/// Where this process stands with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum PartitionState {
    /// Not ours.
    Revoked,
    /// Ours, and being claimed on its shard; it stays here while the shard is away.
    Claiming,
    /// Being read.
    Running,
    /// Somebody else has claimed it, though the group still says it is ours.
    Fenced,
    /// Needs an operator; see `reason`.
    Halted,
}

/// What this process knows of one partition.
#[derive(Debug)]
pub struct PartitionStats {
    state: AtomicU8,
    epoch: AtomicI64,
    next_offset: AtomicI64,
    /// When `next_offset` last moved or the state last changed, in ms by [`monotonic_ms`].
    moved_ms: AtomicI64,
    /// Whether something is with the writer, or on its way to the dead letters.
    waiting: AtomicBool,
    rows: AtomicU64,
    freshness_us: AtomicI64,
    high: AtomicI64,
    reason: Mutex<Option<String>>,
    owner: Mutex<Option<String>>,
}

/// ms by a clock that nobody can set: with the wall clock, a partition that needs to be claimed again would wait for as
/// long as that was set back.
fn monotonic_ms() -> i64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX)
}

impl Default for PartitionStats {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(PartitionState::Revoked as u8),
            epoch: AtomicI64::new(0),
            next_offset: AtomicI64::new(0),
            moved_ms: AtomicI64::new(monotonic_ms()),
            waiting: AtomicBool::new(false),
            rows: AtomicU64::new(0),
            freshness_us: AtomicI64::new(0),
            high: AtomicI64::new(-1),
            reason: Mutex::default(),
            owner: Mutex::default(),
        }
    }
}

/// A partition as `/stats` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionView {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The shard its rows are on.
    pub shard: usize,
    /// Where this process stands with it.
    pub state: PartitionState,
    /// Who claimed it last, by the shard's own record.
    pub owner: Option<String>,
    /// Its epoch.
    pub epoch: i64,
    /// First offset that is not in the tables.
    pub next_offset: i64,
    /// Offset of the next record that Kafka will get; `None` while Kafka has not said.
    pub high_watermark: Option<i64>,
    /// Records on Kafka that are not in the tables.
    pub lag: Option<i64>,
    /// Rows this process has written.
    pub rows: u64,
    /// Time from received to committed of the latest batch's oldest event, in seconds.
    pub freshness_seconds: f64,
    /// Why it is halted, though it may be looked at again just now.
    pub reason: Option<String>,
}

impl PartitionStats {
    fn touch(&self) {
        self.moved_ms.store(monotonic_ms(), Relaxed);
    }

    pub(crate) fn set_state(&self, state: PartitionState) {
        self.state.store(state as u8, Relaxed);
        // While it is claimed again to see whether an operator has decided, it is halted still.
        if state != PartitionState::Claiming {
            *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.touch();
    }

    /// Halts it; whether that is news.
    pub(crate) fn halt(&self, why: &str) -> bool {
        self.state.store(PartitionState::Halted as u8, Relaxed);
        self.touch();
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let before = reason.replace(why.to_owned());
        before.as_deref() != Some(why)
    }

    fn halted(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where this process stands with it.
    pub fn state(&self) -> PartitionState {
        match self.state.load(Relaxed) {
            1 => PartitionState::Claiming,
            2 => PartitionState::Running,
            3 => PartitionState::Fenced,
            4 => PartitionState::Halted,
            _ => PartitionState::Revoked,
        }
    }

    pub(crate) fn claimed(&self, epoch: i64, next_offset: i64) {
        self.epoch.store(epoch, Relaxed);
        self.next_offset.store(next_offset, Relaxed);
        self.touch();
    }

    pub(crate) fn committed(&self, next_offset: i64, rows: u64, oldest_received_us: Option<i64>) {
        self.next_offset.store(next_offset, Relaxed);
        self.rows.fetch_add(rows, Relaxed);
        if let Some(received) = oldest_received_us {
            self.freshness_us
                .store(Utc::now().timestamp_micros() - received, Relaxed);
        }
        self.touch();
    }

    /// First offset that is not in the tables, as far as this process knows.
    pub fn next_offset(&self) -> i64 {
        self.next_offset.load(Relaxed)
    }

    /// What a shard's offset row says of a partition that is not being read here.
    pub(crate) fn observed(&self, owner: Option<String>, epoch: i64, next_offset: i64) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
        if self.state() != PartitionState::Running {
            self.epoch.store(epoch, Relaxed);
            self.next_offset.store(next_offset, Relaxed);
        }
    }

    pub(crate) fn observed_high(&self, high: i64) {
        self.high.store(high, Relaxed);
    }

    /// Records on Kafka that are not in the tables; `None` while Kafka has not said.
    pub fn lag(&self) -> Option<i64> {
        let high = self.high.load(Relaxed);
        let next = self.next_offset();
        // All of a topic that was created again waits for the operator.
        let next = if high < next && self.halted().is_some() {
            0
        } else {
            next
        };
        (high >= 0).then(|| (high - next).max(0))
    }

    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Relaxed);
    }

    /// Whether its consumer waits for a writer or for a dead letter: then it is not stuck itself.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed)
    }

    /// For how long nothing has moved, in milliseconds.
    pub fn still_for_ms(&self) -> i64 {
        monotonic_ms() - self.moved_ms.load(Relaxed)
    }
}

/// All partitions of the topics that this process reads.
#[derive(Clone, Debug, Default)]
pub struct PartitionTable(Arc<RwLock<BTreeMap<(String, i32), Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    shard: usize,
    stats: Arc<PartitionStats>,
}

impl PartitionTable {
    /// The partition's entry, made on first use.
    pub fn entry(&self, topic: &str, partition: i32, shard: usize) -> Arc<PartitionStats> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let entry = table.entry((topic.to_owned(), partition)).or_insert_with(|| Entry {
            shard,
            stats: Arc::default(),
        });
        entry.stats.clone()
    }

    /// The partition's entry, if it is one of ours to read.
    pub fn get(&self, topic: &str, partition: i32) -> Option<Arc<PartitionStats>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&(topic.to_owned(), partition)).map(|e| e.stats.clone())
    }

    /// Every partition, by topic and number.
    pub fn view(&self) -> Vec<PartitionView> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table
            .iter()
            .map(|((topic, partition), Entry { shard, stats })| PartitionView {
                topic: topic.clone(),
                partition: *partition,
                shard: *shard,
                state: stats.state(),
                owner: stats.owner.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                epoch: stats.epoch.load(Relaxed),
                next_offset: stats.next_offset(),
                high_watermark: Some(stats.high.load(Relaxed)).filter(|high| *high >= 0),
                lag: stats.lag(),
                rows: stats.rows.load(Relaxed),
                freshness_seconds: stats.freshness_us.load(Relaxed) as f64 / 1e6,
                reason: stats.halted(),
            })
            .collect()
    }
}
