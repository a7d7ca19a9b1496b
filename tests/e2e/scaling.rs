//! One instance, three, one again, under load: partitions move, and the tables are fresh again within seconds.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use dev::send::SendArgs;

use crate::harness::{Instance, World, heavy, own_stack, until};

/// A move of partitions may cost that much freshness, no longer.
const RECOVERY: TimeDelta = TimeDelta::seconds(10);
/// From taking a webhook to its row.
const FRESH: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(60);

/// Waits until these instances run all partitions between them, and each has some; returns when that was.
async fn shared_by(world: &World, instances: &[&Instance]) -> DateTime<Utc> {
    let all = usize::try_from(world.topics().iter().map(|(_, n)| n).sum::<i32>()).expect("a few");
    until(
        &format!("{} instances share all partitions", instances.len()),
        SOON,
        async || {
            let mut counts = Vec::new();
            for instance in instances {
                counts.push(instance.running_partitions().await);
            }
            counts.iter().sum::<usize>() == all && counts.iter().all(|n| *n > 0)
        },
    )
    .await;
    Utc::now()
}

/// The longest time from taking a webhook to the beginning of the transaction that wrote its row, of all that were taken between these
/// times, whenever they were written.
async fn slowest(world: &World, from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    let mut slowest = 0.0_f64;
    for shard in world.stack.shards() {
        let client = shard.connect(&world.name).await.expect("a shard");
        for table in ["order_events", "dispute_events"] {
            let sql = format!(
                "SELECT coalesce(max(extract(epoch FROM recorded_at - received_at)), 0)::float8 FROM {table} WHERE received_at BETWEEN $1 AND $2"
            );
            slowest = slowest.max(client.query_one(&sql, &[&from, &to]).await.expect("a number").get(0));
        }
    }
    Duration::from_secs_f64(slowest)
}

/// Lets the load run on for so long after the recovery that there is something to measure; returns when that ended. What came until then
/// has its row before partitions move again, or is late.
async fn under_load(since: DateTime<Utc>) -> DateTime<Utc> {
    let until = since + RECOVERY + TimeDelta::seconds(5);
    let moves = until + TimeDelta::from_std(FRESH).expect("a second");
    tokio::time::sleep((moves - Utc::now()).to_std().unwrap_or_default()).await;
    until
}

#[test]
fn one_three_one() {
    heavy(one_three_one_by("classic"));
}

#[test]
fn one_three_one_by_the_broker_side_protocol() {
    heavy(one_three_one_by("consumer"));
}

async fn one_three_one_by(protocol: &str) {
    let name = format!("scaling_{protocol}");
    let stack = own_stack(&name, 1, 2).await;
    let world = World::new(&stack, &name).await;
    let world = Arc::new(world.set("HOOKMILL_KAFKA__CONSUMER__GROUP_PROTOCOL", protocol));
    let first = world.start("a").await;
    // The sender posts to the instance that stays: this is about the way out.
    let args = SendArgs {
        count: 20_000,
        rate: 1000,
        connections: 16,
        retry_for: 60,
        ..SendArgs::default()
    };
    let sending = world.send_behind(vec![first.url.clone()], args);
    sending.reaches(3000, SOON).await;
    let mut calm = Vec::new();

    let (second, third) = (world.start("b").await, world.start("c").await);
    let changed = Utc::now();
    let took = shared_by(&world, &[&first, &second, &third]).await - changed;
    assert!(took < RECOVERY, "shared after {took}");
    calm.push(("three share", changed + RECOVERY, under_load(changed).await));

    let changed = Utc::now();
    tokio::join!(second.stop(), third.stop());
    let took = shared_by(&world, &[&first]).await - changed;
    assert!(took < RECOVERY, "handed over after {took}");
    calm.push(("one is left", changed + RECOVERY, under_load(changed).await));

    assert!(!sending.is_finished(), "all of it happened under load");
    let (summary, acked) = sending.finish().await;
    assert_eq!((summary.acked, summary.refused, summary.given_up), (100_000, 0, 0));
    world.landed(SOON).await;
    for (what, from, to) in calm {
        let slowest = slowest(&world, from, to).await;
        assert!(slowest < FRESH, "{what}: a row came {slowest:?} after its webhook");
    }
    world.reckon(&acked).await;
    world.nothing_buried().await;
    first.stop().await;
    stack.stop().await;
}
