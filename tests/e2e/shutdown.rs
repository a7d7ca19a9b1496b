//! Stopping: what was acknowledged lands, the partitions go to the others at once, and the process ends well and in
//! time, whatever else is broken just then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use dev::process::Signal;
use dev::send::SendArgs;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Instance, Sending, World, heavy, light, own_stack, shared_stack, signed, until};

const SOON: Duration = Duration::from_secs(60);
/// The shipped `shutdown.timeout`.
const TIMEOUT: Duration = Duration::from_secs(25);
/// A stop with nothing broken.
const PROMPT: Duration = Duration::from_secs(8);
/// All partitions of a world with the shipped counts.
const PARTITIONS: usize = 36;

fn load(seconds: u64) -> SendArgs {
    SendArgs {
        count: seconds * 100,
        rate: 500,
        ..SendArgs::default()
    }
}

/// Waits for a good end; how long it took since the signal.
async fn ends_well(instance: &Instance, since: Instant, within: Duration) -> Duration {
    let status = instance.process.wait(within.saturating_sub(since.elapsed())).await;
    let status = status.unwrap_or_else(|| panic!("within {within:?}: {}", instance.process.obituary()));
    assert!(status.success(), "{}", instance.process.obituary());
    since.elapsed()
}

/// Everything that was acknowledged is there, once.
async fn nothing_lost(world: &World, sending: Sending, webhooks: u64) {
    let (summary, acked) = sending.finish().await;
    assert_eq!(
        (summary.acked, summary.refused, summary.given_up),
        (webhooks, 0, 0),
        "{summary:?}"
    );
    world.landed(SOON).await;
    world.reckon(&acked).await;
    world.nothing_buried().await;
}

/// Two instances under load, one is stopped: it says so, and the other has all partitions within seconds.
#[test]
fn under_load() {
    heavy(async {
        let world = Arc::new(World::new(&shared_stack().await, "stop_load").await);
        let (stays, leaves) = (world.start("stays").await, world.start("leaves").await);
        until("both share the partitions", SOON, async || {
            let shares = [stays.running_partitions().await, leaves.running_partitions().await];
            shares.iter().all(|n| *n > 0) && shares.iter().sum::<usize>() == PARTITIONS
        })
        .await;
        let sending = world.send_behind(vec![stays.url.clone(), leaves.url.clone()], load(15));
        sending.reaches(1500, SOON).await;

        let told = Instant::now();
        leaves.process.signal(Signal::SIGTERM);
        let health = format!("{}/health/ready", leaves.admin);
        let mut draining = None;
        while let Ok(answer) = leaves.client.get(&health).send().await {
            if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                draining = Some(answer.text().await.expect("a report"));
                break;
            }
        }
        assert!(
            draining.as_ref().is_some_and(|report| report.contains("draining")),
            "{draining:?}"
        );
        let took = ends_well(&leaves, told, PROMPT).await;
        stays.runs(PARTITIONS, PROMPT.saturating_sub(told.elapsed())).await;
        let log = leaves.log();
        let (_, last) = log.split_once("SIGTERM").expect("it says why it stops");
        assert!(
            !last.contains("WARN") && !last.contains("ERROR"),
            "an ordinary stop: {last}"
        );
        println!("ended after {took:?}, handed over after {:?}", told.elapsed());
        assert!(!sending.is_finished(), "it happened under load");
        nothing_lost(&world, sending, 7500).await;
        stays.stop().await;
    });
}

/// A webhook of which half has come when the signal does is still taken, and a new one is not.
#[test]
fn with_a_webhook_under_way() {
    light(async {
        let world = World::new(&shared_stack().await, "stop_half").await;
        let instance = world.start("only").await;
        let address = instance.url.trim_start_matches("http://");
        let body = br#"{"type":"order.paid","timestamp":"2026-01-02T03:04:05Z",
            "data":{"id":"o1","user_id":"u1","amount":1010,"currency":"usd","status":"paid"}}"#;
        let mut head = format!(
            "POST /webhooks/standard HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in signed("standard", body, "msg_half", Utc::now()) {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let (first, second) = body.split_at(40);
        let sent = [head.as_bytes(), b"\r\n", first].concat();
        stream.write_all(&sent).await.expect("sent");
        until("it is under way", SOON, async || {
            instance.post("/webhooks/nobody", &[], b"{}").await;
            instance.actor(&["ingest", "server"]).await["queue_depth"] == 1
        })
        .await;

        let told = Instant::now();
        instance.process.signal(Signal::SIGTERM);
        until("nobody is let in", PROMPT, async || {
            TcpStream::connect(address).await.is_err()
        })
        .await;
        stream.write_all(second).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
        ends_well(&instance, told, PROMPT).await;
        let next = world.start("next").await;
        world.landed(SOON).await;
        let events: Vec<_> = world.events().await.into_iter().map(|event| event.entity).collect();
        assert_eq!(events, ["o1"]);
        next.stop().await;
    });
}

/// A client that keeps its connection is told to open another one, elsewhere, and does not hold up the end.
#[test]
fn with_connections_that_stay_open() {
    light(async {
        let world = World::new(&shared_stack().await, "stop_open").await;
        let instance = world.start("only").await;
        let answer = instance.post("/webhooks/nobody", &[], b"{}").await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        answer
            .text()
            .await
            .expect("read to its end, so that the connection stays open");
        let told = Instant::now();
        instance.process.signal(Signal::SIGTERM);
        let took = ends_well(&instance, told, PROMPT).await;
        println!("ended after {took:?}");
    });
}

/// What the dead shard has not got yet is written by the next instance once it is back.
#[test]
fn with_a_shard_down() {
    heavy(async {
        let stack = own_stack("stop_shard", 1, 2).await;
        let world = Arc::new(World::new(&stack, "stop_shard").await);
        let (first, second) = (world.start("first").await, world.start("second").await);
        let sending = world.send_behind(vec![first.url.clone(), second.url.clone()], load(20));
        sending.reaches(1000, SOON).await;
        stack.shard(1).process().kill();
        sending.reaches(3000, SOON).await;
        assert!(!sending.is_finished(), "it is told under load");
        let told = Instant::now();
        first.process.signal(Signal::SIGTERM);
        let took = ends_well(&first, told, TIMEOUT).await;
        println!("ended after {took:?}");
        stack.shard(1).restart().await.expect("it recovers");
        nothing_lost(&world, sending, 10_000).await;
        second.stop().await;
        stack.stop().await;
    });
}

/// Kafka answers nothing, not even that one leaves its groups.
#[test]
fn with_kafka_frozen() {
    heavy(async {
        let stack = own_stack("stop_kafka", 1, 2).await;
        let world = Arc::new(World::new(&stack, "stop_kafka").await);
        let (stays, leaves) = (world.start("stays").await, world.start("leaves").await);
        let sending = world.send_behind(vec![stays.url.clone(), leaves.url.clone()], load(8));
        sending.reaches(1000, SOON).await;
        stack.kafka(0).process().freeze();
        // Now every connection waits for an answer.
        let mut last = (sending.count(), Instant::now());
        until("no webhook is acknowledged any more", SOON, async || {
            if sending.count() != last.0 {
                last = (sending.count(), Instant::now());
            }
            last.1.elapsed() > Duration::from_millis(500)
        })
        .await;
        let told = Instant::now();
        leaves.process.signal(Signal::SIGTERM);
        let took = ends_well(&leaves, told, TIMEOUT).await;
        stack.kafka(0).process().thaw();
        println!("ended after {took:?}");
        stays.runs(PARTITIONS, SOON).await;
        nothing_lost(&world, sending, 4000).await;
        stays.stop().await;
        stack.stop().await;
    });
}

/// A server that takes connections and says nothing.
fn silent_server() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port")
}

/// Waits until the instance has logged `what`, then signals it. (In the midst of a rebalance it takes a while until Kafka
/// lets a member go.)
async fn signalled_at(world: &World, name: &str, what: &str, signal: Signal) {
    let instance = world.spawn(name, &[]);
    until(&format!("{name}: {what}"), SOON, async || instance.log().contains(what)).await;
    let told = Instant::now();
    instance.process.signal(signal);
    let took = ends_well(&instance, told, TIMEOUT).await;
    println!("{name}: ended after {took:?}");
}

#[test]
fn during_the_start() {
    light(async {
        let world = World::new(&shared_stack().await, "stop_start").await;
        let silent = silent_server();
        let address = silent.local_addr().expect("an address");
        let mut without_kafka = world.clone();
        without_kafka.brokers = address.to_string();
        signalled_at(&without_kafka, "no_kafka", "starting", Signal::SIGTERM).await;
        let mut without_shard = world.clone();
        without_shard.shard_urls[1] = format!("postgres://postgres@{address}/nothing");
        signalled_at(&without_shard, "no_shard", "starting", Signal::SIGTERM).await;
        signalled_at(&world, "listening", "listening for admin", Signal::SIGTERM).await;
        signalled_at(&world, "assigned", "rebalance", Signal::SIGTERM).await;
        // None of them is in the way of the next.
        let instance = world.start("after").await;
        instance.runs(PARTITIONS, SOON).await;
        instance.stop().await;
    });
}

#[test]
fn by_ctrl_c() {
    light(async {
        let world = World::new(&shared_stack().await, "stop_int").await;
        signalled_at(&world, "first", "rebalance", Signal::SIGINT).await;
    });
}

/// Somebody loses patience: the second signal changes nothing about what is promised.
#[test]
fn told_twice() {
    light(async {
        let world = Arc::new(World::new(&shared_stack().await, "stop_twice").await);
        let first = world.start("first").await;
        let sending = world.send_behind(vec![first.url.clone()], load(6));
        sending.reaches(1000, SOON).await;
        let told = Instant::now();
        first.process.signal(Signal::SIGTERM);
        until("it is stopping", SOON, async || first.log().contains("SIGTERM")).await;
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            first.process.signal(signal);
        }
        ends_well(&first, told, PROMPT).await;
        first.process.restart().expect("it starts again");
        nothing_lost(&world, sending, 3000).await;
        first.stop().await;
    });
}
