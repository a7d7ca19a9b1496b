//! A server is gone for a minute: its neighbours do not suffer, nothing piles up or is given up, and the rest arrives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use dev::send::{Generator, GeneratorSettings, SendArgs, sign};

use crate::harness::{Instance, World, heavy, light, own_stack, secrets, shared_stack, until};

const OUTAGE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(60);
/// No single row of a healthy shard takes longer, whatever its neighbour does.
const STALL: Duration = Duration::from_secs(5);
/// What may wait for a dead shard: of each of its nine partitions 1 MiB of prefetch and two batches, one of them being built. All of what is sent
/// meanwhile would be several times that.
const MEMORY: u64 = 48 << 20;

/// The given share of times from taking a webhook to the beginning of the transaction that wrote its row on a shard, of all that were
/// taken between these times, whenever they were written.
async fn freshness(world: &World, shard: usize, share: f64, from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    let client = world.stack.shard(shard).connect(&world.name).await.expect("a shard");
    let sql = "SELECT count(*), percentile_cont($3) WITHIN GROUP (ORDER BY extract(epoch FROM recorded_at - received_at)::float8)
               FROM order_events WHERE received_at BETWEEN $1 AND $2";
    let row = client.query_one(sql, &[&from, &to, &share]).await.expect("a row");
    assert!(row.get::<_, i64>(0) > 100, "there is something to measure");
    Duration::from_secs_f64(row.get(1))
}

fn resident_bytes(instance: &Instance) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", instance.process.pid())).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a size");
    line.trim()
        .trim_end_matches(" kB")
        .trim()
        .parse::<u64>()
        .expect("a number")
        << 10
}

/// Watches the instance's memory for so long; the most it had.
async fn most_memory(instance: &Instance, during: Duration) -> u64 {
    let (end, mut most) = (Instant::now() + during, 0);
    while Instant::now() < end {
        most = most.max(resident_bytes(instance));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    most
}

enum Loss {
    Killed,
    Silent,
}

async fn a_shard_is_gone(name: &str, loss: Loss, outage: Duration) {
    let stack = own_stack(name, 1, 2).await;
    let world = Arc::new(World::new(&stack, name).await.through_proxies());
    let instance = world.start("only").await;
    let count = 20_000;
    let args = SendArgs {
        count,
        rate: count * 5 / (outage.as_secs() + 15),
        connections: 16,
        ..SendArgs::default()
    };
    let sending = world.send_behind(vec![instance.url.clone()], args);
    let started = Utc::now();
    sending.reaches(10_000, SOON).await;
    let (before, calm) = (Utc::now(), resident_bytes(&instance));
    match loss {
        Loss::Killed => stack.shard(1).process().kill(),
        Loss::Silent => stack.shard(1).proxy().black_hole(),
    }
    let most = most_memory(&instance, outage).await;
    let after = Utc::now();
    assert!(!sending.is_finished(), "webhooks came all the while");
    let ready = instance
        .client
        .get(format!("{}/health/ready", instance.admin))
        .send()
        .await
        .expect("it answers");
    assert!(
        ready.status().is_success(),
        "webhooks are taken and the other shard is written"
    );
    let report = ready.text().await.expect("a report");
    assert!(report.contains("degraded") && report.contains("shard.1"), "{report}");
    // Started into the outage: it waits for the shard instead of leaving.
    let late = world.spawn("late", &[("HOOKMILL_POSTGRES__START_TIMEOUT", "1m")]);
    until("the late instance waits", SOON, async || {
        late.log().contains("postgres.start_timeout")
    })
    .await;
    match loss {
        Loss::Killed => stack.shard(1).restart().await.expect("it recovers"),
        Loss::Silent => stack.shard(1).proxy().restore(),
    }
    late.ready().await;

    let (summary, acked) = sending.finish().await;
    assert_eq!(
        (summary.acked, summary.refused, summary.given_up),
        (count * 5, 0, 0),
        "{summary:?}"
    );
    world.landed(SOON).await;
    world.reckon(&acked).await;
    world.nothing_buried().await;
    // The first seconds are warming up.
    let usual = freshness(&world, 0, 0.99, started + TimeDelta::seconds(2), before).await;
    let meanwhile = freshness(&world, 0, 0.99, before, after).await;
    assert!(
        meanwhile < usual * 2 + Duration::from_millis(100),
        "the other shard: {usual:?} before, {meanwhile:?} meanwhile"
    );
    let slowest = freshness(&world, 0, 1.0, before, after).await;
    assert!(slowest < STALL, "the other shard stood still for {slowest:?} meanwhile");
    assert!(
        most < calm + MEMORY,
        "{} MB before, up to {} MB meanwhile",
        calm >> 20,
        most >> 20
    );
    instance.stop().await;
    late.stop().await;
    stack.stop().await;
}

#[test]
fn a_killed_shard() {
    heavy(a_shard_is_gone("killed_shard", Loss::Killed, OUTAGE));
}

/// Connections stay open and nothing comes back: worse than a dead server.
#[test]
fn a_silent_shard() {
    heavy(a_shard_is_gone("silent_shard", Loss::Silent, OUTAGE));
}

/// While there is no broker, each webhook is answered 503 with Retry-After inside the deadline.
#[test]
fn a_broker() {
    heavy(async {
        let stack = own_stack("broker_gone", 1, 2).await;
        let world = Arc::new(World::new(&stack, "broker_gone").await);
        let instance = world.start("only").await;
        let args = SendArgs {
            count: 4000,
            rate: 1000,
            connections: 16,
            retry_for: 200,
            ..SendArgs::default()
        };
        let sending = world.send_behind(vec![instance.url.clone()], args);
        sending.reaches(5000, SOON).await;
        let calm = resident_bytes(&instance);
        stack.kafka(0).process().kill();
        let deadline = Duration::from_secs(4) + Duration::from_millis(500);
        let probes = async {
            let end = Instant::now() + OUTAGE;
            let webhooks = Generator::new(GeneratorSettings {
                sources: vec!["stripe"],
                worker: 0,
                users: 1,
                disputes_percent: 0,
                old_one_in: 0,
                poison: 0,
                count: u64::MAX,
                seed: 1,
                run_id: "broker-gone-probe".into(),
            });
            let secret = &secrets()[0].1;
            let mut asked = 0;
            for webhook in webhooks {
                if Instant::now() > end {
                    break;
                }
                let mut request = instance.client.post(format!("{}/webhooks/stripe", instance.url));
                for (name, value) in sign(&webhook, secret, "", Utc::now()).expect("signed") {
                    request = request.header(name, value);
                }
                let before = Instant::now();
                let request = request.header("content-type", "application/json").body(webhook.body);
                let response = request.send().await.expect("an answer");
                assert!(before.elapsed() < deadline, "answered after {:?}", before.elapsed());
                assert_eq!(response.status(), 503);
                assert!(response.headers().contains_key("retry-after"));
                asked += 1;
            }
            assert!(asked > 5, "{asked} probes");
        };
        let (most, ()) = tokio::join!(most_memory(&instance, OUTAGE), probes);
        let ready = instance
            .client
            .get(format!("{}/health/ready", instance.admin))
            .send()
            .await
            .expect("it answers");
        assert_eq!(ready.status(), 503, "nobody should send here");
        stack.kafka(0).restart().await.expect("it recovers");
        until("it is ready again", SOON, async || {
            let ready = instance
                .client
                .get(format!("{}/health/ready", instance.admin))
                .send()
                .await;
            ready.is_ok_and(|r| r.status().is_success())
        })
        .await;
        let (summary, acked) = sending.finish().await;
        assert_eq!(
            (summary.acked, summary.refused, summary.given_up),
            (20_000, 0, 0),
            "{summary:?}"
        );
        world.landed(SOON).await;
        // The probes were told to come again and did not; Kafka may have taken some of them all the same.
        let probes = "DELETE FROM order_events WHERE order_id LIKE 'pi_broker-gone-probe%'";
        let states = "DELETE FROM orders WHERE order_id LIKE 'pi_broker-gone-probe%'";
        for shard in stack.shards() {
            shard
                .execute(&world.name, &format!("{probes}; {states}"))
                .await
                .expect("deleted");
        }
        world.reckon(&acked).await;
        world.nothing_buried().await;
        assert!(
            most < calm + MEMORY,
            "{} MB before, up to {} MB meanwhile",
            calm >> 20,
            most >> 20
        );
        instance.stop().await;
        stack.stop().await;
    });
}

/// With three brokers the loss of one is not noticed by those who send.
#[test]
fn one_of_three_brokers() {
    heavy(async {
        let stack = own_stack("one_of_three", 3, 1).await;
        let world = Arc::new(World::with_partitions(&stack, "one_of_three", (3, 2)).await);
        let instance = world.start("only").await;
        let args = SendArgs {
            count: 2000,
            rate: 500,
            connections: 8,
            ..SendArgs::default()
        };
        let sending = world.send_behind(vec![instance.url.clone()], args);
        sending.reaches(2000, SOON).await;
        stack.kafka(1).process().kill();
        sending.reaches(8000, SOON).await;
        assert!(!sending.is_finished(), "it went on without the broker");
        let (summary, acked) = sending.finish().await;
        assert_eq!(
            (summary.acked, summary.refused, summary.given_up),
            (10_000, 0, 0),
            "{summary:?}"
        );
        world.landed(SOON).await;
        world.reckon(&acked).await;
        world.nothing_buried().await;
        instance.stop().await;
    });
}

/// A broker that was silent for longer than its session with the controller is listed by nobody for a moment. What is told so
/// then would ask nobody any more, now and then: the producer, a group's client, the one that looks after the lag.
#[test]
fn a_broker_that_nobody_lists() {
    heavy(async {
        let stack = own_stack("unlisted", 1, 1).await;
        let world = Arc::new(World::with_partitions(&stack, "unlisted", (3, 2)).await);
        let instance = world.start("only").await;
        let args = SendArgs {
            count: 800,
            rate: 50,
            connections: 8,
            ..SendArgs::default()
        };
        let sending = world.send_behind(vec![instance.url.clone()], args);
        for _ in 0..3 {
            sending.reaches(sending.count() + 100, SOON).await;
            stack.kafka(0).process().freeze();
            tokio::time::sleep(Duration::from_secs(12)).await;
            stack.kafka(0).process().thaw();
        }
        sending.reaches(4000, SOON * 3).await;
        let (summary, acked) = sending.finish().await;
        assert_eq!((summary.acked, summary.given_up), (4000, 0), "{summary:?}");
        world.landed(SOON).await;
        world.reckon(&acked).await;
        world.nothing_buried().await;
        until("it is well", SOON, async || {
            instance.stats().await["health"]["status"] == "ready"
        })
        .await;
        println!("{} fresh clients", instance.log().matches("knows no broker").count());
        instance.stop().await;
    });
}

/// A shard that is too slow for what is merged into a statement gets smaller ones, down to what it manages in its time;
/// that it was slow is no row's fault.
#[test]
fn a_slow_shard() {
    light(async {
        let stack = shared_stack().await;
        let world = World::with_partitions(&stack, "slow_shard", (4, 1))
            .await
            .set("HOOKMILL_POSTGRES__STATEMENT_TIMEOUT", "2s");
        let instance = world.start_taking("takes").await;
        let args = SendArgs {
            count: 200,
            disputes: 0,
            ..SendArgs::default()
        };
        let (_, acked) = world.send(&[&instance], args).await;
        assert_eq!(acked.len(), 1000);
        instance.stop().await;
        let (code, said) = world.run("migrate", &["migrate"], &[]).await;
        assert_eq!(code, 0, "{said}");
        for shard in stack.shards() {
            let sql = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
                CREATE TRIGGER slow BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION slow()";
            shard.execute(&world.name, sql).await.expect("from now on it is slow");
        }
        let instance = world.start("only").await;
        world.landed(SOON).await;
        assert!(
            instance.log().contains("57014"),
            "all at once would have taken it too long: {}",
            instance.log()
        );
        world.reckon(&acked).await;
        world.nothing_buried().await;
        instance.stop().await;
    });
}
