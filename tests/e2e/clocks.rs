//! Wall clocks that are wrong.

use std::time::Duration;

use dev::clock::{Clock, Library};
use dev::send::SendArgs;

use crate::harness::{World, light, shared_stack, until};

const SOON: Duration = Duration::from_secs(60);

/// Every partition is claimed by nobody that reads it: it must be claimed again after a while, by a clock that cannot be set.
#[test]
fn set_back_while_partitions_wait_to_be_claimed_again() {
    light(async {
        let world = World::with_partitions(&shared_stack().await, "clock_back", (2, 2)).await;
        let library = Library::compile(world.log_dir()).expect("it compiles");
        let clock = Clock::new(&library, world.log_dir(), "clock_back").expect("a clock");
        let env: Vec<(&str, &str)> = clock.env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let instance = world.start_with("only", &env).await;
        instance.runs(8, SOON).await;
        for shard in world.stack.shards() {
            let claim = "UPDATE consumer_offsets SET epoch = epoch + 1, owner = 'nobody'";
            shard.execute(&world.name, claim).await.expect("claimed");
        }
        let args = SendArgs {
            count: 20,
            ..SendArgs::default()
        };
        let (summary, acked) = world.send(&[&instance], args).await;
        assert_eq!((summary.acked, summary.refused), (100, 0));
        until("it noticed", SOON, async || instance.running_partitions().await < 8).await;
        clock.set(-3600).expect("set back");
        world.landed(SOON).await;
        world.reckon(&acked).await;
        instance.stop().await;
    });
}
