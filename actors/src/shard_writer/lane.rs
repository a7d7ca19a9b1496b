//! What a writer does in one cycle: connect if need be, make the claims that wait, then write one statement.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::Utc;
use hookmill_schema::partitions::{self, Month};
use hookmill_schema::{ErrorClass, Part, Row, ShardError, Table, Writer, offsets, shard};
use tracing::{error, info, warn};

use super::holdings::{Hold, Holdings, Merged, Verdict, Waiting};
use super::{ANSWER_GRACE, Claim, Claimed, Job, PartitionId, ShardWriterSettings, WriteBatch, WriteOutcome};
use crate::stats::ActorStats;

/// A lane's connection and what it has claimed over it.
pub(super) struct Lane {
    settings: ShardWriterSettings,
    stats: Arc<ActorStats>,
    connection: Option<shard::Connection>,
    writer: Writer,
    holdings: Holdings<PartitionId>,
    /// Tells of each holding whether its consumer is still there.
    leases: HashMap<PartitionId, Weak<()>>,
    /// Rows after which no further batch is merged into a statement: fewer than configured while that takes too long.
    most_rows: usize,
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
            stats,
            connection: None,
            writer: Writer::default(),
            holdings: Holdings::new(CLAIMS.load(Relaxed)),
            leases: HashMap::new(),
            most_rows: settings.max_rows,
            troubles: 0,
            statements: 0,
            rows: 0,
            settings,
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
            | ErrorClass::TooSlow
            | ErrorClass::Retry
            | ErrorClass::MissingPartition
            | ErrorClass::Schema => false,
        };
        if lost {
            self.disconnect();
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

    fn disconnect(&mut self) {
        self.connection = None;
        self.stats.show("connected", false);
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
        self.let_go();
        let mut connection = shard::connect(&self.settings.url, &self.settings.connect).await?;
        // A statement that was under way when the last connection broke may have been committed or not, or still be
        // running: raising the epoch of what we hold waits for it, fences it, and reads the truth.
        let mut topics: HashMap<Arc<str>, Vec<(i32, i64)>> = HashMap::new();
        for (id, held) in &self.holdings.held {
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

    /// Forgets what nobody reads here any more: it was handed over, and its new owner's claim is not to be disputed.
    fn let_go(&mut self) {
        self.leases.retain(|_, lease| lease.strong_count() > 0);
        self.holdings.held.retain(|id, _| self.leases.contains_key(id));
    }

    /// Takes note of a reclaim: what came back is still ours, the rest is somebody else's by now.
    fn reclaimed(&mut self, topic: &Arc<str>, asked: &[(i32, i64)], ours: &[(i32, offsets::Claimed)]) {
        for (partition, _) in asked {
            let id = PartitionId {
                topic: topic.clone(),
                partition: *partition,
            };
            let found = ours.iter().find(|(p, _)| p == partition);
            if found.is_none() {
                warn!(shard = self.settings.shard, topic = %id.topic, partition = id.partition, "fenced: another instance has claimed the partition");
            }
            let found = found.map(|(_, claimed)| (claimed.epoch, claimed.next_offset));
            self.holdings.reclaimed(&id, found);
        }
    }

    async fn claim(&mut self, claim: Claim) -> Result<(), (Claim, ShardError)> {
        if claim.reply.is_closed() {
            return Ok(());
        }
        let Some(connection) = self.connection.as_mut() else {
            return Ok(());
        };
        let claimant = offsets::Claimant {
            owner: &self.settings.owner,
            topic_id: claim.topic_id.as_deref(),
            halt: claim.halt.as_deref(),
        };
        let made = offsets::claim(connection, &claim.id.topic, claim.id.partition, claimant);
        match answered(&self.settings, made).await {
            Err(error) => Err((claim, error)),
            Ok((made, kept)) => {
                self.all_well();
                let held = Hold {
                    claim: CLAIMS.fetch_add(1, Relaxed),
                    epoch: made.epoch,
                    next: made.next_offset,
                };
                let lease = Arc::new(());
                self.leases.insert(claim.id.clone(), Arc::downgrade(&lease));
                let answer = Claimed {
                    lease,
                    claim: held.claim,
                    next_offset: held.next,
                    epoch: held.epoch,
                    kept,
                };
                self.holdings.held.insert(claim.id, held);
                // Whoever gave up waiting leaves a claim that nobody uses; the next one raises the epoch again.
                let _ = claim.reply.send(answer);
                Ok(())
            }
        }
    }

    /// Takes the batches for one statement out of `jobs`, and answers those that need none.
    fn choose(&self, jobs: &mut VecDeque<Job>) -> Vec<WriteBatch> {
        let (mut left, mut waiting) = (VecDeque::new(), VecDeque::new());
        for job in jobs.drain(..) {
            match job {
                Job::Write(write) => waiting.push_back(write),
                claim @ Job::Claim(_) => left.push_back(claim),
            }
        }
        let choice = self.holdings.choose(waiting, self.most_rows);
        for (write, verdict) in choice.answered {
            answer(write, |batch| match verdict {
                Verdict::Committed => WriteOutcome::Committed,
                Verdict::OutOfStep => WriteOutcome::OutOfStep(batch),
                Verdict::Fenced => WriteOutcome::Fenced,
            });
        }
        left.extend(choice.left.into_iter().map(Job::Write));
        *jobs = left;
        choice.chosen
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
            if !self.holdings.is_in_step(&write) {
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
        let merged = self.holdings.merge(&chosen);
        let Some(connection) = self.connection.as_mut() else {
            return Err((chosen, Trouble::Later));
        };
        let (parts, table) = (parts(&merged, &chosen), table_of(&chosen));
        self.statements += 1;
        let result = answered(&self.settings, self.writer.write(connection, table, &topic, &parts)).await;
        let given_up = connection.is_given_up();
        drop(parts);
        if given_up {
            self.disconnect();
        }
        let error = match result {
            Ok(passed) => return self.passed(chosen, &topic, &merged, &passed).await,
            Err(error) => error,
        };
        match error.class {
            ErrorClass::Row | ErrorClass::Split => Err((chosen, Trouble::Refused(error))),
            ErrorClass::TooSlow => Err(self.make_smaller(chosen, error).await),
            ErrorClass::MissingPartition => self.make_partitions(chosen, error).await,
            ErrorClass::Retry | ErrorClass::Connection | ErrorClass::Schema => {
                self.trouble(&error).await;
                Err((chosen, Trouble::Later))
            }
        }
    }

    /// A statement that took the shard too long is tried again with half as many rows; a single batch is cut for that, as
    /// one with a bad row would be. A single row only waits.
    async fn make_smaller(&mut self, chosen: Vec<WriteBatch>, error: ShardError) -> (Vec<WriteBatch>, Trouble) {
        let rows: usize = chosen.iter().map(|write| write.batch.rows.len()).sum();
        self.most_rows = (rows / 2).max(1);
        self.trouble(&error).await;
        if chosen.len() == 1 && rows > 1 {
            return (chosen, Trouble::Refused(error));
        }
        (chosen, Trouble::Later)
    }

    /// The statement was committed for the partitions in `passed`. Whether another one is lost, the offset row says.
    async fn passed(
        &mut self,
        chosen: Vec<WriteBatch>,
        topic: &Arc<str>,
        merged: &[Merged<PartitionId>],
        passed: &[i32],
    ) -> Result<(), (Vec<WriteBatch>, Trouble)> {
        self.all_well();
        self.most_rows = self.most_rows.saturating_mul(2).min(self.settings.max_rows);
        let passed = |id: &PartitionId| passed.contains(&id.partition);
        for part in merged.iter().filter(|part| passed(&part.id)) {
            self.holdings.moved(&part.id, part.next);
        }
        let mut rest = Vec::new();
        for write in chosen {
            if passed(&write.id) {
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
        let asked: Vec<(i32, i64)> = merged
            .iter()
            .filter(|part| !passed(&part.id))
            .map(|part| (part.id.partition, part.epoch))
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

/// The rows of a statement's parts.
fn parts<'a>(merged: &[Merged<PartitionId>], chosen: &'a [WriteBatch]) -> Vec<Part<'a>> {
    let part = |part: &Merged<PartitionId>| Part {
        partition: part.id.partition,
        from: part.from,
        next: part.next,
        epoch: part.epoch,
        rows: part.batches.iter().flat_map(|at| &chosen[*at].batch.rows).collect(),
    };
    merged.iter().map(part).collect()
}

impl Waiting<PartitionId> for WriteBatch {
    fn id(&self) -> &PartitionId {
        &self.id
    }
    fn claim(&self) -> u64 {
        self.claim
    }
    fn from(&self) -> i64 {
        self.batch.from
    }
    fn next(&self) -> i64 {
        self.batch.next
    }
    fn rows(&self) -> usize {
        self.batch.rows.len()
    }
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }
    fn goes_with(&self, other: &Self) -> bool {
        self.id.topic == other.id.topic
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
