//! What the scenarios share: one stack for all that break no server, a world of its own (topics, databases, groups) for
//! each, instances of the product as processes, and the reckoning of what was acknowledged against what is in the tables.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use dev::process::{Process, Program};
use dev::send::{Acked, Secrets, SendArgs, Summary, send_all, sign_body};
use dev::stack::{Options, Stack, free_ports};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use tokio::sync::{OnceCell, RwLock, mpsc};

/// Servers and proxies outlive a single test, so all run on one runtime.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Scenarios that load the machine run alone; the others beside each other.
static LOAD: RwLock<()> = RwLock::const_new(());

/// Runs a scenario beside others.
pub fn light(scenario: impl Future<Output = ()>) {
    RUNTIME.block_on(async {
        let _turn = LOAD.read().await;
        scenario.await;
    });
}

/// Runs a scenario alone.
pub fn heavy(scenario: impl Future<Output = ()>) {
    RUNTIME.block_on(async {
        let _turn = LOAD.write().await;
        scenario.await;
    });
}

/// A folder for this run, beside what else the build makes. What former runs left is removed.
pub fn scratch() -> PathBuf {
    static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for entry in std::fs::read_dir(home).expect("cargo made it").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let alive = name
                .strip_prefix("e2e-")
                .is_none_or(|pid| Path::new("/proc").join(pid).exists());
            if !alive {
                // Another run may be at it too.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let dir = home.join(format!("e2e-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the target directory can be written");
        dir
    });
    SCRATCH.clone()
}

/// The stack that is shared by all who break no server. It ends with this process.
pub async fn shared_stack() -> Arc<Stack> {
    static STACK: OnceCell<Arc<Stack>> = OnceCell::const_new();
    STACK
        .get_or_init(|| async {
            let options = Options {
                brokers: 1,
                shards: 2,
                dir: Some(scratch().join("stack")),
                ..Options::default()
            };
            Arc::new(Stack::start(options).await.expect("the stack starts"))
        })
        .await
        .clone()
}

/// A stack to break.
pub async fn own_stack(name: &str, brokers: usize, shards: usize) -> Arc<Stack> {
    let options = Options {
        brokers,
        shards,
        dir: Some(scratch().join(name)),
        ..Options::default()
    };
    Arc::new(Stack::start(options).await.expect("the stack starts"))
}

/// The secrets of the shipped sources, in every world the same.
pub fn secrets() -> Secrets {
    [
        ("stripe", "whsec_test_stripe"),
        ("shopify", "shopify-secret"),
        ("square", "square-secret"),
        ("razorpay", "razorpay-secret"),
        ("standard", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
    ]
    .map(|(source, secret)| (source.to_owned(), secret.to_owned()))
    .to_vec()
}

/// Waits until `holds` is true.
pub async fn until(what: &str, patience: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds().await {
        assert!(
            Instant::now() < deadline,
            "after {} s still not: {what}",
            patience.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Topics, databases and consumer groups of one scenario.
#[derive(Clone)]
pub struct World {
    pub name: String,
    pub stack: Arc<Stack>,
    pub shard_urls: Vec<String>,
    pub brokers: String,
    pub partitions: (i32, i32),
    /// Variables that every instance gets.
    pub env: Vec<(String, String)>,
    /// The configuration of every instance; the shipped one unless another was given.
    pub config: PathBuf,
    logs: PathBuf,
}

impl World {
    /// A world with the shipped partition counts.
    pub async fn new(stack: &Arc<Stack>, name: &str) -> Self {
        Self::with_partitions(stack, name, (12, 6)).await
    }

    /// A world with other partition counts.
    pub async fn with_partitions(stack: &Arc<Stack>, name: &str, partitions: (i32, i32)) -> Self {
        let shard_urls = stack.create_databases(name).await.expect("databases");
        let logs = scratch().join("logs");
        std::fs::create_dir_all(&logs).expect("a folder for logs");
        Self {
            name: name.to_owned(),
            stack: stack.clone(),
            shard_urls,
            brokers: stack.brokers(),
            partitions,
            env: Vec::new(),
            config: Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml"),
            logs,
        }
    }

    /// From now on instances reach the servers by way of their proxies.
    pub fn through_proxies(mut self) -> Self {
        self.shard_urls = self.stack.proxied_shard_urls(&self.name);
        self.brokers = self.stack.proxied_brokers();
        self
    }

    /// Sets a variable for every instance.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives every instance the shipped configuration as `change` leaves it.
    pub fn configured(mut self, change: impl FnOnce(String) -> String) -> Self {
        let text = std::fs::read_to_string(&self.config).expect("the configuration");
        self.config = self.logs.join(format!("{}.toml", self.name));
        std::fs::write(&self.config, change(text)).expect("the configuration can be written");
        self
    }

    /// The same world with the configuration at `path`.
    pub fn with_config(&self, path: &Path) -> Self {
        Self {
            config: path.to_owned(),
            ..self.clone()
        }
    }

    /// Where logs go.
    pub fn log_dir(&self) -> &Path {
        &self.logs
    }

    pub fn orders(&self) -> String {
        format!("{}.orders", self.name)
    }

    pub fn disputes(&self) -> String {
        format!("{}.disputes", self.name)
    }

    pub fn parked(&self) -> String {
        format!("{}.parked", self.name)
    }

    /// The topics with their partition counts, dead-letter topics last.
    pub fn topics(&self) -> Vec<(String, i32)> {
        let (orders, disputes) = self.partitions;
        vec![
            (self.orders(), orders),
            (self.disputes(), disputes),
            (format!("{}.DLQ", self.orders()), orders),
            (format!("{}.DLQ", self.disputes()), disputes),
        ]
    }

    /// The program, with the shipped configuration and this world's variables.
    pub fn program(&self, name: &str, command: &[&str], env: &[(&str, &str)]) -> Program {
        let log = self.logs.join(format!("{}-{name}.log", self.name));
        let mut program = Program::new(name, env!("CARGO_BIN_EXE_hookmill"), log);
        program = program
            .args(command.iter().copied())
            .args(["-c".into(), self.config.clone().into_os_string()]);
        program = program
            .env("HOOKMILL_KAFKA__BROKERS", &self.brokers)
            .env("HOOKMILL_KAFKA__GROUP_PREFIX", &self.name)
            .env("HOOKMILL_TOPICS__ORDERS__NAME", self.orders())
            .env("HOOKMILL_TOPICS__ORDERS__PARTITIONS", self.partitions.0.to_string())
            .env("HOOKMILL_TOPICS__DISPUTES__NAME", self.disputes())
            .env("HOOKMILL_TOPICS__DISPUTES__PARTITIONS", self.partitions.1.to_string())
            .env("HOOKMILL_TOPICS__PARKED__NAME", self.parked())
            .env("HOOKMILL_TOPICS__PARKED__PARTITIONS", "1")
            .env("HOOKMILL_SHARD_URLS", self.shard_urls.join(","))
            .env("HOOKMILL_INGEST__WORKERS", "1");
        for (source, secret) in secrets() {
            program = program.env(format!("HOOKMILL_SECRET_{}", source.to_uppercase()), secret);
        }
        for (name, value) in &self.env {
            program = program.env(name, value);
        }
        for (name, value) in env {
            program = program.env(*name, *value);
        }
        program
    }

    /// Starts an instance and does not wait for it.
    pub fn spawn(&self, name: &str, env: &[(&str, &str)]) -> Instance {
        let port = free_ports(1).expect("a port")[0];
        self.spawn_listening(name, &format!("127.0.0.1:{port}"), env)
    }

    /// The same with the operators' listener at `admin`.
    pub fn spawn_listening(&self, name: &str, admin: &str, env: &[(&str, &str)]) -> Instance {
        let port = free_ports(1).expect("a port")[0];
        let ingest = format!("127.0.0.1:{port}");
        let program = self.program(name, &["serve"], env);
        let program = program
            .env("HOOKMILL_INGEST__LISTEN", &ingest)
            .env("HOOKMILL_ADMIN__LISTEN", admin);
        let process = Process::spawn(program).expect("the product's binary starts");
        Instance {
            process,
            url: format!("http://{ingest}"),
            admin: format!("http://{admin}"),
            client: reqwest::Client::new(),
        }
    }

    /// Starts an instance and waits until it is ready.
    pub async fn start(&self, name: &str) -> Instance {
        self.start_with(name, &[]).await
    }

    /// The same with more variables.
    pub async fn start_with(&self, name: &str, env: &[(&str, &str)]) -> Instance {
        let instance = self.spawn(name, env);
        instance.ready().await;
        instance
    }

    /// The same of an instance that only takes webhooks.
    pub async fn start_taking(&self, name: &str) -> Instance {
        let only = [
            ("HOOKMILL_SERVICES__ORDERS", "false"),
            ("HOOKMILL_SERVICES__DISPUTES", "false"),
        ];
        self.start_with(name, &only).await
    }

    /// Runs a command to its end: exit code, standard output and error together.
    pub async fn run(&self, name: &str, command: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        // Ports that are free unless `env` says otherwise: the usual ones may be anybody's.
        let ports = free_ports(2).expect("ports");
        let [ingest, admin] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
        let mut all = vec![
            ("HOOKMILL_INGEST__LISTEN", ingest.as_str()),
            ("HOOKMILL_ADMIN__LISTEN", admin.as_str()),
        ];
        all.extend_from_slice(env);
        let program = self.program(name, command, &all);
        // A log of a former run would be taken for this one's.
        let _ = std::fs::remove_file(&program.log);
        let process = Process::spawn(program).expect("the product's binary starts");
        let status = process
            .wait(Duration::from_secs(60))
            .await
            .unwrap_or_else(|| panic!("{}", process.obituary()));
        let said = std::fs::read_to_string(process.log()).expect("it logs");
        (status.code().unwrap_or(-1), said)
    }

    /// Sends webhooks to `instances` as a provider does; returns what came of it and what was acknowledged.
    pub async fn send(&self, instances: &[&Instance], args: SendArgs) -> (Summary, Vec<Acked>) {
        let url = instances.iter().map(|i| i.url.clone()).collect();
        let args = SendArgs {
            url,
            run_id: Some(format!("{}-{:04x}", self.name, rand_u16())),
            quiet: true,
            ..args
        };
        let (ledger, mut acks) = mpsc::unbounded_channel();
        let summary = send_all(&args, secrets(), ledger).await.expect("the sender runs");
        let mut acked = Vec::new();
        while let Ok(ack) = acks.try_recv() {
            acked.push(ack);
        }
        (summary, acked)
    }

    /// The same in the background; the count of acknowledgements so far can be watched.
    pub fn send_behind(self: &Arc<Self>, urls: Vec<String>, args: SendArgs) -> Sending {
        let args = SendArgs {
            url: urls,
            run_id: Some(format!("{}-{:04x}", self.name, rand_u16())),
            quiet: true,
            ..args
        };
        let (ledger, mut acks) = mpsc::unbounded_channel();
        let acked = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (seen, summary) = (
            acked.clone(),
            tokio::spawn(async move { send_all(&args, secrets(), ledger).await.expect("the sender runs") }),
        );
        let task = tokio::spawn(async move {
            while let Some(ack) = acks.recv().await {
                seen.lock().expect("not poisoned").push(ack);
            }
            summary.await.expect("the sender ends")
        });
        Sending { acked, task }
    }

    /// Low and high watermark of every partition of a topic.
    pub async fn watermarks(&self, topic: &str, partitions: i32) -> Vec<(i64, i64)> {
        let (brokers, topic) = (self.stack.brokers(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .create()
                .expect("a consumer");
            let ask = |p| {
                consumer
                    .fetch_watermarks(&topic, p, Duration::from_secs(20))
                    .expect("watermarks")
            };
            (0..partitions).map(ask).collect()
        })
        .await
        .expect("no panic")
    }

    /// Every record of a topic.
    pub async fn records(&self, topic: &str, partitions: i32) -> Vec<OwnedMessage> {
        let ends: Vec<i64> = self
            .watermarks(topic, partitions)
            .await
            .into_iter()
            .map(|(_, high)| high)
            .collect();
        let (brokers, topic) = (self.stack.brokers(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .set("group.id", "nobody")
                .set("enable.auto.commit", "false")
                .create()
                .expect("a consumer");
            let mut all = TopicPartitionList::new();
            for p in 0..partitions {
                all.add_partition_offset(&topic, p, Offset::Beginning)
                    .expect("an offset");
            }
            consumer.assign(&all).expect("assigned");
            let wanted: i64 = ends.iter().sum();
            let mut records = Vec::new();
            while (records.len() as i64) < wanted {
                let record = consumer
                    .poll(Duration::from_secs(20))
                    .expect("records in time")
                    .expect("no error");
                records.push(record.detach());
            }
            records
        })
        .await
        .expect("no panic")
    }

    /// Deletes a topic, and waits until the broker has forgotten it.
    pub async fn delete_topic(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", self.stack.brokers())
            .create()
            .expect("a client");
        let deleted = admin
            .delete_topics(&[topic], &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        until("the topic is gone", Duration::from_secs(20), async || {
            let metadata = admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5));
            let metadata = metadata.expect("metadata");
            metadata
                .topics()
                .iter()
                .all(|t| t.error().is_some() || t.partitions().is_empty())
        })
        .await;
    }

    /// Deletes the records of a partition before `offset`.
    pub async fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", self.stack.brokers())
            .create()
            .expect("a client");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("an offset");
        let deleted = admin
            .delete_records(&list, &AdminOptions::new())
            .await
            .expect("an answer");
        assert!(deleted.elements().iter().all(|e| e.error().is_ok()), "{deleted:?}");
    }

    /// Puts records on a topic, in their order; returns when all are acknowledged.
    pub async fn produce(&self, topic: &str, records: Vec<RawRecord>) {
        let (brokers, topic) = (self.stack.brokers(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext> = ClientConfig::new()
                .set("bootstrap.servers", brokers)
                .set("partitioner", "murmur2_random")
                .set("enable.idempotence", "true")
                .set("linger.ms", "5")
                .create()
                .expect("a producer");
            for raw in &records {
                let mut headers = OwnedHeaders::new();
                for (key, value) in &raw.headers {
                    headers = headers.insert(Header {
                        key,
                        value: value.as_ref(),
                    });
                }
                let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic);
                record.partition = raw.partition;
                record.key = raw.key.as_deref();
                record.payload = raw.value.as_deref();
                record.headers = Some(headers);
                let mut again = Some(record);
                while let Some(record) = again.take() {
                    if let Err((_, full)) = producer.send(record) {
                        producer.flush(Duration::from_secs(20)).expect("flushed");
                        again = Some(full);
                    }
                }
            }
            producer.flush(Duration::from_secs(60)).expect("flushed");
        })
        .await
        .expect("no panic");
    }

    /// One number that a query gives, added up over the shards.
    pub async fn sum(&self, sql: &str) -> i64 {
        let mut sum = 0;
        for shard in self.stack.shards() {
            sum += shard.query_one(&self.name, sql).await.expect("a number");
        }
        sum
    }

    /// How far each partition is, over all shards.
    pub async fn offsets(&self) -> HashMap<(String, i32), i64> {
        let mut offsets = HashMap::new();
        for shard in self.stack.shards() {
            let client = shard.connect(&self.name).await.expect("a shard");
            for row in client
                .query("SELECT topic, partition, next_offset FROM consumer_offsets", &[])
                .await
                .expect("rows")
            {
                let twice = offsets.insert((row.get(0), row.get(1)), row.get(2));
                assert_eq!(twice, None, "a partition belongs to one shard");
            }
        }
        offsets
    }

    /// Waits until every record of every topic is in the tables.
    pub async fn landed(&self, patience: Duration) {
        until("everything on Kafka is in the tables", patience, async || {
            let offsets = self.offsets().await;
            for (topic, partitions) in self.topics() {
                for (p, (_, high)) in (0..).zip(self.watermarks(&topic, partitions).await) {
                    if offsets.get(&(topic.clone(), p)).copied().unwrap_or(0) < high {
                        return false;
                    }
                }
            }
            true
        })
        .await;
    }

    /// All events in the tables.
    pub async fn events(&self) -> Vec<EventRow> {
        let mut events = Vec::new();
        for (index, shard) in self.stack.shards().iter().enumerate() {
            let client = shard.connect(&self.name).await.expect("a shard");
            for (kind, entity) in [("order", "order_id"), ("dispute", "dispute_id")] {
                let sql = format!(
                    "SELECT source, event_id, user_id, {entity}, status, occurred_at, kafka_partition, kafka_offset FROM {kind}_events"
                );
                for row in client.query(&sql, &[]).await.expect("events") {
                    events.push(EventRow {
                        kind,
                        shard: index,
                        source: row.get(0),
                        event_id: row.get(1),
                        user_id: row.get(2),
                        entity: row.get(3),
                        status: row.get(4),
                        occurred_at: row.get(5),
                        partition: row.get(6),
                        offset: row.get(7),
                    });
                }
            }
        }
        events
    }

    /// The latest states: (kind, source, entity) → (status, last event).
    pub async fn states(&self) -> HashMap<(String, String, String), (String, String)> {
        let mut states = HashMap::new();
        for shard in self.stack.shards() {
            let client = shard.connect(&self.name).await.expect("a shard");
            for (kind, table, entity) in [("order", "orders", "order_id"), ("dispute", "disputes", "dispute_id")] {
                let sql = format!("SELECT source, {entity}, status, last_event_id FROM {table}");
                for row in client.query(&sql, &[]).await.expect("states") {
                    let key = (kind.to_owned(), row.get(0), row.get(1));
                    assert_eq!(
                        states.insert(key, (row.get(2), row.get(3))),
                        None,
                        "an entity lives on one shard"
                    );
                }
            }
        }
        states
    }

    /// The whole promise: what was acknowledged is in the tables once, on its shard, in order, and the states are the latest.
    pub async fn reckon(&self, acked: &[Acked]) {
        let events = self.events().await;
        let mut by_id: HashMap<(&str, &str), Vec<&EventRow>> = HashMap::new();
        for event in &events {
            by_id.entry((&event.source, &event.event_id)).or_default().push(event);
        }
        let mut lost = Vec::new();
        for ack in acked.iter().filter(|a| !a.poison) {
            match by_id
                .get(&(ack.source.as_str(), ack.event_id.as_str()))
                .map(Vec::as_slice)
            {
                None => lost.push(ack),
                Some([row]) => {
                    assert_eq!(
                        (row.kind, row.user_id.as_str()),
                        (ack.kind.as_str(), ack.user_id.as_str())
                    );
                    assert_eq!(
                        (row.status.as_str(), row.occurred_at),
                        (ack.status.as_str(), ack.occurred_at),
                        "{ack:?}"
                    );
                    let partitions = if ack.kind == "order" {
                        self.partitions.0
                    } else {
                        self.partitions.1
                    };
                    let partition = (murmur2(ack.user_id.as_bytes()) & 0x7fff_ffff) % partitions.unsigned_abs();
                    assert_eq!(
                        row.partition.unsigned_abs(),
                        partition,
                        "the key decides the partition: {ack:?}"
                    );
                    assert_eq!(
                        row.shard,
                        partition as usize % self.stack.shards().len(),
                        "the partition decides the shard: {ack:?}"
                    );
                }
                Some(rows) => panic!("there more than once: {rows:?}"),
            }
        }
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged events are lost, such as {:?}",
            lost.len(),
            acked.len(),
            lost.first()
        );
        let wanted: HashSet<(&str, &str)> = acked
            .iter()
            .filter(|a| !a.poison)
            .map(|a| (a.source.as_str(), a.event_id.as_str()))
            .collect();
        let strangers: Vec<_> = by_id.keys().filter(|id| !wanted.contains(*id)).collect();
        assert!(
            strangers.is_empty(),
            "{} events that nobody acknowledged, such as {:?}",
            strangers.len(),
            strangers.first()
        );

        let mut sent: BTreeMap<(&str, &str), Vec<(i64, u64)>> = BTreeMap::new();
        let mut latest: HashMap<(String, String, String), &Acked> = HashMap::new();
        for ack in acked.iter().filter(|a| !a.poison) {
            let row = by_id[&(ack.source.as_str(), ack.event_id.as_str())][0];
            sent.entry((&ack.kind, &ack.user_id))
                .or_default()
                .push((row.offset, ack.sequence));
            let entity = ack
                .dispute_id
                .clone()
                .filter(|_| ack.kind == "dispute")
                .unwrap_or_else(|| ack.order_id.clone());
            let last = latest
                .entry((ack.kind.clone(), ack.source.clone(), entity))
                .or_insert(ack);
            if ack.occurred_at > last.occurred_at {
                *last = ack;
            }
        }
        for (user, events) in &mut sent {
            events.sort_unstable();
            assert!(
                events.is_sorted_by_key(|(_, sequence)| *sequence),
                "{user:?}: not in the order of sending: {events:?}"
            );
        }
        let states = self.states().await;
        assert_eq!(states.len(), latest.len(), "an entity, a state");
        for (entity, last) in latest {
            assert_eq!(
                states[&entity],
                (last.status.clone(), last.event_id.clone()),
                "the latest state of {entity:?}"
            );
        }
    }

    /// That nothing was dead-lettered.
    pub async fn nothing_buried(&self) {
        for (topic, partitions) in self.topics().split_off(2) {
            let buried: i64 = self
                .watermarks(&topic, partitions)
                .await
                .iter()
                .map(|(_, high)| high)
                .sum();
            assert_eq!(buried, 0, "records on {topic}");
        }
        assert_eq!(self.sum("SELECT count(*) FROM dead_letters").await, 0);
    }
}

/// A record as it is put on a topic.
#[derive(Clone, Debug, Default)]
pub struct RawRecord {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A sender in the background.
pub struct Sending {
    acked: Arc<std::sync::Mutex<Vec<Acked>>>,
    task: tokio::task::JoinHandle<Summary>,
}

impl Sending {
    /// Acknowledgements so far.
    pub fn count(&self) -> usize {
        self.acked.lock().expect("not poisoned").len()
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until so many are acknowledged, or it has ended.
    pub async fn reaches(&self, count: usize, patience: Duration) {
        until(&format!("{count} acknowledged"), patience, async || {
            self.count() >= count || self.is_finished()
        })
        .await;
    }

    /// Waits for its end.
    pub async fn finish(self) -> (Summary, Vec<Acked>) {
        let summary = self.task.await.expect("the sender ends");
        let acked = std::mem::take(&mut *self.acked.lock().expect("not poisoned"));
        (summary, acked)
    }
}

fn rand_u16() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(Instant::now()) & 0xffff) as u16
}

/// A row of an event table.
#[derive(Clone, Debug)]
pub struct EventRow {
    pub kind: &'static str,
    pub shard: usize,
    pub source: String,
    pub event_id: String,
    pub user_id: String,
    pub entity: String,
    pub status: String,
    pub occurred_at: DateTime<Utc>,
    pub partition: i32,
    pub offset: i64,
}

/// The providers' samples, which stand beside the repository; a missing folder is a failure.
pub fn samples() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/providers/samples");
    let folder = std::env::var_os("HOOKMILL_PROVIDER_SAMPLES").map_or(beside, PathBuf::from);
    assert!(
        folder.is_dir(),
        "the providers' samples are not at {}: set HOOKMILL_PROVIDER_SAMPLES",
        folder.display()
    );
    folder
}

/// The headers with which a shipped source signs `body` at `at`; `id` counts where the scheme signs one.
pub fn signed(source: &str, body: &[u8], id: &str, at: DateTime<Utc>) -> Vec<(String, String)> {
    let secret = secrets()
        .into_iter()
        .find(|(name, _)| name == source)
        .expect("a shipped source")
        .1;
    let url = SendArgs::default().square_url;
    let headers = sign_body(source, body, id, &secret, &url, at).expect("it signs");
    headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// A running instance of the product.
pub struct Instance {
    pub process: Process,
    pub url: String,
    pub admin: String,
    pub client: reqwest::Client,
}

impl Instance {
    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        let patience = Duration::from_secs(60);
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(response) = self.client.get(format!("{}/health/ready", self.admin)).send().await
                && response.status().is_success()
            {
                return;
            }
            assert!(
                self.process.is_running() && Instant::now() < deadline,
                "not ready: {}",
                self.process.obituary()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Posts `body` to a path of the ingest listener, as JSON.
    pub async fn post(&self, path: &str, headers: &[(String, String)], body: &[u8]) -> reqwest::Response {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body.to_vec());
        if !headers.iter().any(|(name, _)| name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send().await.expect("an answer")
    }

    /// `/stats`, if it answers.
    pub async fn try_stats(&self) -> Option<Value> {
        let response = self
            .client
            .get(format!("{}/stats", self.admin))
            .timeout(Duration::from_secs(5))
            .send()
            .await
            .ok()?;
        response.json().await.ok()
    }

    /// `/stats`.
    pub async fn stats(&self) -> Value {
        self.try_stats()
            .await
            .unwrap_or_else(|| panic!("no stats: {}", self.process.obituary()))
    }

    /// An actor's node in `/stats`, by its path below the root.
    pub async fn actor(&self, path: &[&str]) -> Value {
        let stats = self.stats().await;
        let root = stats["actors"]
            .as_object()
            .expect("a tree")
            .values()
            .next()
            .expect("a root")
            .clone();
        path.iter().fold(root, |node, name| node["children"][*name].clone())
    }

    /// How many partitions of topics it runs.
    pub async fn running_partitions(&self) -> usize {
        let Some(stats) = self.try_stats().await else { return 0 };
        let partitions = stats["partitions"].as_array().cloned().unwrap_or_default();
        partitions.iter().filter(|p| p["state"] == "running").count()
    }

    /// Waits until it runs so many partitions.
    pub async fn runs(&self, partitions: usize, patience: Duration) {
        until(
            &format!("{} runs {partitions} partitions", self.process.name()),
            patience,
            async || self.running_partitions().await == partitions,
        )
        .await;
    }

    /// SIGTERM, and waits for a good end.
    pub async fn stop(&self) {
        let status = self
            .process
            .stop(Duration::from_secs(40))
            .await
            .expect("it stops in time");
        assert!(status.success(), "{}", self.process.obituary());
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).expect("it logs")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// The Java clients' hash of a key, written from Kafka's `Utils.murmur2`.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}
