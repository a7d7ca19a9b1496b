//! Wires that break without a word.

use std::time::{Duration, Instant};

use dev::send::SendArgs;

use crate::harness::{World, light, own_stack};

const SOON: Duration = Duration::from_secs(60);

/// The other end of every connection to Kafka, or to a shard, is gone and nobody was told. Silence must be noticed within
/// the time that a request may take, not within the minute that librdkafka waits unless told otherwise.
#[test]
fn connections_without_another_end() {
    light(async {
        let stack = own_stack("half_open", 1, 2).await;
        let world = World::with_partitions(&stack, "half_open", (2, 2))
            .await
            .through_proxies()
            .set("HOOKMILL_POSTGRES__STATEMENT_TIMEOUT", "5s");
        let instance = world.start("only").await;
        let args = SendArgs {
            count: 40,
            ..SendArgs::default()
        };
        let (_, mut all) = world.send(&[&instance], args.clone()).await;
        world.landed(SOON).await;
        for broken in ["Kafka", "the shards"] {
            if broken == "Kafka" {
                stack.kafka(0).proxy().tear();
            } else {
                stack.shards().iter().for_each(|shard| shard.proxy().tear());
            }
            let before = Instant::now();
            let (summary, acked) = world.send(&[&instance], args.clone()).await;
            assert_eq!((summary.acked, summary.refused, summary.given_up), (200, 0, 0));
            all.extend(acked);
            world.landed(SOON).await;
            let took = before.elapsed();
            assert!(took < Duration::from_secs(30), "{broken}: {} s", took.as_secs());
        }
        world.reckon(&all).await;
        world.nothing_buried().await;
        instance.stop().await;
    });
}
