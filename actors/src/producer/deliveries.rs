//! What becomes of records: counted, and told to who waits for it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use super::waves::{MANY, Waves};
use super::{Delivery, Publish, PublishError};
use crate::kafka::{Reach, is_connection_loss};
use crate::stats::ActorStats;

/// What a client and those who send through it share. What became of a record is told by librdkafka's own thread where few are
/// under way: so whoever waits is woken at once. Where many are, that thread has enough to do with the next requests.
pub(super) struct Deliveries {
    pub(super) reach: Reach,
    pub(super) waves: Waves<Held>,
    tally: Arc<Tally>,
    /// What the reporter shall tell: no more than there are who wait.
    untold: Mutex<Vec<Report>>,
    /// The thread that serves the client.
    reporter: OnceLock<Thread>,
}

type Outcome = Result<Delivery, PublishError>;

/// What is counted of a client's records.
struct Tally {
    stats: Arc<ActorStats>,
    /// Records that librdkafka has, or whose outcome nobody was told yet.
    under_way: AtomicUsize,
}

impl Deliveries {
    pub(super) fn count_into(stats: Arc<ActorStats>) -> Self {
        let under_way = AtomicUsize::new(0);
        Self {
            reach: Reach::default(),
            waves: Waves::default(),
            tally: Arc::new(Tally { stats, under_way }),
            untold: Mutex::default(),
            reporter: OnceLock::new(),
        }
    }

    /// Set once, before the first record.
    pub(super) fn report_through(&self, reporter: Thread) {
        let _ = self.reporter.set(reporter);
    }

    /// A record comes, and is counted.
    pub(super) fn hold(&self, publish: Publish) -> Held {
        let counted = Counted::new(&self.tally);
        Held { publish, counted }
    }

    /// Records that librdkafka has, or whose outcome nobody was told yet.
    pub(super) fn under_way(&self) -> usize {
        self.tally.under_way.load(Relaxed)
    }

    /// What became of a record. Whoever calls this may hold a lock of librdkafka's: nothing here waits for anybody who waits for
    /// librdkafka, nor takes long.
    pub(super) fn report(&self, report: Report) {
        if self.under_way() >= MANY {
            self.lock_untold().push(report);
        } else {
            self.settle(report);
            if !self.waves.are_due(|| self.under_way()) {
                return;
            }
        }
        if let Some(reporter) = self.reporter.get() {
            reporter.unpark();
        }
    }

    /// Tells what was left to the reporter, and calls `after_each`.
    pub(super) fn tell(&self, after_each: impl Fn()) {
        let untold = std::mem::take(&mut *self.lock_untold());
        for report in untold {
            self.settle(report);
            after_each();
        }
    }

    fn settle(&self, report: Report) {
        let outcome = report.outcome();
        match &outcome {
            Ok(_) => self.tally.stats.add_handled(1),
            Err(error) => self.tally.stats.record_error(&error.to_string()),
        }
        report.waiting.tell(outcome);
    }

    /// A list that is whole at any time.
    fn lock_untold(&self) -> MutexGuard<'_, Vec<Report>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn stats_raw(&self, statistics: &[u8]) {
        self.reach.report(statistics, Instant::now());
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            error!(reason, "the Kafka producer met a fatal error and will be replaced");
        } else if is_connection_loss(&error) {
            debug!(%error, reason, "Kafka producer");
        } else {
            warn!(%error, reason, "Kafka producer");
        }
        self.tally.stats.record_error(reason);
    }
}

/// What became of a record, as librdkafka says it.
pub(super) struct Report {
    code: RDKafkaErrorCode,
    partition: i32,
    offset: i64,
    waiting: Box<Waiting>,
}

impl Report {
    /// `place` are its partition and its offset there.
    pub(super) fn new(code: RDKafkaErrorCode, (partition, offset): (i32, i64), waiting: Box<Waiting>) -> Self {
        Self {
            code,
            partition,
            offset,
            waiting,
        }
    }

    fn outcome(&self) -> Outcome {
        match self.code {
            // librdkafka reports as delivered what was sent before a record that was acknowledged, although a broker that
            // knows nothing of this producer yet takes that one after it refused what came before
            // (<https://github.com/confluentinc/confluent-kafka-go/issues/921>). An offset is only told by an answer of its own;
            // or, a false one, where the broker says that it has had the record before.
            RDKafkaErrorCode::NoError if self.offset < 0 => Err(PublishError::Passed),
            RDKafkaErrorCode::NoError => Ok(Delivery {
                partition: self.partition,
                offset: self.offset,
            }),
            code => Err(PublishError::from(KafkaError::MessageProduction(code))),
        }
    }
}

/// A record that librdkafka does not have yet.
pub(super) struct Held {
    pub(super) publish: Publish,
    pub(super) counted: Counted,
}

impl Held {
    /// There is no room for it.
    pub(super) fn refuse(self, why: PublishError) {
        self.counted.0.stats.record_error(&why.to_string());
        // Who asked may have stopped waiting.
        let _ = self.publish.reply.send(Err(why));
    }
}

/// Who waits for the acknowledgement of a record that librdkafka has.
pub(super) struct Waiting {
    reply: Reply,
    under_way: UnderWay,
}

type Reply = oneshot::Sender<Outcome>;

impl Waiting {
    pub(super) fn new(reply: Reply, counted: Counted) -> Self {
        let under_way = UnderWay::new(counted);
        Self { reply, under_way }
    }

    /// librdkafka does not take the record after all.
    pub(super) fn refuse(self, why: PublishError) {
        self.under_way.0.0.stats.record_error(&why.to_string());
        self.tell(Err(why));
    }

    fn tell(self, outcome: Outcome) {
        // Who asked may have stopped waiting.
        let _ = self.reply.send(outcome);
    }
}

/// Counts a record in the actor's queue for as long as nobody knows whether Kafka has it.
pub(super) struct Counted(Arc<Tally>);

impl Counted {
    fn new(tally: &Arc<Tally>) -> Self {
        tally.stats.queue_depth.fetch_add(1, Relaxed);
        Self(tally.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.stats.queue_depth.fetch_sub(1, Relaxed);
    }
}

/// Counts it for as long as librdkafka has it, too.
struct UnderWay(Counted);

impl UnderWay {
    fn new(counted: Counted) -> Self {
        counted.0.under_way.fetch_add(1, Relaxed);
        Self(counted)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Relaxed);
    }
}
