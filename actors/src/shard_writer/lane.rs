//! What a writer does in one cycle: connect if need be, make the claims that wait, then write one statement.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use chrono::Utc;
use hookmill_schema::partitions::{self, Month};
use hookmill_schema::{ErrorClass, Part, Row, ShardError, Table, Writer, offsets, shard};
use tracing::{error, info, warn};

use super::{ANSWER_GRACE, Claim, Claimed, Job, PartitionId, ShardWriterSettings, WriteBatch, WriteOutcome};
use crate::stats::ActorStats;

/// A partition that this lane has claimed.
struct Held {
    claim: u64,
    epoch: i64,
    next: i64,
}

/// A lane's connection and what it has claimed over it.
pub(super) struct Lane {
    settings: ShardWriterSettings,
    stats: Arc<ActorStats>,
    connection: Option<shard::Connection>,
    writer: Writer,
    held: HashMap<PartitionId, Held>,
    /// Claims with a lower number were made by a writer that has ended.
    first_claim: u64,
    /// Attempts in a row that the shard refused or did not answer.
    troubles: u32,
    statements: u64,
    rows: u64,
}

/// Numbers the claims of all lanes: none is used twice, so that a writer knows those of its predecessor.
static CLAIMS: AtomicU64 = AtomicU64::new(0);

/// How an attempt to write some jobs ended, when not well.
enum Trouble {
    /// Nothing was written for the fault of one of its rows, or because its parts cannot be in one statement.
    Refused(ShardError),
    /// Try again later.
    Later,
}

impl Lane {
    pub(super) fn new(settings: ShardWriterSettings, stats: Arc<ActorStats>) -> Self {
        stats.show("connected", false);
        Self {
            settings,
            stats,
            connection: None,
            writer: Writer::default(),
            held: HashMap::new(),
            first_claim: CLAIMS.load(Relaxed),
            troubles: 0,
            statements: 0,
            rows: 0,
        }
    }

    /// Makes the claims in `jobs` and writes one statement's worth of the batches; what is left stays in `jobs`.
    pub(super) async fn cycle(&mut self, jobs: &mut VecDeque<Job>) {
        if let Err(error) = self.ensure_connected().await {
            return self.trouble(&error).await;
        }
        let mut claims = take_claims(jobs);
        while let Some(claim) = claims.pop_front() {
            if let Err((claim, error)) = self.claim(claim).await {
                jobs.push_front(Job::Claim(claim));
                jobs.extend(claims.into_iter().map(Job::Claim));
                return self.trouble(&error).await;
            }
        }
        let chosen = self.choose(jobs);
        if !chosen.is_empty() {
            self.write_or_return(chosen, jobs).await;
        }
    }

    /// Counts and reports a failure that is the shard's, drops the connection where it is lost, and waits a while.
    async fn trouble(&mut self, error: &ShardError) {
        let lost = match error.class {
            ErrorClass::Connection => true,
            ErrorClass::Row
            | ErrorClass::Split
            | ErrorClass::Retry
            | ErrorClass::MissingPartition
            | ErrorClass::Schema => false,
        };
        if lost {
            self.connection = None;
            self.stats.show("connected", false);
        }
        self.stats.record_error(&error.to_string());
        let delay = self.settings.backoff.delay(self.troubles, rand::random());
        // One line when it starts and then ever more rarely: an outage of an hour must not fill the log.
        if self.troubles == 0 || self.troubles.is_power_of_two() {
            let (shard, lane, attempt) = (self.settings.shard, self.settings.lane, self.troubles + 1);
            if error.class == ErrorClass::Schema {
                error!(shard, lane, attempt, %error, "the shard's tables are not as expected: run `hookmill migrate`; waiting, nothing is lost");
            } else {
                warn!(shard, lane, attempt, %error, "the shard cannot be written; waiting and trying again, nothing is lost");
            }
        }
        self.troubles = self.troubles.saturating_add(1);
        self.stats.show("troubles", self.troubles);
        tokio::time::sleep(delay).await;
    }

    fn all_well(&mut self) {
        if self.troubles > 0 {
            info!(
                shard = self.settings.shard,
                lane = self.settings.lane,
                attempts = self.troubles,
                "the shard can be written again"
            );
            self.troubles = 0;
            self.stats.show("troubles", 0);
        }
    }

    async fn ensure_connected(&mut self) -> Result<(), ShardError> {
        if self.connection.is_some() {
            return Ok(());
        }
        let mut connection = shard::connect(&self.settings.url, &self.settings.connect).await?;
        // A statement that was under way when the last connection broke may have been committed or not, or still be
        // running: raising the epoch of what we hold waits for it, fences it, and reads the truth.
        let mut topics: HashMap<Arc<str>, Vec<(i32, i64)>> = HashMap::new();
        for (id, held) in &self.held {
            topics
                .entry(id.topic.clone())
                .or_default()
                .push((id.partition, held.epoch));
        }
        for (topic, partitions) in topics {
            let ours = answered(
                &self.settings,
                offsets::reclaim(&mut connection, &topic, &partitions, &self.settings.owner),
            )
            .await?;
            self.reclaimed(&topic, &partitions, &ours);
        }
        self.connection = Some(connection);
        self.stats.show("connected", true);
        Ok(())
    }

    /// Takes note of a reclaim: what came back is still ours, the rest is somebody else's by now.
    fn reclaimed(&mut self, topic: &Arc<str>, asked: &[(i32, i64)], ours: &[(i32, offsets::Claimed)]) {
        for (partition, _) in asked {
            let id = PartitionId {
                topic: topic.clone(),
                partition: *partition,
            };
            match ours.iter().find(|(p, _)| p == partition) {
                Some((_, claimed)) => {
                    if let Some(held) = self.held.get_mut(&id) {
                        held.epoch = claimed.epoch;
                        held.next = claimed.next_offset;
                    }
                }
                None => {
                    warn!(shard = self.settings.shard, topic = %id.topic, partition = id.partition, "fenced: another instance has claimed the partition");
                    self.held.remove(&id);
                }
            }
        }
    }

    async fn claim(&mut self, claim: Claim) -> Result<(), (Claim, ShardError)> {
        if claim.reply.is_closed() {
            return Ok(());
        }
        let Some(connection) = self.connection.as_mut() else {
            return Ok(());
        };
        let made = offsets::claim(connection, &claim.id.topic, claim.id.partition, &self.settings.owner);
        match answered(&self.settings, made).await {
            Err(error) => Err((claim, error)),
            Ok(made) => {
                self.all_well();
                let held = Held {
                    claim: CLAIMS.fetch_add(1, Relaxed),
                    epoch: made.epoch,
                    next: made.next_offset,
                };
                let answer = Claimed {
                    claim: held.claim,
                    next_offset: held.next,
                    epoch: held.epoch,
                };
                self.held.insert(claim.id, held);
                // Whoever gave up waiting leaves a claim that nobody uses; the next one raises the epoch again.
                let _ = claim.reply.send(answer);
                Ok(())
            }
        }
    }

    /// Takes the batches for one statement out of `jobs`: all of the first one's topic, in order, up to the limit of
    /// rows. Batches that cannot be written any more are answered on the way.
    fn choose(&self, jobs: &mut VecDeque<Job>) -> Vec<WriteBatch> {
        let mut chosen: Vec<WriteBatch> = Vec::new();
        let (mut rows, mut left) = (0, VecDeque::new());
        let mut expected: HashMap<PartitionId, i64> = HashMap::new();
        let mut waiting: HashSet<PartitionId> = HashSet::new();
        while let Some(job) = jobs.pop_front() {
            let write = match job {
                Job::Write(write) => write,
                claim @ Job::Claim(_) => {
                    left.push_back(claim);
                    continue;
                }
            };
            // Without an answer its consumer claims again.
            if write.reply.is_closed() || write.claim < self.first_claim {
                continue;
            }
            let held = match self.held.get(&write.id) {
                Some(held) if held.claim == write.claim => held,
                _ => {
                    answer(write, |_| WriteOutcome::Fenced);
                    continue;
                }
            };
            if waiting.contains(&write.id) {
                left.push_back(Job::Write(write));
                continue;
            }
            let stands = expected.get(&write.id).copied().unwrap_or(held.next);
            if write.batch.next <= stands {
                // Its statement was committed, and the answer lost with the connection.
                answer(write, |_| WriteOutcome::Committed);
                continue;
            }
            let other_topic = chosen.first().is_some_and(|first| first.id.topic != write.id.topic);
            let full = !chosen.is_empty() && rows + write.batch.rows.len() > self.settings.max_rows;
            if other_topic || full {
                waiting.insert(write.id.clone());
                left.push_back(Job::Write(write));
            } else if write.batch.from != stands {
                answer(write, WriteOutcome::OutOfStep);
            } else {
                rows += write.batch.rows.len();
                expected.insert(write.id.clone(), write.batch.next);
                chosen.push(write);
            }
        }
        *jobs = left;
        chosen
    }

    /// Writes `chosen`, merged if possible, and answers each. What could not be tried goes back to the front of `jobs`.
    async fn write_or_return(&mut self, chosen: Vec<WriteBatch>, jobs: &mut VecDeque<Job>) {
        let mut waiting = match self.write(chosen).await {
            Ok(()) => return,
            Err((all, Trouble::Later)) => return give_back(all.into_iter(), jobs),
            Err((alone, Trouble::Refused(error))) if alone.len() == 1 => return reject(alone, error),
            Err((many, Trouble::Refused(_))) => VecDeque::from(many),
        };
        // Somebody's row is at fault, or two parts met on one state row: each for itself, so that only the guilty one
        // is cut.
        while let Some(write) = waiting.pop_front() {
            if self
                .held
                .get(&write.id)
                .is_none_or(|held| held.next != write.batch.from)
            {
                answer(write, WriteOutcome::OutOfStep);
                continue;
            }
            match self.write(vec![write]).await {
                Ok(()) => {}
                Err((alone, Trouble::Refused(error))) => reject(alone, error),
                Err((alone, Trouble::Later)) => return give_back(alone.into_iter().chain(waiting), jobs),
            }
        }
    }

    async fn write(&mut self, chosen: Vec<WriteBatch>) -> Result<(), (Vec<WriteBatch>, Trouble)> {
        let Some(first) = chosen.first() else { return Ok(()) };
        let topic = first.id.topic.clone();
        let (parts, table) = (self.parts(&chosen), table_of(&chosen));
        let Some(connection) = self.connection.as_mut() else {
            drop(parts);
            return Err((chosen, Trouble::Later));
        };
        self.statements += 1;
        let result = answered(&self.settings, self.writer.write(connection, table, &topic, &parts)).await;
        let wanted: Vec<(i32, i64, i64)> = parts.iter().map(|p| (p.partition, p.epoch, p.next)).collect();
        drop(parts);
        let error = match result {
            Ok(passed) => return self.passed(chosen, &topic, &wanted, &passed).await,
            Err(error) => error,
        };
        match error.class {
            ErrorClass::Row | ErrorClass::Split => Err((chosen, Trouble::Refused(error))),
            ErrorClass::MissingPartition => self.make_partitions(chosen, error).await,
            ErrorClass::Retry | ErrorClass::Connection | ErrorClass::Schema => {
                self.trouble(&error).await;
                Err((chosen, Trouble::Later))
            }
        }
    }

    /// One part for each partition: consecutive batches of one are one part.
    fn parts<'a>(&self, chosen: &'a [WriteBatch]) -> Vec<Part<'a>> {
        let mut parts: Vec<Part<'a>> = Vec::with_capacity(chosen.len());
        for write in chosen {
            let rows = write.batch.rows.iter();
            if let Some(part) = parts.iter_mut().find(|p| p.partition == write.id.partition) {
                part.next = write.batch.next;
                part.rows.extend(rows);
            } else if let Some(held) = self.held.get(&write.id) {
                let WriteBatch { id, batch, .. } = write;
                parts.push(Part {
                    partition: id.partition,
                    from: batch.from,
                    next: batch.next,
                    epoch: held.epoch,
                    rows: rows.collect(),
                });
            }
        }
        parts
    }

    /// The statement was committed for the partitions in `passed`. Whether another one is lost, the offset row says.
    async fn passed(
        &mut self,
        chosen: Vec<WriteBatch>,
        topic: &Arc<str>,
        wanted: &[(i32, i64, i64)],
        passed: &[i32],
    ) -> Result<(), (Vec<WriteBatch>, Trouble)> {
        self.all_well();
        for (partition, _, next) in wanted.iter().filter(|(p, ..)| passed.contains(p)) {
            if let Some(held) = self.held.get_mut(&PartitionId {
                topic: topic.clone(),
                partition: *partition,
            }) {
                held.next = *next;
            }
        }
        let mut rest = Vec::new();
        for write in chosen {
            if passed.contains(&write.id.partition) {
                self.rows += write.batch.rows.len() as u64;
                self.stats.add_handled(write.batch.rows.len() as u64);
                answer(write, |_| WriteOutcome::Committed);
            } else {
                rest.push(write);
            }
        }
        self.stats.show("statements", self.statements);
        self.stats.show("rows", self.rows);
        let (copied, refused) = self.writer.copies();
        self.stats.show("copies", copied);
        self.stats.show("copies_refused", refused);
        if rest.is_empty() {
            return Ok(());
        }
        let asked: Vec<(i32, i64)> = wanted
            .iter()
            .filter(|(p, ..)| !passed.contains(p))
            .map(|(p, epoch, _)| (*p, *epoch))
            .collect();
        let Some(connection) = self.connection.as_mut() else {
            return Err((rest, Trouble::Later));
        };
        match answered(
            &self.settings,
            offsets::reclaim(connection, topic, &asked, &self.settings.owner),
        )
        .await
        {
            Ok(ours) => self.reclaimed(topic, &asked, &ours),
            Err(error) => self.trouble(&error).await,
        }
        // Back in the queue they meet what the reclaim found: committed, to be written, or fenced.
        Err((rest, Trouble::Later))
    }

    /// Makes the event partitions that the rows need, within the window; a row outside of it is its own fault.
    async fn make_partitions(
        &mut self,
        chosen: Vec<WriteBatch>,
        mut error: ShardError,
    ) -> Result<(), (Vec<WriteBatch>, Trouble)> {
        let now = Utc::now();
        let (oldest, newest) = (now - self.settings.window_past, now + self.settings.window_future);
        let mut months: BTreeSet<Month> = BTreeSet::new();
        for event in chosen.iter().flat_map(|w| &w.batch.rows).filter_map(Row::event) {
            if (oldest.timestamp_micros()..=newest.timestamp_micros()).contains(&event.occurred_at_us()) {
                months.insert(Month::of_us(event.occurred_at_us()));
            } else {
                error.message = format!(
                    "no event partition can hold occurred_at {}: partitions are made on demand from {} to {} (config: events.window_past, events.window_future)",
                    partitions::display_us(event.occurred_at_us()),
                    oldest.date_naive(),
                    newest.date_naive()
                );
                return Err((chosen, Trouble::Refused(error)));
            }
        }
        let table = table_of(&chosen);
        if let Err(error) = answered(&self.settings, self.ensure_months(table, months)).await {
            self.trouble(&error).await;
        }
        Err((chosen, Trouble::Later))
    }
}

impl Lane {
    /// Over a connection of its own: it is rare, and the writer's has only the write statements to know.
    async fn ensure_months(&self, table: Table, months: BTreeSet<Month>) -> Result<(), ShardError> {
        let mut connection = shard::connect_upkeep(&self.settings.url, &self.settings.connect).await?;
        for month in months {
            if let Some(name) = partitions::ensure_month(&mut connection, table, month).await? {
                info!(shard = self.settings.shard, partition = %name, "event partition made on demand");
            }
        }
        Ok(())
    }
}

fn table_of(chosen: &[WriteBatch]) -> Table {
    chosen.first().map_or(Table::Orders, |write| write.table)
}

fn take_claims(jobs: &mut VecDeque<Job>) -> VecDeque<Claim> {
    let mut claims = VecDeque::new();
    for job in std::mem::take(jobs) {
        match job {
            Job::Claim(claim) => claims.push_back(claim),
            write @ Job::Write(_) => jobs.push_back(write),
        }
    }
    claims
}

fn reject(alone: Vec<WriteBatch>, error: ShardError) {
    for write in alone {
        let error = error.clone();
        answer(write, |batch| WriteOutcome::Rejected { batch, error });
    }
}

fn give_back(writes: impl DoubleEndedIterator<Item = WriteBatch>, jobs: &mut VecDeque<Job>) {
    for write in writes.rev() {
        jobs.push_front(Job::Write(write));
    }
}

fn answer(write: WriteBatch, outcome: impl FnOnce(super::Batch) -> WriteOutcome) {
    // The partition may have been revoked meanwhile: then nobody waits for it.
    let _ = write.reply.send(outcome(write.batch));
}

/// Awaits an answer, but not for ever: the server ends a statement by itself, so silence beyond that means that the
/// connection is dead, and it is then dropped, never used again.
async fn answered<T>(
    settings: &ShardWriterSettings,
    statement: impl Future<Output = Result<T, ShardError>>,
) -> Result<T, ShardError> {
    let patience: Duration = settings.connect.statement_timeout + ANSWER_GRACE;
    tokio::time::timeout(patience, statement).await.unwrap_or_else(|_| {
        Err(ShardError::connection(format!(
            "no answer within {} s",
            patience.as_secs()
        )))
    })
}
