//! The main road.

use std::time::Duration;

use dev::send::SendArgs;

use crate::harness::{World, light, shared_stack};

#[test]
fn webhooks_of_every_source_land_once() {
    light(async {
        let world = World::new(&shared_stack().await, "first").await;
        let instance = world.start("only").await;
        let (summary, acked) = world
            .send(
                &[&instance],
                SendArgs {
                    count: 200,
                    duplicates: 10,
                    ..SendArgs::default()
                },
            )
            .await;
        assert_eq!(
            (summary.acked, summary.refused, summary.given_up),
            (1000, 0, 0),
            "{}",
            instance.log()
        );
        world.landed(Duration::from_secs(60)).await;
        world.reckon(&acked).await;
        world.nothing_buried().await;
        instance.stop().await;
    });
}
