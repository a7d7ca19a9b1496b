//! The supervision tree: one list, the only one.
//!
//! ```text
//! hookmill (one-for-one)
//! ├─ admin                     HttpServer: first in, last out
//! ├─ shard_writer.<shard>.<lane> …
//! ├─ producer                  ProducerClient: all records go through it
//! ├─ dead_letters
//! ├─ partition_keeper
//! ├─ lag_watcher
//! ├─ consumers (independent: all leave their groups at the same time)
//! │   └─ <topic> (rest-for-one) …  orders, disputes, and their dead-letter topics
//! │       ├─ partitions (independent)
//! │       │   └─ partition.<n> …   PartitionConsumer, one for each assigned partition
//! │       └─ consumer_group
//! └─ ingest (rest-for-one): last in, first out
//!     ├─ producers
//!     │   └─ producer.<n> …       one on the thread of each worker of the server
//!     └─ server                HttpServer
//! ```
//!
//! Children start in this order and stop in reverse: webhooks stop being taken first, then partitions are handed over,
//! then the writers go. A process that only takes webhooks has no writers, and nothing that needs them.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use actix_web::web;
use chrono::TimeDelta;
use hookmill_schema::shard::Pool;
use hookmill_schema::{ConnectSettings, Table};
use secrecy::SecretString;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::actor_ref::ActorRef;
use crate::batch::BatchLimits;
use crate::consumer_group::{ConsumerGroup, ConsumerGroupSettings};
use crate::dead_letters::DeadLetters;
use crate::health::Health;
use crate::http::{AdminSettings, AdminState, HttpServer, IngestSettings, IngestState, IngestTopics, Site};
use crate::kafka::{KafkaSettings, Probe, TopicSettings, topics};
use crate::lag_watcher::{LagWatcher, LagWatcherSettings};
use crate::metrics::Metrics;
use crate::partition_consumer::{Allowance, LaneRef, OnGap, TopicContext, TopicLane};
use crate::partition_keeper::{PartitionKeeper, PartitionKeeperSettings};
use crate::partition_table::PartitionTable;
use crate::producer::Producers;
use crate::producer::client::{ClientRef, ProducerClient, ProducerSettings};
use crate::shard_writer::{ShardWriter, ShardWriterSettings};
use crate::sources::Sources;
use crate::stats::Registry;
use crate::supervision::{Backoff, ChildSpec, Exit, Intensity, Life, Restart, Strategy, Supervisor};

/// `[services]`: what this process does, so that each can be scaled by itself.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Services {
    /// Take webhooks.
    pub ingest: bool,
    /// Write order events.
    pub orders: bool,
    /// Write dispute events.
    pub disputes: bool,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            ingest: true,
            orders: true,
            disputes: true,
        }
    }
}

/// `[writers]`: how batches are made and written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WriterSettings {
    /// Most rows of one partition in a batch.
    pub batch_rows: usize,
    /// Bytes of records after which a partition's batch is full.
    pub batch_bytes: usize,
    /// Rows after which no further batch is merged into a statement.
    pub statement_rows: usize,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            batch_rows: 1800,
            batch_bytes: 2 << 20,
            statement_rows: 4000,
        }
    }
}

/// `[supervision]`: when restarting does not help any more.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisionSettings {
    /// Restarts of one actor within `within` that are allowed before its supervisor gives up, at the end the process.
    pub max_restarts: usize,
    /// The sliding window.
    #[serde(with = "humantime_serde")]
    pub within: Duration,
}

impl Default for SupervisionSettings {
    fn default() -> Self {
        Self {
            max_restarts: 10,
            within: Duration::from_secs(60),
        }
    }
}

/// All that a process needs, resolved and checked.
pub struct PipelineSettings {
    /// Who this process is.
    pub instance: String,
    /// What it does.
    pub services: Services,
    /// Webhooks.
    pub ingest: IngestSettings,
    /// The operators' listener.
    pub admin: AdminSettings,
    /// Asked for there; `None` on loopback.
    pub admin_token: Option<SecretString>,
    /// Kafka.
    pub kafka: KafkaSettings,
    /// The topic of order events.
    pub orders: TopicSettings,
    /// The topic of dispute events.
    pub disputes: TopicSettings,
    /// The topic of events that are verified and not understood.
    pub parked: TopicSettings,
    /// What to do about records that Kafka threw away too early.
    pub on_gap: OnGap,
    /// The shards' URLs, in their order; none where nothing is written.
    pub shard_urls: Vec<Arc<str>>,
    /// Writers for each shard.
    pub lanes: NonZero<usize>,
    /// Time-outs of the shards' connections.
    pub connect: ConnectSettings,
    /// Batches.
    pub writers: WriterSettings,
    /// Restarts.
    pub supervision: SupervisionSettings,
    /// Event partitions ahead of time.
    pub ahead_months: u32,
    /// How far back event partitions are made on demand.
    pub window_past: TimeDelta,
    /// How far ahead event partitions are made on demand.
    pub window_future: TimeDelta,
    /// How long stopping may take in all.
    pub shutdown_timeout: Duration,
    /// Where webhooks come from.
    pub sources: Sources,
}

/// The running tree.
pub struct Pipeline {
    stop: CancellationToken,
    ended: oneshot::Receiver<Exit>,
    health: Health,
}

/// Addresses and facts that the actors share.
struct Shared {
    settings: PipelineSettings,
    actors: Registry,
    partitions: PartitionTable,
    metrics: Arc<Metrics>,
    health: Health,
    probe: Probe,
    pools: Arc<Vec<Pool>>,
    client: ClientRef,
    dead_letters: ActorRef<DeadLetters>,
    lanes: Vec<Vec<LaneRef>>,
}

/// The root's name, the first part of every path in `/stats`.
const ROOT: &str = "hookmill";
/// The supervisor of all that takes webhooks.
const INGEST: &str = "ingest";
/// The supervisor of all topics.
const CONSUMERS: &str = "consumers";
/// Between restarts of one actor.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(5),
};
/// Batches of a partition with its writer: one being written, and one waiting where they are small.
const BATCHES_IN_FLIGHT: usize = 2;
/// A partition that does not move is claimed again after this.
const RETRY_PARTITION: Duration = Duration::from_secs(10);

impl Pipeline {
    /// Starts the whole tree on the current actix system.
    pub fn start(settings: PipelineSettings, probe: Probe, pools: Vec<Pool>) -> Self {
        let (actors, partitions, health) = (Registry::default(), PartitionTable::default(), Health::default());
        let metrics = Arc::new(Metrics::new(actors.clone(), partitions.clone(), settings.sources.all()));
        let shards = settings.shard_urls.len();
        let lane = || LaneRef {
            writer: ActorRef::default(),
            thread: Arbiter::new().handle(),
        };
        let lanes = (0..shards)
            .map(|_| (0..settings.lanes.get()).map(|_| lane()).collect())
            .collect();
        let shared = Shared {
            settings,
            actors: actors.clone(),
            partitions,
            metrics,
            health: health.clone(),
            probe,
            pools: Arc::new(pools),
            client: ClientRef::default(),
            dead_letters: ActorRef::default(),
            lanes,
        };
        let children = shared.children();
        let root = supervisor(
            ROOT,
            ROOT,
            &actors,
            Strategy::OneForOne,
            shared.intensity(),
            ActorRef::default(),
            move || children.clone(),
        );
        let stop = CancellationToken::new();
        let ended = root.run(stop.clone(), actors.node(ROOT, "Supervisor"));
        Self { stop, ended, health }
    }

    /// From now on `/health/ready` says no.
    pub fn drain(&self) {
        self.health.drain();
    }

    /// Asks the tree to stop; [`ended`](Self::ended) resolves when it has.
    pub fn stop(&self) {
        self.drain();
        self.stop.cancel();
    }

    /// Resolves when the tree has ended: by [`stop`](Self::stop), or because a child kept failing.
    pub async fn ended(&mut self) -> Exit {
        (&mut self.ended)
            .await
            .unwrap_or_else(|_| Exit::Failed("the root supervisor is gone".to_owned()))
    }
}

impl Shared {
    fn intensity(&self) -> Intensity {
        let SupervisionSettings { max_restarts, within } = self.settings.supervision;
        Intensity { max_restarts, within }
    }

    /// The list.
    fn children(&self) -> Vec<ChildSpec> {
        let services = self.settings.services;
        let writes = services.orders || services.disputes;
        let mut children = vec![self.admin()];
        children.extend(self.shard_writers());
        children.push(self.producer());
        if writes {
            children.extend([self.dead_letters(), self.partition_keeper()]);
        }
        children.push(self.lag_watcher());
        if writes {
            children.push(self.consumers());
        }
        if services.ingest {
            children.push(self.ingest());
        }
        children
    }

    fn admin(&self) -> ChildSpec {
        let listen = self.settings.admin.listener();
        let state = web::Data::new(AdminState {
            instance: self.settings.instance.clone(),
            started: Instant::now(),
            actors: self.actors.clone(),
            partitions: self.partitions.clone(),
            sources: self.settings.sources.all(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            token: self.settings.admin_token.clone(),
        });
        let make = move |life: Life| HttpServer::new(life, listen.clone(), Site::Admin(state.clone()));
        ChildSpec::actor("admin", Arbiter::current(), ActorRef::default(), 1, make).shutdown(Duration::from_secs(2))
    }

    /// Webhooks: should the supervisor of the producers give up, the server starts anew after it. That is tried once, as
    /// with [`topic`](Self::topic).
    fn ingest(&self) -> ChildSpec {
        let settings = &self.settings;
        let (ingest, sources) = (settings.ingest.clone(), settings.sources.clone());
        let topics = IngestTopics {
            orders: settings.orders.name.as_str().into(),
            disputes: settings.disputes.name.as_str().into(),
            parked: settings.parked.name.as_str().into(),
        };
        let (client, metrics) = (self.client.clone(), self.metrics.clone());
        let (actors, intensity) = (self.actors.clone(), self.intensity());
        let listen = ingest.listener();
        let patience = listen.shutdown_timeout + Duration::from_secs(1);
        let children = move || {
            let supervisor_of_producers: ActorRef<Supervisor> = ActorRef::default();
            let producers = coming_and_going(
                "producers",
                &format!("{ROOT}/{INGEST}/producers"),
                &actors,
                intensity,
                supervisor_of_producers.clone(),
            );
            let state = Arc::new(IngestState::new(
                ingest.clone(),
                &sources,
                Producers::new(supervisor_of_producers, client.clone()),
                topics.clone(),
                &metrics,
            ));
            let listen = listen.clone();
            let make = move |life: Life| HttpServer::new(life, listen.clone(), Site::Ingest(state.clone()));
            let server = ChildSpec::actor("server", Arbiter::current(), ActorRef::default(), 1, make);
            vec![producers, server.shutdown(patience)]
        };
        supervisor(
            INGEST,
            &format!("{ROOT}/{INGEST}"),
            &self.actors,
            Strategy::RestForOne,
            self.intensity(),
            ActorRef::default(),
            children,
        )
        .restart(Restart::AfterPanic)
        .shutdown(patience + Duration::from_secs(1))
    }

    fn shard_writers(&self) -> Vec<ChildSpec> {
        let settings = &self.settings;
        let partitions = usize::try_from(settings.orders.partitions.max(settings.disputes.partitions)).unwrap_or(0);
        let mut specs = Vec::new();
        for (shard, lanes) in self.lanes.iter().enumerate() {
            for (
                lane,
                LaneRef {
                    writer: address,
                    thread,
                },
            ) in lanes.iter().enumerate()
            {
                let writer = ShardWriterSettings {
                    shard,
                    lane,
                    url: settings.shard_urls[shard].clone(),
                    connect: settings.connect.clone(),
                    max_rows: settings.writers.statement_rows,
                    backoff: BACKOFF,
                    owner: settings.instance.as_str().into(),
                    window_past: settings.window_past,
                    window_future: settings.window_future,
                };
                // Four topics, and of each partition its batches and a claim.
                let mailbox = partitions * 4 * (BATCHES_IN_FLIGHT + 1);
                let make = move |life: Life| ShardWriter::new(life, writer.clone());
                specs.push(ChildSpec::actor(
                    format!("shard_writer.{shard}.{lane}"),
                    thread.clone(),
                    address.clone(),
                    mailbox,
                    make,
                ));
            }
        }
        specs
    }

    fn producer(&self) -> ChildSpec {
        let deadline = self.settings.ingest.deadline;
        let settings = ProducerSettings {
            kafka: self.settings.kafka.clone(),
            delivery_timeout: self.settings.ingest.delivery_timeout(),
            record_limit: topics::producer_limit(self.settings.ingest.body_limit),
            flush_timeout: deadline,
        };
        let client = self.client.clone();
        let make = move |life: Life| ProducerClient::new(life, settings.clone(), client.clone());
        // To drop a client takes its time, and blocks.
        ChildSpec::actor("producer", Arbiter::new().handle(), ActorRef::default(), 1, make)
            .shutdown(deadline + Duration::from_secs(1))
    }

    fn dead_letters(&self) -> ChildSpec {
        let (client, partitions) = (
            self.client.clone(),
            self.settings.orders.partitions + self.settings.disputes.partitions,
        );
        let make = move |life: Life| DeadLetters::new(life, client.clone());
        ChildSpec::actor(
            "dead_letters",
            Arbiter::current(),
            self.dead_letters.clone(),
            usize::try_from(partitions).unwrap_or(1),
            make,
        )
    }

    fn partition_keeper(&self) -> ChildSpec {
        let settings = PartitionKeeperSettings {
            ahead_months: self.settings.ahead_months,
            every: Duration::from_secs(3600),
            retry_after: Duration::from_secs(30),
        };
        let pools = self.pools.clone();
        let make = move |life: Life| PartitionKeeper::new(life, settings, pools.to_vec());
        ChildSpec::actor("partition_keeper", Arbiter::current(), ActorRef::default(), 1, make)
    }

    fn lag_watcher(&self) -> ChildSpec {
        let services = self.settings.services;
        let read = [
            (services.orders, &self.settings.orders),
            (services.disputes, &self.settings.disputes),
        ];
        let topics = read.into_iter().filter(|(wanted, _)| *wanted).flat_map(|(_, topic)| {
            let buried = topic.dead_letters();
            [topic.clone(), buried]
        });
        let settings = LagWatcherSettings {
            asked_about: self.settings.orders.name.clone(),
            topics: topics.collect(),
            every: Duration::from_secs(2),
        };
        let (pools, probe, table, health) = (
            self.pools.clone(),
            self.probe.clone(),
            self.partitions.clone(),
            self.health.clone(),
        );
        let make = move |life: Life| {
            LagWatcher::new(
                life,
                settings.clone(),
                pools.clone(),
                probe.clone(),
                table.clone(),
                health.clone(),
            )
        };
        ChildSpec::actor("lag_watcher", Arbiter::current(), ActorRef::default(), 1, make)
    }

    /// The topics' subtrees. They leave their groups at the same time, while the writers still run.
    fn consumers(&self) -> ChildSpec {
        let services = self.settings.services;
        let mut topics = Vec::new();
        for (wanted, topic, table) in [
            (services.orders, &self.settings.orders, Table::Orders),
            (services.disputes, &self.settings.disputes, Table::Disputes),
        ] {
            if wanted {
                let buried = topic.dead_letters();
                topics.push(self.topic(topic, table));
                topics.push(self.topic(&buried, Table::DeadLetters));
            }
        }
        supervisor(
            CONSUMERS,
            &format!("{ROOT}/{CONSUMERS}"),
            &self.actors,
            Strategy::Independent,
            self.intensity(),
            ActorRef::default(),
            move || topics.clone(),
        )
        .restart(Restart::AfterPanic)
    }

    /// A topic's subtree: should the supervisor of the partition consumers give up, the group member starts anew after
    /// it, with a fresh client. That is tried once; should it not help, the topic gives up, and so do all above it.
    fn topic(&self, topic: &TopicSettings, table: Table) -> ChildSpec {
        let settings = &self.settings;
        let WriterSettings {
            batch_rows,
            batch_bytes,
            statement_rows,
        } = settings.writers;
        let lane = |lane: &LaneRef| TopicLane {
            lane: lane.clone(),
            allowance: Allowance::new(statement_rows, batch_rows),
        };
        let lanes = self
            .lanes
            .iter()
            .map(|lanes| lanes.iter().map(lane).collect())
            .collect();
        let context = Arc::new(TopicContext {
            topic: topic.name.as_str().into(),
            table,
            limits: BatchLimits {
                rows: batch_rows,
                bytes: batch_bytes,
                in_flight: BATCHES_IN_FLIGHT,
            },
            on_gap: settings.on_gap,
            shards: settings.shard_urls.len(),
            lanes,
            dead_letters: self.dead_letters.clone(),
            probe: self.probe.clone(),
        });
        let group = ConsumerGroupSettings {
            kafka: settings.kafka.clone(),
            retry_after: RETRY_PARTITION,
            commit_every: Duration::from_secs(5),
        };
        let table = self.partitions.clone();
        let path = format!("{ROOT}/{CONSUMERS}/{}", topic.name);
        let (actors, intensity) = (self.actors.clone(), self.intensity());
        let children = move || {
            let partitions: ActorRef<Supervisor> = ActorRef::default();
            let below = coming_and_going(
                "partitions",
                &format!("{path}/partitions"),
                &actors,
                intensity,
                partitions.clone(),
            );
            let (group, context, table) = (group.clone(), context.clone(), table.clone());
            let make = move |life: Life| {
                ConsumerGroup::new(life, group.clone(), context.clone(), partitions.clone(), table.clone())
            };
            // Leaving the group waits for its partition consumers and for the coordinator.
            let member = ChildSpec::actor("consumer_group", Arbiter::current(), ActorRef::default(), 1, make);
            vec![below, member.shutdown(Duration::from_secs(8))]
        };
        let path = format!("{ROOT}/{CONSUMERS}/{}", topic.name);
        supervisor(
            &topic.name,
            &path,
            &self.actors,
            Strategy::RestForOne,
            self.intensity(),
            ActorRef::default(),
            children,
        )
        .restart(Restart::AfterPanic)
    }
}

/// A supervisor whose children are started and stopped by messages. It is restarted once when it gave up: whoever below keeps
/// failing does so within one window, so it gives up again within two.
fn coming_and_going(
    name: &str,
    path: &str,
    registry: &Registry,
    intensity: Intensity,
    address: ActorRef<Supervisor>,
) -> ChildSpec {
    let once = Intensity {
        max_restarts: 1,
        within: intensity.within * 2,
    };
    supervisor(
        name,
        path,
        registry,
        Strategy::Independent,
        intensity,
        address,
        Vec::new,
    )
    .intensity(once)
}

/// A supervisor as somebody's child: `children` makes the list for each fresh instance.
fn supervisor(
    name: &str,
    path: &str,
    registry: &Registry,
    strategy: Strategy,
    intensity: Intensity,
    address: ActorRef<Supervisor>,
    children: impl Fn() -> Vec<ChildSpec> + Send + Sync + 'static,
) -> ChildSpec {
    let (path, registry) = (path.to_owned(), registry.clone());
    let make =
        move |life: Life| Supervisor::new(life, &path, registry.clone(), strategy, intensity, BACKOFF, children());
    // Room for a command for every partition of a large topic; patience for the children's own.
    ChildSpec::actor(name, Arbiter::current(), address, 1024, make).shutdown(Duration::from_secs(20))
}
