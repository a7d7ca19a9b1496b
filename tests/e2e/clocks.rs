//! Wall clocks that are wrong.

use std::time::Duration;

use dev::clock::{Clock, Library};
use dev::send::SendArgs;

use crate::harness::{World, light, shared_stack};

const SOON: Duration = Duration::from_secs(60);

/// Set back by an hour, librdkafka's threads would sleep for an hour. The process notices, says so, and ends to be started
/// afresh; then it goes on where it was. A jump ahead harms nobody.
#[test]
fn set_back_by_an_hour() {
    light(async {
        let world = World::with_partitions(&shared_stack().await, "clock_back", (2, 2)).await;
        let library = Library::compile(world.log_dir()).expect("it compiles");
        let clock = Clock::new(&library, world.log_dir(), "clock_back").expect("a clock");
        let env: Vec<(&str, &str)> = clock.env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let instance = world.start_with("only", &env).await;
        let args = SendArgs {
            count: 20,
            ..SendArgs::default()
        };
        clock.set(200).expect("set ahead");
        let (summary, mut acked) = world.send(&[&instance], args.clone()).await;
        assert_eq!((summary.acked, summary.refused), (100, 0));
        world.landed(SOON).await;

        clock.set(-3600).expect("set back");
        let status = instance.process.wait(SOON).await.expect("it ends");
        assert_eq!(status.code(), Some(70), "{}", instance.process.obituary());
        assert!(
            instance.log().contains("the wall clock was set back"),
            "{}",
            instance.log()
        );
        clock.set(0).expect("set right");
        instance.process.restart().expect("it starts again");
        instance.ready().await;
        let (summary, again) = world.send(&[&instance], args).await;
        assert_eq!((summary.acked, summary.refused), (100, 0));
        acked.extend(again);
        world.landed(SOON).await;
        world.reckon(&acked).await;
        instance.stop().await;
    });
}
