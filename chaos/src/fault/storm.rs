//! Instances join and leave each second, some in good order and some not.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::instance::Instance;
use crate::plan::Fault;
use crate::world::World;

pub(super) async fn blow(fault: &Fault, world: &World) -> Result<()> {
    let mut rng = SmallRng::seed_from_u64(fault.amount.unsigned_abs() ^ world.number() as u64);
    let urls: Vec<String> = world
        .stack
        .shards()
        .iter()
        .map(|s| s.url(&world.deployment.name))
        .collect();
    let until = Instant::now() + fault.hold;
    let mut guests: Vec<Instance> = Vec::new();
    while Instant::now() < until {
        let name = format!("guest-{}", world.number());
        let brokers = world.stack.brokers();
        let program = world.deployment.program(&name, &["serve"], &brokers, &urls);
        guests.push(Instance::start(usize::MAX, program, None).await?);
        tokio::time::sleep(Duration::from_millis(rng.random_range(700..1300))).await;
        if guests.len() > 2 {
            let guest = guests.swap_remove(rng.random_range(0..guests.len()));
            leave(guest, rng.random(), world).await;
        }
    }
    for guest in guests {
        leave(guest, rng.random(), world).await;
    }
    Ok(())
}

async fn leave(guest: Instance, politely: bool, world: &World) {
    if !politely {
        return guest.kill();
    }
    match guest.stop().await {
        Ok(Some(0 | 75)) => {}
        Ok(code) => world.complain(format!(
            "a guest was told to stop and ended with {code:?}: {:#}",
            guest.process().obituary()
        )),
        Err(error) => world.complain(format!("a guest: {error:#}")),
    }
}
