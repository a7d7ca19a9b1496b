//! Reading: from the queue to batches, from the writer's answers to the next batch.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use chrono::Utc;
use hookmill_schema::dead_letters::{Failure, Stage};
use hookmill_schema::{Record, Row, ShardError};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use tokio::sync::Notify;

use super::*;
use crate::batch::{Batch, Outbox};
use crate::dead_letters::Bury;
use crate::rebalance::GroupContext;

/// A record on its way to the dead-letter topic; the partition's offset waits for it.
struct Burial<'a> {
    done: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
    grave: Grave,
}

enum Grave {
    /// Read, and not understood: its offset is passed when it is buried.
    Undecodable { offset: i64 },
    /// Refused by Postgres.
    Poison,
}

impl Reader {
    pub(super) async fn read(
        &self,
        queue: &PartitionQueue<GroupContext>,
        wake: &Notify,
        claimed: Claimed,
        start: i64,
    ) -> Result<Ended, String> {
        let mut outbox = Outbox::new(claimed.next_offset, self.context.limits);
        // From a claim before the start of the topic the offset row steps up to it.
        outbox.skip_to(start);
        let mut answers: VecDeque<oneshot::Receiver<WriteOutcome>> = VecDeque::new();
        let mut burial: Option<Burial<'_>> = None;
        let mut refused: Option<ShardError> = None;
        // Offsets of the batches that were refused, so that a dead letter can say how often its record was tried.
        let mut refusals: Vec<Range<i64>> = Vec::new();
        let mut share = self.context.lane(self.id.partition).allowance.share();
        loop {
            fail_point!("partition_consumer::read");
            let mut full = burial.is_none() && !outbox.has_room();
            if burial.is_none() && !full && share.reserve() {
                match self.fill(queue, &mut outbox).await? {
                    Filled::Empty => {}
                    Filled::Full => full = true,
                    Filled::Undecodable(record, why) => burial = Some(self.bury_undecodable(record, why)),
                }
            }
            while let Some(batch) = outbox.next_batch() {
                answers.push_back(self.send(batch, claimed.claim));
            }
            // Sending a full batch made room for what is still in the queue, which will not wake us for it.
            let more = full && outbox.has_room() && !share.is_waiting();
            if burial.is_none()
                && let Some(row) = outbox.poison()
            {
                let offset = row.record().offset;
                let tried = refusals.iter().filter(|refusal| refusal.contains(&offset)).count();
                match self.bury_poison(row, refused.take(), tried) {
                    Ok(grave) => burial = Some(grave),
                    Err(halted) => return Ok(halted),
                }
            }
            self.life.stats().queue_depth.store(
                i64::try_from(outbox.waiting_rows()).unwrap_or(i64::MAX),
                std::sync::atomic::Ordering::Relaxed,
            );
            self.stats.set_waiting(!answers.is_empty() || burial.is_some());
            // Who waits for the dead letters, for how long nobody knows, keeps nothing from the others.
            share.keep(if burial.is_some() { 0 } else { outbox.rows() });
            tokio::select! {
                biased;
                answer = front(&mut answers) => {
                    answers.pop_front();
                    match answer {
                        Ok(WriteOutcome::Committed) => self.committed(&mut outbox),
                        Ok(WriteOutcome::Rejected { batch, error }) => {
                            refused = Some(error);
                            refusals.retain(|refusal| refusal.end > batch.from);
                            refusals.push(batch.from..batch.next);
                            outbox.rejected(batch);
                        }
                        Ok(WriteOutcome::OutOfStep(batch)) => outbox.out_of_step(batch),
                        Ok(WriteOutcome::Fenced) => return Ok(Ended::Fenced),
                        Err(_) => return Err("the shard's writer ended; claiming again".to_owned()),
                    }
                }
                () = buried(&mut burial) => match burial.take().map(|b| b.grave) {
                    Some(Grave::Undecodable { offset }) => outbox.skip_to(offset + 1),
                    Some(Grave::Poison) | None => outbox.step_over_poison(),
                },
                () = share.granted(), if share.is_waiting() => {}
                () = tokio::task::yield_now(), if more => {}
                () = wake.notified(), if outbox.has_room() && burial.is_none() && !share.is_waiting() => {}
                // A queue has no fallback of its own should a wake-up be lost.
                () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            }
        }
    }

    /// Reads what is there without waiting for more, until the outbox is full.
    async fn fill(&self, queue: &PartitionQueue<GroupContext>, outbox: &mut Outbox) -> Result<Filled, String> {
        for read in 1_usize.. {
            if !outbox.has_room() {
                break;
            }
            if read.is_multiple_of(AT_ONCE) {
                // The writer is on this thread: an answer of its shard shall not wait for all of it.
                tokio::task::yield_now().await;
            }
            let message = match queue.poll(std::time::Duration::ZERO) {
                None => return Ok(Filled::Empty),
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    self.judge(&error)?;
                    continue;
                }
            };
            if message.offset() < outbox.expected() {
                return Err(format!(
                    "Kafka delivered offset {} where {} or later was due",
                    message.offset(),
                    outbox.expected()
                ));
            }
            match Row::decode(
                self.context.table,
                record_of(&message),
                &self.id.topic,
                self.id.partition,
            ) {
                Ok(row) => outbox.push(row),
                Err((record, why)) => return Ok(Filled::Undecodable(record, why.to_string())),
            }
        }
        Ok(Filled::Full)
    }

    /// What the partition's queue reports besides records. A position that is gone is reported once and then never
    /// again, so it ends this instance: the next one compares the claim with the watermarks.
    fn judge(&self, error: &KafkaError) -> Result<(), String> {
        use rdkafka::error::RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(
                Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::UnknownTopic,
            ) => Err(format!("Kafka cannot deliver from here: {error}")),
            _ => {
                self.life.stats().record_error(&error.to_string());
                Ok(())
            }
        }
    }

    /// Hands a batch to the writer. Should that be away or full, which its credits rule out but for a restart, the
    /// answer's sender is dropped and the caller claims again.
    fn send(&self, batch: Batch, claim: u64) -> oneshot::Receiver<WriteOutcome> {
        let (reply, answer) = oneshot::channel();
        let write = WriteBatch {
            id: self.id.clone(),
            claim,
            table: self.context.table,
            batch,
            reply,
        };
        if let Err(undelivered) = self.writer().try_send(write) {
            drop(undelivered.into_message());
        }
        answer
    }

    fn committed(&self, outbox: &mut Outbox) {
        if let Some(done) = outbox.committed() {
            self.life.stats().add_handled(done.rows);
            self.stats.committed(done.next, done.rows, done.oldest_received_us);
        }
    }

    fn bury_undecodable(&self, record: Record, why: String) -> Burial<'_> {
        let offset = record.offset;
        let failure = self.failure(&record, Stage::Decode, "undecodable", None, why, 1);
        Burial {
            done: self.bury(Arc::new(record), failure),
            grave: Grave::Undecodable { offset },
        }
    }

    /// A row of the dead-letter table itself has nowhere to go: that halts its partition.
    fn bury_poison(&self, row: &Row, refused: Option<ShardError>, tried: usize) -> Result<Burial<'_>, Ended> {
        let record = row.record();
        let (sqlstate, why) = refused.map_or_else(
            || (None, "refused by Postgres".to_owned()),
            |e| (e.sqlstate.clone(), e.message),
        );
        if self.context.table == Table::DeadLetters {
            return Err(Ended::Halted(format!(
                "{} partition {} offset {}: a dead letter cannot be written to its table: {why}",
                self.id.topic, self.id.partition, record.offset
            )));
        }
        let failure = self.failure(record, Stage::Write, "refused", sqlstate, why, tried);
        Ok(Burial {
            done: self.bury(Arc::new(record.clone()), failure),
            grave: Grave::Poison,
        })
    }

    fn failure(
        &self,
        record: &Record,
        stage: Stage,
        class: &str,
        sqlstate: Option<String>,
        message: String,
        tried: usize,
    ) -> Failure {
        let now = Utc::now();
        error!(topic = %self.id.topic, partition = self.id.partition, offset = record.offset, ?stage, sqlstate, %message,
            "a record can never be written and goes to the dead letters");
        self.life.stats().record_error(&message);
        Failure {
            topic: self.id.topic.to_string(),
            partition: self.id.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            stage,
            error_class: class.to_owned(),
            sqlstate,
            message,
            attempts: i32::try_from(tried).unwrap_or(i32::MAX),
            first_failed_at: now,
            last_failed_at: now,
            redrive_count: 0,
        }
    }

    /// Buries a record, again if the collector is restarted meanwhile.
    fn bury(&self, record: Arc<Record>, failure: Failure) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let failure = Arc::new(failure);
        Box::pin(async move {
            for attempt in 0.. {
                let (done, buried) = oneshot::channel();
                let bury = Bury {
                    record: record.clone(),
                    failure: failure.clone(),
                    done,
                };
                if self.context.dead_letters.try_send(bury).is_ok() && buried.await.is_ok() {
                    return;
                }
                tokio::time::sleep(RETRY.delay(attempt, rand::random())).await;
            }
        })
    }
}

/// Records that are read before others have their turn.
const AT_ONCE: usize = 128;

enum Filled {
    /// Nothing more to read now.
    Empty,
    /// The outbox has no room now.
    Full,
    /// A record that is no event.
    Undecodable(Record, String),
}

fn record_of(message: &BorrowedMessage<'_>) -> Record {
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|h| h.iter())
        .map(|h| (h.key, h.value));
    Record::new(
        message.offset(),
        message.timestamp().to_millis(),
        message.key(),
        message.payload(),
        headers,
    )
}

async fn front(
    answers: &mut VecDeque<oneshot::Receiver<WriteOutcome>>,
) -> Result<WriteOutcome, oneshot::error::RecvError> {
    match answers.front_mut() {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

async fn buried(burial: &mut Option<Burial<'_>>) {
    match burial {
        Some(burial) => burial.done.as_mut().await,
        None => std::future::pending().await,
    }
}
