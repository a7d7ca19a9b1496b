//! Looks at every instance and every shard all the while: what `/stats` says must not be ahead of what is written,
//! progress never goes back, and memory, file descriptors and connections stay bounded.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::world::{Progress, World};

/// An instance may take no more memory than this, in MB. (About 60 MB are usual; librdkafka's prefetch is bounded at
/// 1 MiB a partition.)
pub const MOST_MB: u64 = 512;
/// … nor more file descriptors.
pub const MOST_FILES: u64 = 1024;
/// Connections that an instance may have to a shard: two lanes, two for upkeep, one to make a partition, and as many
/// again that a broken wire has left behind.
pub const MOST_CONNECTIONS: i64 = 12;

/// What was seen.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Seen {
    /// How often `/stats` was compared with the shards.
    pub samples: u64,
    /// The most memory an instance had, in MB.
    pub most_mb: u64,
    /// The most file descriptors an instance had.
    pub most_files: u64,
    /// The most connections a shard had from the product.
    pub most_connections: i64,
}

/// Watches until `enough`.
pub async fn watch(world: Arc<World>, enough: watch::Receiver<bool>) -> Seen {
    let mut seen = Seen::default();
    let mut before: HashMap<(String, i32), Progress> = HashMap::new();
    while !*enough.borrow() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for instance in &world.instances {
            let pid = instance.process().pid();
            let (mb, files) = (resident_mb(pid), files(pid));
            complain_above(&world, &mut seen.most_mb, mb, MOST_MB, "MB of memory");
            complain_above(&world, &mut seen.most_files, files, MOST_FILES, "file descriptors");
        }
        // First what they say, then what is true: it may only be more by then.
        let said = join_all(world.instances.iter().map(|instance| instance.stats())).await;
        let Ok(offsets) = world.offsets(&world.deployment).await else {
            continue;
        };
        seen.samples += 1;
        for partition in said.iter().flatten().flat_map(|stats| stats.partitions()) {
            let Some(truth) = offsets.get(&partition.id) else {
                continue;
            };
            if partition.next_offset > truth.next_offset || partition.epoch > truth.epoch {
                world.complain(format!(
                    "/stats is ahead of the tables: it said {partition:?}, and they {truth:?}"
                ));
            }
        }
        for (id, now) in &offsets {
            if let Some(then) = before.get(id)
                && (now.next_offset < then.next_offset || now.epoch < then.epoch)
            {
                world.complain(format!("progress of {id:?} went back from {then:?} to {now:?}"));
            }
        }
        before = offsets;
        for (index, shard) in world.stack.shards().iter().enumerate() {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hookmill' AND datname = 'chaos'";
            let asked = tokio::time::timeout(Duration::from_secs(2), shard.query_one("postgres", sql)).await;
            if let Ok(Ok(connections)) = asked {
                seen.most_connections = seen.most_connections.max(connections);
                let most = MOST_CONNECTIONS * i64::try_from(world.instances.len() + 4).unwrap_or(i64::MAX);
                if connections > most {
                    world.complain(format!(
                        "the product has {connections} connections to shard {index}, more than {most}"
                    ));
                }
            }
        }
    }
    seen
}

fn complain_above(world: &World, most: &mut u64, now: u64, bound: u64, what: &str) {
    // Said once, not every half second.
    if now > bound && *most <= bound {
        world.complain(format!("an instance has {now} {what}, more than {bound}"));
    }
    *most = (*most).max(now);
}

fn resident_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kb.unwrap_or(0) / 1024
}

fn files(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |dir| dir.count() as u64)
}
