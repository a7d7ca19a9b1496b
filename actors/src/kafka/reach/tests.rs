use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use futures_util::future::select_all;
use rdkafka::message::OwnedHeaders;
use tokio::sync::oneshot;

use super::*;
use crate::kafka::{KafkaSettings, Probe};
use crate::producer::Publish;
use crate::producer::client::{self, ClientRef};
use crate::supervision::Exit;

#[test]
fn a_client_is_lost_that_knows_no_broker_in_three_reports() {
    let (reach, start) = (Reach::default(), Instant::now());
    let at = |s: u64| start + Duration::from_secs(s);
    let say = |s: u64, sources: &[&str]| {
        let broker = |(i, source): (usize, &&str)| format!(r#""b{i}":{{"name":"b{i}","source":"{source}"}}"#);
        let brokers: Vec<String> = sources.iter().enumerate().map(broker).collect();
        let report = format!(r#"{{"type":"producer","brokers":{{{}}}}}"#, brokers.join(","));
        reach.report(report.as_bytes(), at(s));
        reach.is_lost(at(s))
    };
    assert!(!say(0, &["internal", "configured"]));
    assert!(!say(5, &["internal"]) && !say(10, &["internal", "logical"]));
    reach.report(b"{}", at(14));
    assert!(!reach.is_lost(at(13)) && reach.is_lost(at(14)));
    assert!(say(15, &[]));
    assert!(!say(20, &["learned"]) && !say(25, &[]) && !say(30, &["configured"]) && !reach.is_lost(at(60)));
}

/// The length of the topic's name. librdkafka takes an answer for damaged that unpacks to four times its size.
const NAME: i16 = 200;

fn topic() -> String {
    "t".repeat(NAME.unsigned_abs().into())
}

/// What the only broker does.
#[derive(PartialEq)]
enum Phase {
    /// It is there, and listed.
    Listed,
    /// It hangs up on everybody.
    Away,
    /// It is there, and says that nobody is.
    Unlisted,
}

/// What it does, by the seconds since its start.
type Phases = fn(u64) -> Phase;

const HOST: &str = "127.0.0.1";

/// A cluster whose only broker goes away, and is not listed when it is back: whoever asks about a topic hears that it is
/// there, and nobody else. librdkafka forgets the broker it knew, and the one that it was started with. Speaks just enough of Kafka's protocol (<https://kafka.apache.org/protocol>) for librdkafka to ask.
fn cluster(phases: Phases) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let started = Instant::now();
    let now = move || phases(started.elapsed().as_secs());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || serve(client, address, now));
        }
    });
    address
}

/// Until one of both hangs up.
fn serve(mut client: TcpStream, address: SocketAddr, now: impl Fn() -> Phase) -> Option<()> {
    const PRODUCE: i16 = 0;
    const FETCH: i16 = 1;
    const METADATA: i16 = 3;
    const API_VERSIONS: i16 = 18;
    const INIT_PRODUCER_ID: i16 = 22;
    client.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
    while now() != Phase::Away {
        let mut size = [0; 4];
        match client.peek(&mut size) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Ok(4) => client.read_exact(&mut size).ok()?,
            _ => return None,
        }
        let mut request = vec![0; usize::try_from(i32::from_be_bytes(size)).ok()?];
        client.read_exact(&mut request).ok()?;
        let mut request = VecDeque::from(request);
        let mut number = || Some(i16::from_be_bytes([request.pop_front()?, request.pop_front()?]));
        let (key, version) = (number()?, number()?);
        let correlation: Vec<u8> = request.drain(..4).collect();
        let mut answer = correlation;
        let put = |answer: &mut Vec<u8>, numbers: &[i16]| {
            answer.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
        };
        match key {
            // Version 0 only: no error or "unsupported version", and ranges of versions.
            API_VERSIONS => {
                put(&mut answer, &[if version == 0 { 0 } else { 35 }, 0, 5]);
                put(&mut answer, &[PRODUCE, 0, 7, FETCH, 0, 11, METADATA, 0, 1]);
                put(&mut answer, &[API_VERSIONS, 0, 0, INIT_PRODUCER_ID, 0, 1]);
            }
            // Version 1: the brokers, no controller, one topic whose leader is not available.
            METADATA => {
                if now() == Phase::Listed {
                    put(&mut answer, &[0, 1, 0, 1, HOST.len() as i16]);
                    answer.extend(HOST.as_bytes());
                    answer.extend(i32::from(address.port()).to_be_bytes());
                    put(&mut answer, &[-1]);
                } else {
                    put(&mut answer, &[0, 0]);
                }
                put(&mut answer, &[-1, -1, 0, 1, 5, NAME]);
                answer.extend(topic().as_bytes());
                answer.push(0);
                put(&mut answer, &[0, 0]);
            }
            // Version 1: at once, no error, a producer's id of 64 bits and its epoch.
            INIT_PRODUCER_ID => put(&mut answer, &[0, 0, 0, 0, 0, 0, 1, 0]),
            _ => continue,
        }
        let size = i32::try_from(answer.len()).ok()?.to_be_bytes();
        client.write_all(&[&size[..], &answer].concat()).ok()?;
    }
    None
}

fn settings(phases: Phases) -> KafkaSettings {
    KafkaSettings {
        brokers: cluster(phases).to_string(),
        ..KafkaSettings::default()
    }
}

/// Longer than it takes to find out.
const PATIENCE: Duration = Duration::from_secs(180);

#[actix::test]
async fn questions_are_answered_again() {
    // Over and over, as librdkafka does not fall for it each time.
    let settings = settings(|seconds| match seconds % 5 {
        0 | 1 => Phase::Listed,
        2 => Phase::Away,
        _ => Phase::Unlisted,
    });
    let (probe, topic) = (Probe::new(&settings).expect("a client"), topic());
    let ask = || probe.shape(&topic, Duration::from_secs(1));
    let (started, mut answered) = (Instant::now(), Instant::now());
    // The broker itself is never away for so long.
    while answered.elapsed() < Duration::from_secs(7) {
        if ask().await.is_ok() {
            answered = Instant::now();
        }
        assert!(
            started.elapsed() < PATIENCE,
            "librdkafka forgets no broker: is this still needed?"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while ask().await.is_err() {
        assert!(started.elapsed() < PATIENCE, "the client was not replaced");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// librdkafka forgets its brokers in about every second run of this: the first of many producers ends it.
#[actix::test]
async fn a_producer_gives_up_a_client_that_sends_nothing_any_more() {
    let producers: Vec<_> = (0..16).map(|_| producer()).collect();
    let (clients, ends): (Vec<_>, Vec<_>) = producers.into_iter().unzip();
    let mut first = select_all(ends);
    let started = Instant::now();
    let exit = loop {
        for client in &clients {
            let (reply, _outcome) = oneshot::channel();
            // It may not have started yet.
            client.send(Publish {
                topic: topic().into(),
                partition: None,
                key: None,
                value: None,
                headers: OwnedHeaders::new(),
                reply,
            });
        }
        assert!(started.elapsed() < PATIENCE, "all go on with their clients");
        if let Ok((exit, ..)) = tokio::time::timeout(Duration::from_millis(200), &mut first).await {
            break exit.expect("its end is told");
        }
    };
    let why = "the Kafka client knows no broker any more; starting with a fresh one";
    assert_eq!(exit, Exit::Failed(why.to_owned()));
}

/// A producer on a cluster of its own, and how it ends.
fn producer() -> (ClientRef, oneshot::Receiver<Exit>) {
    // Again and again, as all of them may have been spared once; who is lost asks nobody, and does not hear of it.
    client::start_alone(settings(|seconds| match seconds % 15 {
        0 | 1 => Phase::Listed,
        _ => Phase::Unlisted,
    }))
}
