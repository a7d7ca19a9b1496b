//! A topic that was truncated or created again halts its partitions, loudly and until an operator has decided: its
//! offsets mean something else now, and reading on at the old one would lose what is before it without a word.

use std::time::Duration;

use dev::send::SendArgs;
use serde_json::Value;

use crate::harness::{Instance, World, light, shared_stack, until};

const SOON: Duration = Duration::from_secs(60);

/// Why each partition of `topic` is halted on this instance.
async fn reasons(instance: &Instance, topic: &str) -> Vec<Option<String>> {
    let stats = instance.stats().await;
    let partitions = stats["partitions"].as_array().expect("a list");
    let ours = partitions.iter().filter(|p| p["topic"] == topic);
    ours.map(|p| p["reason"].as_str().map(str::to_owned)).collect()
}

async fn all_halted(instance: &Instance, topic: &str, word: &str) {
    until("every partition is halted", SOON, async || {
        let reasons = reasons(instance, topic).await;
        reasons.iter().all(|r| r.as_ref().is_some_and(|r| r.contains(word)))
    })
    .await;
}

async fn health(instance: &Instance) -> Value {
    let answer = instance.client.get(format!("{}/health/ready", instance.admin)).send();
    answer.await.expect("an answer").json().await.expect("a report")
}

#[test]
fn a_topic_that_was_created_again() {
    created_again("recreated", true);
}

/// What comes then may be read in the middle of the new topic, until it is noticed.
#[test]
fn a_topic_that_was_created_again_and_filled_at_once() {
    created_again("replaced", false);
}

fn created_again(name: &str, noticed_first: bool) {
    light(async {
        let stack = shared_stack().await;
        let world = World::with_partitions(&stack, name, (2, 1)).await;
        let args = |count| SendArgs {
            count,
            disputes: 0,
            ..SendArgs::default()
        };
        let instance = world.start("before").await;
        let (_, mut acked) = world.send(&[&instance], args(60)).await;
        world.landed(SOON).await;
        let events = world.events().await.len();

        world.delete_topic(&world.orders()).await;
        let (code, said) = world.run("create", &["topics", "create"], &[]).await;
        assert_eq!(code, 0, "{said}");
        if noticed_first {
            all_halted(&instance, &world.orders(), "created again").await;
        }
        // More than the old topic held, so that the new one grows past every offset in the tables.
        let (summary, more) = world.send(&[&instance], args(200)).await;
        assert_eq!(
            (summary.acked, summary.refused),
            (1000, 0),
            "they are taken, and stay on Kafka"
        );
        acked.extend(more);
        all_halted(&instance, &world.orders(), "created again").await;
        let both = [0, 1].map(|partition| format!("{} partition {partition}", world.orders()));
        until("it says that it is degraded, and where", SOON, async || {
            let report = health(&instance).await;
            report["status"] == "degraded" && both.iter().all(|name| report.to_string().contains(name))
        })
        .await;
        let log = instance.log();
        let loud = log
            .lines()
            .filter(|line| line.contains("ERROR") && line.contains("is halted"));
        assert_eq!(loud.count(), 2, "once for each partition: {log}");
        instance.stop().await;

        // Neither a restart nor that the topic has grown makes it forget.
        let instance = world.start("after").await;
        all_halted(&instance, &world.orders(), "created again").await;
        if noticed_first {
            assert_eq!(world.events().await.len(), events, "nothing was read from the middle");
        }

        // What the reason tells an operator to do.
        for shard in world.stack.shards() {
            let sql = format!(
                "UPDATE consumer_offsets SET next_offset = 0, topic_id = NULL, halted = NULL WHERE topic = '{}'",
                world.orders()
            );
            shard.execute(&world.name, &sql).await.expect("an operator's decision");
        }
        world.landed(SOON).await;
        world.reckon(&acked).await;
        world.nothing_buried().await;
        until("all is well again", SOON, async || {
            health(&instance).await["status"] == "ready"
        })
        .await;
        instance.stop().await;
    });
}

#[test]
fn a_topic_that_ends_before_what_was_written() {
    light(async {
        let stack = shared_stack().await;
        let world = World::with_partitions(&stack, "truncated", (2, 1)).await;
        let args = |count| SendArgs {
            count,
            disputes: 0,
            ..SendArgs::default()
        };
        let instance = world.start("before").await;
        let (_, mut acked) = world.send(&[&instance], args(20)).await;
        world.landed(SOON).await;
        instance.stop().await;
        let events = world.events().await.len();
        for shard in world.stack.shards() {
            let sql = format!(
                "UPDATE consumer_offsets SET next_offset = next_offset + 20 WHERE topic = '{}'",
                world.orders()
            );
            shard
                .execute(&world.name, &sql)
                .await
                .expect("the records are as good as gone");
        }
        let instance = world.start("halted").await;
        all_halted(&instance, &world.orders(), "ends at").await;
        let (summary, more) = world.send(&[&instance], args(60)).await;
        assert_eq!(summary.acked, 300);
        acked.extend(more);
        instance.stop().await;
        let instance = world.start("still_halted").await;
        all_halted(&instance, &world.orders(), "ends at").await;
        assert_eq!(world.events().await.len(), events, "nothing was read from the middle");
        for shard in world.stack.shards() {
            let sql = format!(
                "UPDATE consumer_offsets SET next_offset = next_offset - 20, halted = NULL WHERE topic = '{}'",
                world.orders()
            );
            shard.execute(&world.name, &sql).await.expect("an operator's decision");
        }
        world.landed(SOON).await;
        world.reckon(&acked).await;
        instance.stop().await;
    });
}

/// Kafka has thrown records away that were not written yet: nobody is told a lie about it, and only an operator goes on.
#[test]
fn records_that_are_gone() {
    light(async {
        let stack = shared_stack().await;
        let world = World::with_partitions(&stack, "gone", (2, 1)).await;
        let instance = world.start_taking("takes").await;
        let args = SendArgs {
            count: 40,
            disputes: 0,
            ..SendArgs::default()
        };
        let (summary, _) = world.send(&[&instance], args.clone()).await;
        assert_eq!(summary.acked, 200);
        instance.stop().await;
        // Claimed once, so that the topic is not one that is older than the deployment.
        let instance = world.start("claims").await;
        world.landed(SOON).await;
        instance.stop().await;
        let written = world.events().await.len();

        let instance = world.start_taking("takes_more").await;
        let (summary, _) = world.send(&[&instance], args).await;
        assert_eq!(summary.acked, 200);
        instance.stop().await;
        let mut gone = 0;
        for (partition, (_, high)) in (0..).zip(world.watermarks(&world.orders(), 2).await) {
            let next = world.offsets().await[&(world.orders(), partition)];
            assert!(next + 10 < high, "partition {partition} has more than that");
            world.delete_records(&world.orders(), partition, next + 10).await;
            gone += 10;
        }

        let instance = world.start("halts").await;
        all_halted(&instance, &world.orders(), "were deleted from Kafka before").await;
        assert_eq!(world.events().await.len(), written, "nothing is read behind the gap");
        instance.stop().await;
        let instance = world.start_with("skips", &[("HOOKMILL_TOPICS__ON_GAP", "skip")]).await;
        world.landed(SOON).await;
        assert_eq!(world.events().await.len(), written + 200 - gone);
        let log = instance.log();
        let loud = log
            .lines()
            .filter(|line| line.contains("ERROR") && line.contains("behind the gap"));
        assert_eq!(loud.count(), 2, "it says what is lost, for each partition: {log}");
        world.nothing_buried().await;
        instance.stop().await;
    });
}
