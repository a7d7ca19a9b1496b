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

/// What a client and those who send through it share. The outcome of a record is told from librdkafka's own thread where few
/// are under way: so whoever waits is woken at once. Where many are, that thread has enough to do with the next requests.
pub(super) struct Deliveries {
    pub(super) reach: Reach,
    pub(super) waves: Waves<Held>,
    tally: Arc<Tally>,
    /// What the reporter shall tell.
    untold: Mutex<Vec<Told>>,
    /// The thread that serves the client.
    reporter: OnceLock<Thread>,
}

type Outcome = Result<Delivery, PublishError>;

struct Told(Box<Waiting>, Outcome);

/// What is counted of a client's records.
struct Tally {
    stats: Arc<ActorStats>,
    /// Records that librdkafka has and nobody has been told of.
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

    /// How many records librdkafka has.
    pub(super) fn under_way(&self) -> usize {
        self.tally.under_way.load(Relaxed)
    }

    /// A record's outcome, from one of librdkafka's threads, which may hold a lock of its own: nothing here waits for anybody
    /// who waits for librdkafka, or calls it.
    pub(super) fn report(&self, code: RDKafkaErrorCode, partition: i32, offset: i64, waiting: Box<Waiting>) {
        let outcome = match code {
            // librdkafka reports as delivered what was sent before a record that was acknowledged, although a broker that
            // knows nothing of this producer yet takes that one after it refused what came before
            // (<https://github.com/confluentinc/confluent-kafka-go/issues/921>). An offset is only told by an answer of its own.
            RDKafkaErrorCode::NoError if offset < 0 => Err(PublishError::Passed),
            RDKafkaErrorCode::NoError => Ok(Delivery { partition, offset }),
            code => Err(PublishError::from(KafkaError::MessageProduction(code))),
        };
        match &outcome {
            Ok(_) => self.tally.stats.add_handled(1),
            Err(error) => self.tally.stats.record_error(&error.to_string()),
        }
        if self.under_way() >= MANY {
            self.lock_untold().push(Told(waiting, outcome));
        } else {
            waiting.tell(outcome);
            if !self.waves.are_due(|| self.under_way()) {
                return;
            }
        }
        if let Some(reporter) = self.reporter.get() {
            reporter.unpark();
        }
    }

    /// Tells what was left to the reporter, and calls `after_each`.
    pub(super) fn tell(&self, mut after_each: impl FnMut()) {
        loop {
            let told = std::mem::take(&mut *self.lock_untold());
            if told.is_empty() {
                return;
            }
            for Told(waiting, outcome) in told {
                waiting.tell(outcome);
                after_each();
            }
        }
    }

    /// A record that is not taken.
    pub(super) fn refuse(&self, waiting: Waiting, why: PublishError) {
        self.tally.stats.record_error(&why.to_string());
        waiting.tell(Err(why));
    }

    /// A list that is whole at any time.
    fn lock_untold(&self) -> MutexGuard<'_, Vec<Told>> {
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

/// A record that librdkafka does not have yet.
pub(super) struct Held {
    pub(super) publish: Publish,
    pub(super) counted: Counted,
}

/// Who waits for a record's acknowledgement.
pub(super) struct Waiting {
    reply: Reply,
    _under_way: UnderWay,
}

type Reply = oneshot::Sender<Outcome>;

impl Waiting {
    /// From now on librdkafka has the record.
    pub(super) fn new(reply: Reply, counted: Counted) -> Self {
        let _under_way = UnderWay::new(counted);
        Self { reply, _under_way }
    }

    pub(super) fn tell(self, outcome: Outcome) {
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
