//! Everything that runs in a campaign: brokers, shards, instances, and the wires between them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dev::clock::{Clock, Library};
use dev::disk::Disk;
use dev::proxy::Proxy;
use dev::stack::{Options, Stack};
use futures_util::future::try_join_all;

use crate::check::audit;
use crate::deployment::{Deployment, Product};
use crate::instance::Instance;
use crate::kafka;
use crate::plan::{Parts, Wire};

/// What runs.
pub struct World {
    /// Brokers and shards.
    pub stack: Stack,
    /// The product, for deployments beside the main one.
    pub product: Product,
    /// What providers send to.
    pub deployment: Deployment,
    /// Its instances.
    pub instances: Vec<Arc<Instance>>,
    /// When it all began.
    pub started: Instant,
    /// Numbers deployments beside the main one, and instances of a storm.
    pub numbers: AtomicUsize,
    /// Since the start, in ms: when a clock was wrong. Signatures have a time in them, and may be refused then.
    pub clocks_wrong: Mutex<Vec<(u64, u64)>>,
    said: Mutex<Vec<String>>,
    without_effect: AtomicUsize,
    closing: AtomicBool,
}

/// How large it is.
#[derive(Clone, Debug)]
pub struct Size {
    /// Instances, brokers and shards.
    pub parts: Parts,
    /// Partitions of orders and disputes.
    pub partitions: (i32, i32),
    /// Webhooks, for the size of the shards' disks.
    pub events: u64,
}

impl World {
    /// Starts everything below `dir` and waits until all is ready.
    pub async fn start(size: &Size, dir: &Path, binary: PathBuf, config: PathBuf) -> Result<Arc<Self>> {
        let started = Instant::now();
        let logs = dir.join("logs");
        std::fs::create_dir_all(&logs)?;
        let options = Options {
            brokers: size.parts.brokers,
            shards: size.parts.shards,
            dir: Some(dir.to_owned()),
            ways: size.parts.instances,
            between_brokers: size.parts.brokers > 1,
            // A webhook takes about 3 kB in a shard's tables; a quarter of a GB is its write-ahead log.
            shard_space: Disk::is_possible().then(|| (768 << 20) + size.events * 5_000),
            ..Options::default()
        };
        let stack = Stack::start(options)
            .await
            .context("brokers and shards did not start")?;
        let product = Product { binary, config, logs };
        let deployment = Deployment::new(&product, &stack, "chaos", size.partitions).await?;
        deployment.run(&stack, "topics", &["topics", "create"]).await?;
        deployment.run(&stack, "migrate", &["migrate"]).await?;
        for shard in stack.shards() {
            audit::install(shard, &deployment.name).await?;
        }
        let library = Library::compile(dir)?;
        let instances = try_join_all((0..size.parts.instances).map(|i| {
            let (brokers, urls) = (
                stack.proxied_brokers_of(i),
                stack.proxied_shard_urls_of(i, &deployment.name),
            );
            let program = deployment.program(&i.to_string(), &["serve"], &brokers, &urls);
            let clock = Clock::new(&library, dir, &i.to_string());
            async move { Instance::start(i, program, Some(clock?)).await.map(Arc::new) }
        }))
        .await?;
        let world = Self {
            stack,
            product,
            deployment,
            instances,
            started,
            numbers: AtomicUsize::new(0),
            clocks_wrong: Mutex::default(),
            said: Mutex::default(),
            without_effect: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        };
        for instance in &world.instances {
            instance.ready(Duration::from_secs(90)).await?;
        }
        let world = Arc::new(world);
        tokio::spawn(keep(world.clone()));
        Ok(world)
    }

    /// ms since the start.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A number that was not given out before.
    pub fn number(&self) -> usize {
        self.numbers.fetch_add(1, Relaxed)
    }

    /// Notes whether a fault that needs something to harm, such as a lock that must be had, found it.
    pub fn count_effect(&self, harmed: bool) {
        if !harmed {
            self.without_effect.fetch_add(1, Relaxed);
        }
    }

    /// Faults that found nothing to harm.
    pub fn without_effect(&self) -> usize {
        self.without_effect.load(Relaxed)
    }

    /// Keeps something for the report that is wrong, and that no check afterwards would see.
    pub fn complain(&self, what: String) {
        eprintln!("!! {what}");
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// What was complained about.
    pub fn complaints(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The proxy in a wire.
    pub fn proxy(&self, wire: Wire) -> Result<&Proxy> {
        match wire {
            Wire::Providers(i) => Ok(&self.instances[i].door),
            Wire::ToBroker(i, broker) => Ok(self.stack.kafka(broker).proxy_of(i)),
            Wire::ToShard(i, shard) => Ok(self.stack.shard(shard).proxy_of(i)),
            Wire::Brokers(broker) => self
                .stack
                .kafka(broker)
                .proxy_between()
                .context("there is no proxy between brokers"),
        }
    }

    /// How far each partition is, and under which epoch: by topic and number, over all shards.
    pub async fn offsets(&self, deployment: &Deployment) -> Result<HashMap<(String, i32), Progress>> {
        let mut all = HashMap::new();
        for (index, shard) in self.stack.shards().iter().enumerate() {
            let sql = "SELECT topic, partition, next_offset, epoch, coalesce(owner, '') FROM consumer_offsets";
            let answer = async {
                let client = shard.connect(&deployment.name).await?;
                anyhow::Ok(client.query(sql, &[]).await?)
            };
            let rows = tokio::time::timeout(Duration::from_secs(3), answer).await??;
            for row in rows {
                let progress = Progress {
                    shard: index,
                    next_offset: row.try_get(2)?,
                    epoch: row.try_get(3)?,
                    owner: row.try_get(4)?,
                };
                if all.insert((row.try_get(0)?, row.try_get(1)?), progress).is_some() {
                    self.complain(format!("a partition has offsets on two shards, one of them {index}"));
                }
            }
        }
        Ok(all)
    }

    /// Waits until everything that is on Kafka when it is called is in the tables.
    pub async fn landed(&self, deployment: &Deployment, deadline: Instant) -> Result<()> {
        let topics = deployment.topics();
        let marks = loop {
            match kafka::watermarks(&self.stack.brokers(), &topics).await {
                Ok(marks) => break marks,
                Err(error) if Instant::now() > deadline => return Err(error.context("Kafka does not answer")),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        loop {
            let behind = match self.offsets(deployment).await {
                Err(error) => Some(format!("{error:#}")),
                Ok(offsets) => topics.iter().zip(&marks).find_map(|(topic, marks)| {
                    (0..).zip(marks).find_map(|(p, (_, high))| {
                        let next = offsets.get(&(topic.name.clone(), p)).map_or(0, |o| o.next_offset);
                        (next < *high).then(|| format!("{} partition {p} is at {next} of {high}", topic.name))
                    })
                }),
            };
            let Some(behind) = behind else { return Ok(()) };
            if Instant::now() > deadline {
                anyhow::bail!(behind);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// From now on nobody is started again.
    pub fn close(&self) {
        self.closing.store(true, Relaxed);
    }
}

/// A row of `consumer_offsets`.
#[derive(Clone, Debug)]
pub struct Progress {
    /// On which shard.
    pub shard: usize,
    /// First offset that is not in the tables.
    pub next_offset: i64,
    /// How often it was claimed.
    pub epoch: i64,
    /// Who claimed it last.
    pub owner: String,
}

async fn keep(world: Arc<World>) {
    while !world.closing.load(Relaxed) {
        for instance in &world.instances {
            if let Err(error) = instance.keep() {
                world.complain(format!("instance {} cannot be started: {error:#}", instance.index));
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
