//! Promise 2: whatever is killed, frozen and restarted, each acknowledged event is in its table exactly once.

use std::sync::Arc;
use std::time::Duration;

use dev::send::SendArgs;

use crate::harness::{Instance, World, heavy, own_stack, until};

const SOON: Duration = Duration::from_secs(60);

/// What is done to the servers and instances, in this order, spread evenly over the run.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillInstance(usize),
    RestartInstance(usize),
    FreezeInstance(usize),
    KillShard(usize),
    KillBroker,
}

const FAULTS: [Fault; 12] = [
    Fault::KillInstance(0),
    Fault::KillInstance(1),
    Fault::KillShard(1),
    Fault::RestartInstance(2),
    Fault::KillInstance(2),
    Fault::FreezeInstance(0),
    Fault::KillInstance(1),
    Fault::KillBroker,
    Fault::KillInstance(2),
    Fault::KillShard(0),
    Fault::RestartInstance(1),
    Fault::KillInstance(0),
];

async fn inflict(fault: Fault, world: &World, instances: &[Instance]) {
    match fault {
        Fault::KillInstance(i) => {
            instances[i].ready().await;
            instances[i].process.kill();
            instances[i].process.restart().expect("it starts again");
        }
        Fault::RestartInstance(i) => {
            instances[i].ready().await;
            instances[i].stop().await;
            instances[i].process.restart().expect("it starts again");
        }
        Fault::FreezeInstance(i) => {
            let zombie = &instances[i];
            zombie.ready().await;
            let epochs = "SELECT coalesce(sum(epoch), 0)::bigint FROM consumer_offsets";
            let before = world.sum(epochs).await;
            zombie.process.freeze();
            let all = usize::try_from(world.topics().iter().map(|(_, n)| n).sum::<i32>()).expect("a few");
            until("the others have the zombie's partitions", SOON, async || {
                let mut running = 0;
                for other in instances.iter().filter(|other| other.url != zombie.url) {
                    running += other.running_partitions().await;
                }
                running == all
            })
            .await;
            assert!(world.sum(epochs).await > before, "its partitions were claimed");
            zombie.process.thaw();
        }
        Fault::KillShard(i) => {
            world.stack.shard(i).process().kill();
            world.stack.shard(i).restart().await.expect("it recovers");
        }
        Fault::KillBroker => {
            world.stack.kafka(0).process().kill();
            world.stack.kafka(0).restart().await.expect("it recovers");
        }
    }
}

async fn survives_everything(name: &str, partitions: (i32, i32)) {
    let stack = own_stack(name, 1, 2).await;
    let world = Arc::new(World::with_partitions(&stack, name, partitions).await);
    let mut instances = Vec::new();
    for name in ["a", "b", "c"] {
        instances.push(world.start(name).await);
    }
    let urls = instances.iter().map(|i| i.url.clone()).collect();
    let total = 100_000;
    let args = SendArgs {
        count: total / 5,
        duplicates: 5,
        connections: 48,
        rate: 1200,
        ..SendArgs::default()
    };
    let sending = world.send_behind(urls, args);
    for (i, fault) in (1..).zip(FAULTS) {
        let due = usize::try_from(total).expect("fits") * i / (FAULTS.len() + 1);
        sending.reaches(due, Duration::from_secs(180)).await;
        assert!(
            !sending.is_finished(),
            "faults must meet a run, and {fault:?} came too late"
        );
        inflict(fault, &world, &instances).await;
    }
    let (summary, acked) = sending.finish().await;
    assert_eq!(
        (summary.acked, summary.refused, summary.given_up),
        (total, 0, 0),
        "{summary:?}"
    );
    assert!(summary.duplicates > total * 4 / 100, "{summary:?}");
    world.landed(SOON).await;
    world.reckon(&acked).await;
    world.nothing_buried().await;
    for instance in &instances {
        instance.ready().await;
        instance.stop().await;
    }
    stack.stop().await;
}

#[test]
fn with_the_shipped_partition_counts() {
    heavy(survives_everything("shipped", (12, 6)));
}

/// Shards and partitions that do not divide each other.
#[test]
fn with_three_and_two_partitions_over_two_shards() {
    heavy(survives_everything("three_two", (3, 2)));
}
