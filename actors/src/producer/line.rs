//! The way of a record from the one who sends it to librdkafka, and of its outcome back.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::deliveries::{Deliveries, Held, Waiting};
use super::native::{NativeProducer, Record};
use super::waves::{Turn, Waves};
use super::{Publish, PublishError};

/// How often it is looked for what has been held back for long, and what the client has to say: statistics, errors.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The way of a record from the one who sends it to librdkafka's queue.
pub(super) struct Line {
    producer: NativeProducer,
}

impl Line {
    pub(super) fn new(producer: NativeProducer) -> Self {
        Self { producer }
    }

    /// librdkafka's client.
    pub(super) fn client(&self) -> &Client<Deliveries> {
        self.producer.client()
    }

    /// A record comes.
    pub(super) fn send(&self, publish: Publish) {
        let deliveries = self.producer.deliveries();
        let record = deliveries.hold(publish);
        match deliveries.waves.arrive(record, || deliveries.under_way()) {
            Turn::Now(record) => self.produce(record),
            Turn::Held => {}
            Turn::Wave(wave) => self.hand_on_from(wave),
            Turn::Full(record) => record.refuse(PublishError::QueueFull),
        }
    }

    /// Waits until [`Deliveries`] wakes this thread, and until `until` at most; tells what is untold, and hands on what is its turn.
    /// When `until` has come it also looks what the client has to say and what has been held back for long. Answers with what
    /// `until` is to be next: to be called over and over.
    pub(super) fn serve(&self, until: Instant) -> Instant {
        thread::park_timeout(until.saturating_duration_since(Instant::now()));
        self.tell();
        let now = Instant::now();
        if now < until {
            return until;
        }
        self.producer.poll();
        let deliveries = self.producer.deliveries();
        if let Some(wave) = deliveries.waves.overdue(|| deliveries.under_way()) {
            self.hand_on_from(wave);
        }
        now + LOOK_EVERY
    }

    /// Tells what is untold, and hands on what is its turn.
    fn tell(&self) {
        self.hand_on();
        self.producer.deliveries().tell(|| self.hand_on());
    }

    /// Waits until Kafka has, or has refused, whatever was sent.
    pub(super) fn flush(&self, patience: Duration) -> Result<(), KafkaError> {
        let end = Instant::now() + patience;
        let waves = &self.producer.deliveries().waves;
        waves.last();
        loop {
            self.hand_on();
            let was_last = waves.are_over();
            self.producer.flush(end.saturating_duration_since(Instant::now()))?;
            self.tell();
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
    fn hand_on(&self) {
        let deliveries = self.producer.deliveries();
        if let Some(wave) = deliveries.waves.next(|| deliveries.under_way()) {
            self.hand_on_from(wave);
        }
    }

    fn hand_on_from(&self, wave: Vec<Held>) {
        let deliveries = self.producer.deliveries();
        let _unless_it_panics = Unbroken(&deliveries.waves);
        let mut wave = Some(wave);
        while let Some(records) = wave {
            for record in records {
                // Else nobody waits for it: it was in time for nothing, or its sender is gone and sends it again.
                if !record.publish.reply.is_closed() {
                    self.produce(record);
                }
            }
            wave = deliveries.waves.follow(|| deliveries.under_way());
        }
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
        let record = Record {
            topic: &topic,
            partition,
            key: key.as_deref(),
            value: value.as_deref(),
            headers,
            waiting: Waiting::new(reply, counted),
        };
        if let Err((error, waiting)) = self.producer.send(record) {
            waiting.refuse(error.into());
            // It may have been the last one that others waited for.
            self.hand_on();
        }
    }
}

/// Lets others go on where whoever hands a wave on panics: it may be a worker's producer, whose end is not that of the line.
struct Unbroken<'a>(&'a Waves<Held>);

impl Drop for Unbroken<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.broke();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use rdkafka::ClientConfig;
    use rdkafka::message::OwnedHeaders;
    use rdkafka::mocking::MockCluster;
    use tokio::sync::oneshot;

    use super::*;
    use crate::producer::Delivery;
    use crate::producer::waves::MANY;
    use crate::stats::ActorStats;

    type Outcome = oneshot::Receiver<Result<Delivery, PublishError>>;

    /// Longer than a busy machine takes to connect.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// More than go at once.
    const RECORDS: usize = 200;

    /// These need nobody who serves, unless they were left to him when there were more.
    const FEW: i64 = MANY as i64 - 1;

    /// A line that nobody serves.
    fn line(brokers: &str) -> (Line, Arc<ActorStats>) {
        let stats = crate::stats::Registry::default().node("producer", "ProducerClient");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let producer = NativeProducer::new(&config, Deliveries::count_into(stats.clone()));
        (Line::new(producer.expect("a producer")), stats)
    }

    fn publish(partition: i32) -> (Publish, Outcome) {
        let (reply, outcome) = oneshot::channel();
        let publish = Publish {
            topic: "t".into(),
            partition: Some(partition),
            key: None,
            value: None,
            headers: OwnedHeaders::new(),
            reply,
        };
        (publish, outcome)
    }

    fn send(line: &Line, partition: i32) -> Outcome {
        let (publish, outcome) = publish(partition);
        line.send(publish);
        outcome
    }

    /// A line with records of which most are held back.
    fn filled(brokers: &str) -> (Line, Arc<ActorStats>, Vec<Outcome>) {
        let (line, stats) = line(brokers);
        let outcomes = (0..RECORDS).map(|_| send(&line, 0)).collect();
        assert!(line.producer.deliveries().under_way() < RECORDS, "some are held back");
        (line, stats, outcomes)
    }

    fn mock() -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
        let mock = MockCluster::new(1).expect("a mock broker");
        mock.create_topic("t", 1, 1).expect("a topic");
        mock
    }

    fn told(mut outcome: Outcome) -> Result<Delivery, PublishError> {
        let end = Instant::now() + PATIENCE;
        loop {
            match outcome.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) if Instant::now() < end => thread::yield_now(),
                told => return told.expect("it is told"),
            }
        }
    }

    /// A record is told of before it is no longer counted.
    fn assert_none_is_under_way(stats: &ActorStats) {
        let end = Instant::now() + PATIENCE;
        while stats.queue_depth.load(Relaxed) != 0 {
            assert!(
                Instant::now() < end,
                "{} are under way",
                stats.queue_depth.load(Relaxed)
            );
            thread::yield_now();
        }
    }

    /// In the order in which they were sent.
    fn assert_all_are_stored(stats: &ActorStats, outcomes: Vec<Outcome>) {
        let offsets = outcomes.into_iter().map(|mut outcome| {
            let told = outcome.try_recv().expect("it is told");
            told.expect("it is stored").offset
        });
        assert!(offsets.eq(0..RECORDS as i64));
        assert_none_is_under_way(stats);
    }

    /// Whoever serves is woken for each of them: it does not wait until it looks for what has been held back for long.
    #[test]
    fn reports_alone_hand_on_what_is_held_back() {
        let mock = mock();
        let (line, stats, outcomes) = filled(&mock.bootstrap_servers());
        line.client().context().report_through(thread::current());
        // For what was reported before.
        thread::current().unpark();
        let until = Instant::now() + PATIENCE;
        while stats.queue_depth.load(Relaxed) > FEW {
            assert_eq!(line.serve(until), until, "nobody was woken");
        }
        while stats.queue_depth.load(Relaxed) > 0 && Instant::now() < until {
            line.tell();
            thread::yield_now();
        }
        assert_all_are_stored(&stats, outcomes);
    }

    /// Where few are under way nobody but librdkafka's own thread is needed.
    #[test]
    fn few_are_told_at_once() {
        let mock = mock();
        let (line, stats) = line(&mock.bootstrap_servers());
        for offset in 0..3 {
            let told = told(send(&line, 0));
            assert_eq!(told.expect("it is stored"), Delivery { partition: 0, offset });
        }
        assert_none_is_under_way(&stats);
    }

    /// librdkafka tells its interceptor of such a record, and refuses it as well.
    #[test]
    fn a_record_of_no_partition_is_refused_once() {
        let mock = mock();
        let (line, stats) = line(&mock.bootstrap_servers());
        told(send(&line, 0)).expect("the topic's partitions are known");
        let refused = send(&line, 7).try_recv().expect("it is told at once");
        assert!(
            matches!(
                refused,
                Err(PublishError::NotAcknowledged(RDKafkaErrorCode::UnknownPartition))
            ),
            "{refused:?}"
        );
        assert_none_is_under_way(&stats);
    }

    /// All others that it was under way with have arrived, and left what is held back to it.
    #[test]
    fn a_record_that_is_refused_hands_on_what_waited_for_it() {
        let mock = mock();
        let (line, stats) = line(&mock.bootstrap_servers());
        told(send(&line, 0)).expect("the topic's partitions are known");
        assert_none_is_under_way(&stats);
        let deliveries = line.producer.deliveries();
        let others = (0..MANY).map(|_| {
            let Held { publish, counted } = deliveries.hold(publish(0).0);
            Waiting::new(publish.reply, counted)
        });
        let others: Vec<Waiting> = others.collect();
        let mut held = send(&line, 0);
        drop(others);
        assert!(held.try_recv().is_err(), "nobody has asked since");
        let (publish, mut refused) = publish(7);
        line.produce(deliveries.hold(publish));
        assert!(matches!(refused.try_recv(), Ok(Err(_))));
        told(held).expect("it is stored");
        assert_none_is_under_way(&stats);
    }

    /// However often somebody is woken meanwhile.
    #[test]
    fn what_is_held_back_waits_for_its_turn() {
        let (line, _, _outcomes) = filled("127.0.0.1:1");
        let under_way = line.producer.deliveries().under_way();
        let until = Instant::now() + PATIENCE;
        for _ in 0..10 {
            thread::current().unpark();
            assert_eq!(line.serve(until), until);
        }
        assert_eq!(line.producer.deliveries().under_way(), under_way);
        let again = line.serve(Instant::now());
        assert_eq!(line.producer.deliveries().under_way(), under_way, "it has just come");
        assert!(line.serve(again) > again);
        assert_eq!(
            line.producer.deliveries().under_way(),
            RECORDS,
            "those under way are stuck"
        );
    }

    #[test]
    fn a_flush_takes_along_what_is_held_back() {
        let mock = mock();
        let (line, stats, outcomes) = filled(&mock.bootstrap_servers());
        line.flush(PATIENCE).expect("Kafka takes them");
        assert_all_are_stored(&stats, outcomes);
    }

    #[test]
    fn a_flush_ends_and_whoever_waits_hears_of_the_end() {
        let (line, stats, outcomes) = filled("127.0.0.1:1");
        assert_eq!(stats.queue_depth.load(Relaxed), RECORDS as i64);
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
