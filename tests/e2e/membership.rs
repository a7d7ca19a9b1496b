//! A client that does not get into its consumer group is replaced: its partitions would be nobody's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use dev::send::SendArgs;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::harness::{World, light, shared_stack, until};

const SOON: Duration = Duration::from_secs(60);

/// A stranger takes its share of the group's partitions and then answers nothing, while it says that it is alive: the next
/// rebalance waits for it.
#[test]
fn a_group_that_does_not_come_to_rest() {
    light(async {
        let stack = shared_stack().await;
        let world = World::with_partitions(&stack, "membership", (4, 1)).await;
        let first = world.start("first").await;
        first.runs(10, SOON).await;
        let args = SendArgs {
            count: 20,
            disputes: 0,
            ..SendArgs::default()
        };
        let (_, mut acked) = world.send(&[&first], args.clone()).await;
        world.landed(SOON).await;

        let stranger: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", stack.brokers())
            .set("group.id", format!("{}.{}", world.name, world.orders()))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("max.poll.interval.ms", "300000")
            .create()
            .expect("a client");
        stranger.subscribe(&[&world.orders()]).expect("subscribed");
        let (stranger, polls) = (Arc::new(stranger), Arc::new(AtomicBool::new(true)));
        let (theirs, polling) = (stranger.clone(), polls.clone());
        let poller = tokio::task::spawn_blocking(move || {
            while polling.load(Relaxed) {
                let _ = theirs.poll(Duration::from_millis(50));
            }
        });
        until("it has its share", SOON, async || {
            stranger.assignment().is_ok_and(|list| list.count() > 0)
        })
        .await;
        polls.store(false, Relaxed);
        poller.await.expect("no panic");

        // The second instance takes a partition from the stranger, who is told and says nothing to it; so the rebalance for the
        // third does not end.
        let second = world.start("second").await;
        until("the group has spoken to the second", SOON, async || {
            let told = format!("assigned [] topic={}", world.orders());
            second.log().lines().any(|line| line.ends_with(&told))
        })
        .await;
        let third = world.start("third").await;
        until("the clients that wait are replaced", SOON, async || {
            let replaced = |log: String| log.contains("starting with a fresh client");
            [&second, &third].iter().all(|instance| replaced(instance.log()))
        })
        .await;
        assert!(!first.log().contains("fresh client"), "it reads, and goes on reading");
        tokio::task::spawn_blocking(move || drop(stranger))
            .await
            .expect("no panic");
        until("all partitions are read again", SOON, async || {
            let mut running = 0;
            for instance in [&first, &second, &third] {
                running += instance.running_partitions().await;
            }
            running == 10
        })
        .await;
        let (_, more) = world.send(&[&first, &second, &third], args).await;
        acked.extend(more);
        world.landed(SOON).await;
        world.reckon(&acked).await;
        world.nothing_buried().await;
        first.stop().await;
        second.stop().await;
        third.stop().await;
    });
}
