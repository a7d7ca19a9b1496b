//! The limit of draining: for every lane of every shard a thread that reads its partitions and runs the one statement that
//! fences, logs, updates the state and moves the offsets, one after the other. No group, no supervision, no dead letters;
//! any trouble ends it. It reads with the product's fetch settings for orders, decodes with the product's decoder, and its statement
//! is the one that the product falls back to: the best single statement we know.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hookmill_actors::kafka::{KafkaSettings, Traffic};
use hookmill_schema::shard::{self, lane_of, shard_of};
use hookmill_schema::{ConnectSettings, Part, Record, Row, Table, offsets, write};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// What it must know.
#[derive(Clone, clap::Args)]
pub struct Settings {
    /// Kafka.
    #[arg(long)]
    pub brokers: String,
    /// The orders' topic, as name:partitions.
    #[arg(long, value_parser = topic)]
    pub orders: (String, i32),
    /// The disputes' topic.
    #[arg(long, value_parser = topic)]
    pub disputes: (String, i32),
    /// The shards, with commas between.
    #[arg(long, value_delimiter = ',')]
    pub shard_urls: Vec<String>,
    /// Connections to each shard; as the product's postgres.lanes.
    #[arg(long, default_value_t = 2)]
    pub lanes: usize,
    /// Most rows in a statement; as the product's writers.statement_rows.
    #[arg(long, default_value_t = 4000)]
    pub rows: usize,
}

fn topic(text: &str) -> Result<(String, i32)> {
    let (name, partitions) = text.split_once(':').context("name:partitions")?;
    Ok((name.to_owned(), partitions.parse()?))
}

/// Writes everything that the topics hold and will hold, until it is killed.
pub fn run(settings: Settings) -> Result<()> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for shard in 0..settings.shard_urls.len() {
            for lane in 0..settings.lanes {
                let settings = &settings;
                threads.push(scope.spawn(move || Lane::new(settings, shard, lane)?.drain()));
            }
        }
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a lane panicked"))?)
    })
}

/// A topic's partitions on one lane.
struct Topic {
    name: String,
    table: Table,
    partitions: BTreeMap<i32, Position>,
}

struct Position {
    next: i64,
    epoch: i64,
    rows: Vec<Row>,
}

struct Lane {
    runtime: tokio::runtime::Runtime,
    connection: shard::Connection,
    consumer: BaseConsumer,
    topics: [Topic; 2],
    max_rows: usize,
}

impl Lane {
    fn new(settings: &Settings, shard: usize, lane: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let url = &settings.shard_urls[shard];
        let mut connection = runtime.block_on(shard::connect(url, &ConnectSettings::default()))?;
        let kafka = KafkaSettings {
            brokers: settings.brokers.clone(),
            ..KafkaSettings::default()
        };
        let consumer: BaseConsumer = kafka.consumer("limit", Traffic::Heavy).create()?;
        let mut assignment = TopicPartitionList::new();
        let mut topics =
            [(&settings.orders, Table::Orders), (&settings.disputes, Table::Disputes)].map(|(topic, table)| {
                let (name, count) = topic.clone();
                let mine = (0..count).filter(|p| {
                    let shards = settings.shard_urls.len();
                    shard_of(*p, shards) == shard && lane_of(*p, shards, settings.lanes) == lane
                });
                let at_start = |partition| {
                    let position = Position {
                        next: 0,
                        epoch: 0,
                        rows: Vec::new(),
                    };
                    (partition, position)
                };
                Topic {
                    name,
                    table,
                    partitions: mine.map(at_start).collect(),
                }
            });
        for topic in &mut topics {
            for (partition, position) in &mut topic.partitions {
                let claimant = offsets::Claimant {
                    owner: "limit",
                    ..offsets::Claimant::default()
                };
                let claim = offsets::claim(&mut connection, &topic.name, *partition, claimant);
                let (claimed, _) = runtime.block_on(claim)?;
                (position.next, position.epoch) = (claimed.next_offset, claimed.epoch);
                assignment.add_partition_offset(&topic.name, *partition, Offset::Offset(claimed.next_offset))?;
            }
        }
        consumer.assign(&assignment)?;
        Ok(Self {
            runtime,
            connection,
            consumer,
            topics,
            max_rows: settings.rows,
        })
    }

    fn drain(mut self) -> Result<()> {
        loop {
            self.gather()?;
            for topic in &mut self.topics {
                self.runtime.block_on(topic.write(&mut self.connection))?;
            }
        }
    }

    /// Waits for a record, then reads what is there, up to a statement's worth of rows.
    fn gather(&mut self) -> Result<()> {
        let mut patience = Duration::from_secs(1);
        for _ in 0..self.max_rows {
            let Some(message) = self.consumer.poll(patience) else {
                return Ok(());
            };
            let message = message?;
            patience = Duration::ZERO;
            let topic = self.topics.iter_mut().find(|t| t.name == message.topic());
            let topic = topic.context("a record of an unknown topic")?;
            let row = Row::decode(topic.table, record_of(&message), &topic.name, message.partition())
                .map_err(|(_, why)| why)?;
            let position = topic.partitions.get_mut(&message.partition());
            position.context("a record of another lane")?.rows.push(row);
        }
        Ok(())
    }
}

impl Topic {
    async fn write(&mut self, connection: &mut shard::Connection) -> Result<()> {
        let mut parts: Vec<Part<'_>> = Vec::new();
        for (partition, position) in &self.partitions {
            let Some(last) = position.rows.last() else { continue };
            parts.push(Part {
                partition: *partition,
                from: position.next,
                next: last.record().offset + 1,
                epoch: position.epoch,
                rows: position.rows.iter().collect(),
            });
        }
        if parts.is_empty() {
            return Ok(());
        }
        let passed = write(connection, self.table, &self.name, &parts).await?;
        if passed.len() != parts.len() {
            bail!("somebody else writes to the limit's database");
        }
        let nexts: Vec<(i32, i64)> = parts.iter().map(|part| (part.partition, part.next)).collect();
        for (partition, next) in nexts {
            if let Some(position) = self.partitions.get_mut(&partition) {
                position.next = next;
                position.rows.clear();
            }
        }
        Ok(())
    }
}

fn record_of(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Record::new(
        message.offset(),
        message.timestamp().to_millis(),
        message.key(),
        message.payload(),
        headers.map(|header| (header.key, header.value)),
    )
}
