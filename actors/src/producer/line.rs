//! The way of a record from the one who sends it to librdkafka, and of its outcome back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::oneshot;

use super::client::Deliveries;
use super::waves::{Turn, Waves};
use super::{Delivery, Publish, PublishError};
use crate::stats::ActorStats;

/// The way of a record from the one who sends it to librdkafka's queue.
pub(super) struct Line {
    producer: BaseProducer<Deliveries>,
    waves: Waves<Held>,
    tally: Arc<Tally>,
}

/// What is counted of a client's records.
struct Tally {
    stats: Arc<ActorStats>,
    /// Records that librdkafka has and has not reported on.
    under_way: AtomicUsize,
}

impl Line {
    pub(super) fn new(producer: BaseProducer<Deliveries>, stats: Arc<ActorStats>) -> Arc<Self> {
        let under_way = AtomicUsize::new(0);
        Arc::new_cyclic(|line| {
            producer.context().reports_to(line.clone());
            Self {
                producer,
                waves: Waves::default(),
                tally: Arc::new(Tally { stats, under_way }),
            }
        })
    }

    /// librdkafka's client.
    pub(super) fn client(&self) -> &rdkafka::client::Client<Deliveries> {
        self.producer.client()
    }

    /// A record comes.
    pub(super) fn send(&self, publish: Publish) {
        let counted = Counted::new(&self.tally);
        match self.waves.arrive(Held { publish, counted }, || self.under_way()) {
            Turn::Now(record) => self.produce(record),
            Turn::Held => {}
            Turn::Wave(wave) => self.hand_on_from(wave),
            Turn::Full(record) => record.refuse(PublishError::QueueFull),
        }
    }

    /// Serves delivery reports for so long, and then looks at what is held back. To be called over and over.
    pub(super) fn serve(&self, wait: Duration) {
        self.producer.poll(wait);
        if let Some(wave) = self.waves.overdue(|| self.under_way()) {
            self.hand_on_from(wave);
        }
    }

    /// Waits until Kafka has, or has refused, whatever was sent.
    pub(super) fn flush(&self, patience: Duration) -> Result<(), KafkaError> {
        let end = Instant::now() + patience;
        self.waves.last();
        loop {
            self.hand_on();
            let was_last = self.waves.are_over();
            self.producer.flush(end.saturating_duration_since(Instant::now()))?;
            if was_last {
                return Ok(());
            }
            if end <= Instant::now() {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
            // Another thread is just handing a wave on.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Hands on what was held back, where it is its turn: to be asked after each report.
    pub(super) fn hand_on(&self) {
        if let Some(wave) = self.waves.next(|| self.under_way()) {
            self.hand_on_from(wave);
        }
    }

    fn hand_on_from(&self, wave: Vec<Held>) {
        let _unless_it_panics = Unbroken(&self.waves);
        let mut wave = Some(wave);
        while let Some(records) = wave {
            for record in records {
                // Else nobody waits for it: it was in time for nothing, or its sender is gone and sends it again.
                if !record.publish.reply.is_closed() {
                    self.produce(record);
                }
            }
            wave = self.waves.follow(|| self.under_way());
        }
    }

    fn under_way(&self) -> usize {
        self.tally.under_way.load(Relaxed)
    }

    fn produce(&self, Held { publish, counted }: Held) {
        let Publish {
            topic,
            partition,
            key,
            value,
            headers,
            reply,
        } = publish;
        let waiting = Waiting {
            reply,
            _under_way: UnderWay::new(counted),
        };
        let mut record: BaseRecord<'_, [u8], [u8], Box<Waiting>> =
            BaseRecord::with_opaque_to(&topic, Box::new(waiting)).headers(headers);
        record.partition = partition;
        record.key = key.as_deref();
        record.payload = value.as_deref();
        if let Err((error, record)) = self.producer.send(record) {
            let error = PublishError::from(error);
            self.tally.stats.record_error(&error.to_string());
            record.delivery_opaque.tell(Err(error));
        }
    }
}

type Reply = oneshot::Sender<Result<Delivery, PublishError>>;

/// Lets others go on where whoever hands a wave on panics: it may be a worker's producer, whose end is not that of the line.
struct Unbroken<'a>(&'a Waves<Held>);

impl Drop for Unbroken<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.broke();
        }
    }
}

/// A record that librdkafka does not have yet.
struct Held {
    publish: Publish,
    counted: Counted,
}

impl Held {
    fn refuse(self, why: PublishError) {
        self.counted.0.stats.record_error(&why.to_string());
        tell(self.publish.reply, Err(why));
    }
}

/// Who waits for a record's acknowledgement.
pub(super) struct Waiting {
    reply: Reply,
    _under_way: UnderWay,
}

impl Waiting {
    pub(super) fn tell(self, outcome: Result<Delivery, PublishError>) {
        tell(self.reply, outcome);
    }
}

fn tell(reply: Reply, outcome: Result<Delivery, PublishError>) {
    // Who asked may have stopped waiting.
    let _ = reply.send(outcome);
}

/// Counts a record in the actor's queue for as long as nobody knows whether Kafka has it.
struct Counted(Arc<Tally>);

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

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::config::FromClientConfigAndContext as _;
    use rdkafka::message::OwnedHeaders;
    use rdkafka::mocking::MockCluster;

    use super::*;

    type Outcome = oneshot::Receiver<Result<Delivery, PublishError>>;

    /// Longer than a busy machine takes to connect.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// More than go at once.
    const RECORDS: usize = 200;

    /// A line that nobody serves, with records of which most are held back.
    fn filled(brokers: &str) -> (Arc<Line>, Vec<Outcome>) {
        let stats = crate::stats::Registry::default().node("producer", "ProducerClient");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let producer = BaseProducer::from_config_and_context(&config, Deliveries::count_into(stats.clone()));
        let line = Line::new(producer.expect("a producer"), stats);
        let outcomes = (0..RECORDS).map(|_| {
            let (reply, outcome) = oneshot::channel();
            line.send(Publish {
                topic: "t".into(),
                partition: Some(0),
                key: None,
                value: None,
                headers: OwnedHeaders::new(),
                reply,
            });
            outcome
        });
        let outcomes = outcomes.collect();
        assert!(line.under_way() < RECORDS, "some are held back");
        assert_eq!(line.tally.stats.queue_depth.load(Relaxed), RECORDS as i64);
        (line, outcomes)
    }

    fn mock() -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
        let mock = MockCluster::new(1).expect("a mock broker");
        mock.create_topic("t", 1, 1).expect("a topic");
        mock
    }

    /// In the order in which they were sent.
    fn assert_all_are_stored(line: &Line, outcomes: Vec<Outcome>) {
        let offsets = outcomes.into_iter().map(|mut outcome| {
            let told = outcome.try_recv().expect("it is told");
            told.expect("it is stored").offset
        });
        assert!(offsets.eq(0..RECORDS as i64));
        assert_eq!(line.tally.stats.queue_depth.load(Relaxed), 0);
    }

    /// Without [`Line::serve`], which would look at what has been held back for long.
    #[test]
    fn reports_alone_hand_on_what_is_held_back() {
        let mock = mock();
        let (line, outcomes) = filled(&mock.bootstrap_servers());
        let end = Instant::now() + PATIENCE;
        while line.tally.stats.queue_depth.load(Relaxed) > 0 && Instant::now() < end {
            line.producer.poll(Duration::from_millis(10));
        }
        assert_all_are_stored(&line, outcomes);
    }

    #[test]
    fn a_flush_takes_along_what_is_held_back() {
        let mock = mock();
        let (line, outcomes) = filled(&mock.bootstrap_servers());
        line.flush(PATIENCE).expect("Kafka takes them");
        assert_all_are_stored(&line, outcomes);
    }

    #[test]
    fn a_flush_ends_and_whoever_waits_hears_of_the_end() {
        let (line, outcomes) = filled("127.0.0.1:1");
        assert!(line.flush(Duration::from_millis(100)).is_err());
        drop(line);
        for mut outcome in outcomes {
            assert!(!matches!(
                outcome.try_recv(),
                Ok(Ok(_)) | Err(oneshot::error::TryRecvError::Empty)
            ));
        }
    }
}
