//! A panic in any kind of actor restarts that one and who depends on it; the others go on with their counters, and what
//! is sent meanwhile lands once. An actor that keeps failing ends the process, which says why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dev::send::SendArgs;
use serde_json::Value;

use crate::harness::{Instance, World, light, shared_stack, until};

const SOON: Duration = Duration::from_secs(60);
/// The process's exit code when its root supervisor gives up.
const GAVE_UP: i32 = 70;

/// Every actor in `/stats` by its path below the root.
fn flat(stats: &Value) -> BTreeMap<String, Value> {
    fn walk(path: &str, node: &Value, all: &mut BTreeMap<String, Value>) {
        for (name, child) in node["children"].as_object().into_iter().flatten() {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}/{name}")
            };
            walk(&path, child, all);
            all.insert(path, child.clone());
        }
    }
    let mut all = BTreeMap::new();
    walk("", &stats["actors"]["hookmill"], &mut all);
    all
}

/// What has been seen of the actors so far.
#[derive(Default)]
struct Seen {
    actors: BTreeMap<String, Value>,
}

impl Seen {
    /// Looks again. Counters outlive restarts, so they never go down; only who left for good begins anew.
    async fn look(&mut self, instance: &Instance, leaves: &dyn Fn(&str) -> bool) {
        // While the admin server is being restarted nobody answers.
        let Some(stats) = instance.try_stats().await else {
            return;
        };
        let now = flat(&stats);
        for (path, before) in self.actors.iter().filter(|(path, _)| !leaves(path)) {
            let after = now.get(path).unwrap_or_else(|| panic!("{path} is gone"));
            for counter in ["handled", "restarts"] {
                let [before, after] = [before, after].map(|node| node[counter].as_u64().expect("a counter"));
                assert!(before <= after, "{path}: {counter} went from {before} to {after}");
            }
        }
        self.actors = now;
    }

    fn restarted(&self) -> Vec<(&str, u64)> {
        let count = |node: &Value| node["restarts"].as_u64().expect("a counter");
        let all = self.actors.iter().map(|(path, node)| (path.as_str(), count(node)));
        all.filter(|(_, restarts)| *restarts > 0).collect()
    }
}

/// One panic and what it may touch.
struct Panic<'a> {
    world: &'a str,
    fail_point: &'a str,
    /// When it happens: so many passes are let by.
    after: usize,
    /// Which actors have that fail point; exactly one of them is restarted.
    victim: &'a dyn Fn(&str) -> bool,
    /// Who may be restarted along with it, because it depends on the victim.
    dependent: &'a dyn Fn(&str) -> bool,
    /// Whose nodes begin anew, because the actors are made anew rather than restarted.
    anew: &'a dyn Fn(&str) -> bool,
    poison: u64,
    /// Threads that take webhooks.
    workers: usize,
}

impl Default for Panic<'_> {
    fn default() -> Self {
        Self {
            world: "",
            fail_point: "",
            after: 0,
            victim: &|_| false,
            dependent: &|_| false,
            anew: &|_| false,
            poison: 0,
            workers: 1,
        }
    }
}

impl Panic<'_> {
    async fn shown(self) {
        let world = World::new(&shared_stack().await, self.world).await;
        let world = Arc::new(world.set("HOOKMILL_INGEST__WORKERS", &self.workers.to_string()));
        let name = self.fail_point.replace("TOPIC", &world.orders());
        let armed = format!("{name}={}*off->1*panic->off", self.after);
        let instance = world.start_with("only", &[("FAILPOINTS", &armed)]).await;
        let args = SendArgs {
            count: 300,
            rate: 400,
            poison: self.poison,
            ..SendArgs::default()
        };
        let sending = world.send_behind(vec![instance.url.clone()], args);
        let (mut seen, said) = (Seen::default(), format!("failpoint {name} panic"));
        until(&format!("{name} panicked, and all sent"), SOON, async || {
            seen.look(&instance, self.anew).await;
            sending.is_finished()
                && seen
                    .actors
                    .iter()
                    .any(|(path, node)| (self.victim)(path) && node["restarts"] == 1)
        })
        .await;
        let (summary, acked) = sending.finish().await;
        assert_eq!(
            (summary.acked, summary.refused, summary.given_up),
            (1500, 0, 0),
            "{summary:?}"
        );
        world.landed(SOON).await;
        world.reckon(&acked).await;
        assert_eq!(
            world.sum("SELECT count(*) FROM dead_letters").await.unsigned_abs(),
            self.poison,
            "dead letters"
        );

        until("all run again", SOON, async || {
            seen.look(&instance, self.anew).await;
            seen.actors.values().all(|node| node["state"] == "running") && instance.running_partitions().await == 36
        })
        .await;
        let producers = seen.actors.keys().filter(|path| path.starts_with("ingest/producers/"));
        assert_eq!(producers.count(), self.workers, "one for each, and none of former ones");
        let (victims, others): (Vec<_>, Vec<_>) =
            seen.restarted().into_iter().partition(|(path, _)| (self.victim)(path));
        let [(victim, 1)] = victims[..] else {
            panic!("one restart of one actor: {victims:?}")
        };
        let strangers: Vec<_> = others.into_iter().filter(|(path, _)| !(self.dependent)(path)).collect();
        assert!(
            strangers.is_empty(),
            "these have nothing to do with {victim}: {strangers:?}"
        );
        let error = seen.actors[victim]["last_error"]["message"].to_string();
        assert!(error.contains(&said), "{victim}: {error}");

        let log = instance.log();
        let lines = |what: &str| {
            log.lines()
                .filter(|line| line.contains(&said) && line.contains(what))
                .count()
        };
        assert_eq!(lines("place="), 1, "the panic with its place");
        assert_eq!(lines("will be restarted"), 1, "and what is done about it");
        instance.stop().await;
    }
}

#[test]
fn the_producer() {
    light(
        Panic {
            world: "panic_producer",
            fail_point: "producer",
            after: 500,
            victim: &|path| path.starts_with("ingest/producers/producer."),
            ..Panic::default()
        }
        .shown(),
    );
}

/// Those who use it do not notice but for the records that were under way.
#[test]
fn the_producers_client() {
    light(
        Panic {
            world: "panic_client",
            fail_point: "producer_client",
            after: 2,
            victim: &|path| path == "producer",
            ..Panic::default()
        }
        .shown(),
    );
}

/// Its partitions claim again if they had a batch with it.
#[test]
fn a_shard_writer() {
    light(
        Panic {
            world: "panic_writer",
            fail_point: "shard_writer",
            after: 150,
            victim: &|path| path.starts_with("shard_writer."),
            dependent: &|path| path.contains("/partition."),
            ..Panic::default()
        }
        .shown(),
    );
}

#[test]
fn the_dead_letter_collector() {
    light(
        Panic {
            world: "panic_burial",
            fail_point: "dead_letters",
            after: 2,
            victim: &|path| path == "dead_letters",
            poison: 6,
            ..Panic::default()
        }
        .shown(),
    );
}

#[test]
fn a_partition_consumer_that_claims() {
    light(
        Panic {
            world: "panic_claim",
            fail_point: "partition_consumer",
            after: 5,
            victim: &|path| path.contains("/partition."),
            ..Panic::default()
        }
        .shown(),
    );
}

#[test]
fn a_partition_consumer_that_reads() {
    light(
        Panic {
            world: "panic_read",
            fail_point: "partition_consumer::read",
            after: 500,
            victim: &|path| path.contains("/partition."),
            ..Panic::default()
        }
        .shown(),
    );
}

/// Whatever its topic, the other three topics do not notice; its partitions are assigned anew.
#[test]
fn a_group_member() {
    light(
        Panic {
            world: "panic_member",
            fail_point: "consumer_group",
            after: 20,
            victim: &|path| path.ends_with("/consumer_group"),
            anew: &|path| path.contains("/partition."),
            ..Panic::default()
        }
        .shown(),
    );
}

/// Rest for one: the group member stands behind it in the topic's list and is restarted too.
#[test]
fn a_supervisor_of_partitions() {
    light(
        Panic {
            world: "panic_supervisor",
            fail_point: "supervisor::hookmill/consumers/TOPIC/partitions",
            after: 5,
            victim: &|path| path == "consumers/panic_supervisor.orders/partitions",
            dependent: &|path| path == "consumers/panic_supervisor.orders/consumer_group",
            anew: &|path| path.starts_with("consumers/panic_supervisor.orders/partitions/"),
            ..Panic::default()
        }
        .shown(),
    );
}

/// The server starts anew after it; of the producers that were there nothing is left in `/stats`.
#[test]
fn the_supervisor_of_producers() {
    light(
        Panic {
            world: "panic_producers",
            fail_point: "supervisor::hookmill/ingest/producers",
            workers: 2,
            after: 1,
            victim: &|path| path == "ingest/producers",
            dependent: &|path| path == "ingest/server",
            anew: &|path| path.starts_with("ingest/producers/"),
            ..Panic::default()
        }
        .shown(),
    );
}

#[test]
fn the_keeper_of_event_partitions() {
    light(
        Panic {
            world: "panic_keeper",
            fail_point: "partition_keeper",
            victim: &|path| path == "partition_keeper",
            ..Panic::default()
        }
        .shown(),
    );
}

#[test]
fn the_lag_watcher() {
    light(
        Panic {
            world: "panic_watcher",
            fail_point: "lag_watcher",
            after: 1,
            victim: &|path| path == "lag_watcher",
            ..Panic::default()
        }
        .shown(),
    );
}

#[test]
fn the_server_of_webhooks() {
    light(
        Panic {
            world: "panic_ingest",
            fail_point: "http_server::ingest",
            after: 3,
            victim: &|path| path == "ingest/server",
            // They end with the server's threads.
            anew: &|path| path.starts_with("ingest/producers/"),
            ..Panic::default()
        }
        .shown(),
    );
}

#[test]
fn the_server_of_operators() {
    light(
        Panic {
            world: "panic_admin",
            fail_point: "http_server::admin",
            after: 3,
            victim: &|path| path == "admin",
            ..Panic::default()
        }
        .shown(),
    );
}

/// It ends with exit code 70 and one line that says who, why and how often; nothing stays listening.
async fn gives_up(instance: &Instance, who: &str, why: &str, patience: Duration) {
    let status = instance.process.wait(patience).await;
    let status = status.unwrap_or_else(|| panic!("it goes on: {}", instance.process.obituary()));
    assert_eq!(status.code(), Some(GAVE_UP), "{}", instance.process.obituary());
    let log = instance.log();
    let last: Vec<&str> = log.lines().filter(|line| line.contains("the actors gave up")).collect();
    let [line] = last[..] else { panic!("one line: {last:?}") };
    for said in ["ERROR", who, why, "after 3 restarts within 60 s"] {
        assert!(line.contains(said), "{said:?} is missing: {line}");
    }
    assert!(
        !log.contains("did not stop in time"),
        "nobody waits for what has ended: {log}"
    );
    for url in [&instance.url, &instance.admin] {
        let error = instance.client.get(url).send().await.expect_err("nobody is there");
        assert!(error.is_connect(), "{error:?}");
    }
}

/// Webhooks that the failing instance cannot take are taken by the other one, and none is lost.
#[test]
fn an_actor_at_the_root_that_keeps_failing() {
    light(async {
        let world = World::new(&shared_stack().await, "gives_up").await;
        let world = Arc::new(world.set("HOOKMILL_SUPERVISION__MAX_RESTARTS", "3"));
        let failing = world
            .start_with("failing", &[("FAILPOINTS", "producer_client=1*off->panic")])
            .await;
        let sound = world.start("sound").await;
        let args = SendArgs {
            count: 300,
            rate: 400,
            ..SendArgs::default()
        };
        let sending = world.send_behind(vec![failing.url.clone(), sound.url.clone()], args);
        let why = "panicked: failpoint producer_client panic";
        gives_up(&failing, "hookmill/producer", why, Duration::from_secs(30)).await;
        let (summary, acked) = sending.finish().await;
        assert_eq!(
            (summary.acked, summary.refused, summary.given_up),
            (1500, 0, 0),
            "{summary:?}"
        );
        world.landed(SOON).await;
        world.reckon(&acked).await;
        world.nothing_buried().await;
        sound.stop().await;
    });
}

/// Its supervisor is restarted once, and the server with it; then the process ends. The other instance takes what it could not.
#[test]
fn a_producer_that_keeps_failing() {
    light(async {
        let world = World::new(&shared_stack().await, "mute").await;
        let world = Arc::new(world.set("HOOKMILL_SUPERVISION__MAX_RESTARTS", "3"));
        let failing = world.start_with("failing", &[("FAILPOINTS", "producer=panic")]).await;
        let sound = world.start("sound").await;
        let args = SendArgs {
            count: 300,
            rate: 200,
            ..SendArgs::default()
        };
        let sending = world.send_behind(vec![failing.url.clone(), sound.url.clone()], args);
        let (who, why) = (
            "hookmill/ingest/producers/producer.",
            "panicked: failpoint producer panic",
        );
        gives_up(&failing, who, why, Duration::from_secs(60)).await;
        let (summary, acked) = sending.finish().await;
        assert_eq!((summary.acked, summary.refused), (1500, 0), "{summary:?}");
        world.landed(SOON).await;
        world.reckon(&acked).await;
        sound.stop().await;
    });
}

/// The failure passes through every supervisor on the way up.
#[test]
fn an_actor_deep_in_the_tree_that_keeps_failing() {
    light(async {
        let world = World::new(&shared_stack().await, "escalates").await;
        let world = world.set("HOOKMILL_SUPERVISION__MAX_RESTARTS", "3");
        let instance = world.spawn("failing", &[("FAILPOINTS", "partition_consumer::read=panic")]);
        let (who, why) = (
            "/partitions/partition.",
            "panicked: failpoint partition_consumer::read panic",
        );
        gives_up(&instance, who, why, Duration::from_secs(45)).await;
    });
}
