//! Against librdkafka's mock brokers: errors that a real one does not give when asked.

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::producer::Delivery;
use crate::supervision::Exit;

/// A record's outcome, `after` so long.
async fn sent(client: &ClientRef, after: Duration) -> Result<Delivery, PublishError> {
    tokio::time::sleep(after).await;
    sent_to(client, 0).await.expect("it is told")
}

fn sent_to(client: &ClientRef, partition: i32) -> oneshot::Receiver<Result<Delivery, PublishError>> {
    let (reply, outcome) = oneshot::channel();
    client.send(Publish {
        topic: "t".into(),
        partition: Some(partition),
        key: None,
        value: Some(b"{}".to_vec()),
        headers: rdkafka::message::OwnedHeaders::new(),
        reply,
    });
    outcome
}

/// A broker that knows nothing of this producer takes the second request although it refused the first.
#[actix::test]
async fn a_record_that_was_refused_is_not_acknowledged_by_the_next_one() {
    let mock = MockCluster::new(1).expect("a mock broker");
    mock.create_topic("t", 1, 1).expect("a topic");
    let (client, _ends) = start_alone(KafkaSettings {
        brokers: mock.bootstrap_servers(),
        ..KafkaSettings::default()
    });
    client.came().await;
    let now = Duration::ZERO;
    sent(&client, now)
        .await
        .expect("the connection and the producer's id are there");
    // On a busy machine, too, the first is under way when the second is sent, and the second before the first's answer.
    let (later, round_trip) = (Duration::from_secs(1), Duration::from_secs(3));
    mock.broker_round_trip_time(1, round_trip).expect("a slow broker");
    mock.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS],
    );
    let (refused, taken) = tokio::join!(sent(&client, now), sent(&client, later));
    assert!(taken.is_ok_and(|taken| taken.offset == 1), "only the second is there");
    assert!(matches!(refused, Err(PublishError::Passed)), "{refused:?}");
}

/// More records than are under way before others are held back wait for a broker that is away.
#[actix::test]
async fn a_broker_that_is_away_holds_up_nobody_elses_records() {
    let mock = MockCluster::new(2).expect("two mock brokers");
    mock.create_topic("t", 2, 1).expect("a topic");
    for partition in [0, 1] {
        mock.partition_leader("t", partition, Some(partition + 1))
            .expect("a leader");
    }
    let (client, _ends) = start_alone(KafkaSettings {
        brokers: mock.bootstrap_servers(),
        ..KafkaSettings::default()
    });
    client.came().await;
    for partition in [0, 1] {
        let there = sent_to(&client, partition).await.expect("the reply");
        there.expect("the connection is there");
    }
    mock.broker_down(2).expect("a broker that goes");
    let mut stuck: Vec<_> = (0..1000).map(|_| sent_to(&client, 1)).collect();
    for _ in 0..10 {
        let taken = tokio::time::timeout(ALONE_DELIVERS_WITHIN / 3, sent_to(&client, 0));
        let taken = taken.await.expect("it is not held up").expect("the reply");
        assert!(taken.is_ok(), "{taken:?}");
    }
    assert!(
        stuck
            .iter_mut()
            .all(|outcome| matches!(outcome.try_recv(), Err(TryRecvError::Empty))),
        "they still wait"
    );
}

#[actix::test]
async fn a_client_whose_reports_nobody_hands_out_is_given_up() {
    let (client, ends) = start_alone(KafkaSettings {
        brokers: "127.0.0.1:1".to_owned(),
        ..KafkaSettings::default()
    });
    client.came().await;
    let living = client.0.get();
    living.as_ref().expect("it has just come").closing.store(true, Relaxed);
    drop(living);
    let exit = tokio::time::timeout(Duration::from_secs(20), ends).await;
    let exit = exit.expect("it is noticed").expect("its end is told");
    assert_eq!(exit, Exit::Failed(NOBODY_REPORTS.to_owned()));
}
