//! A stranger who puts records on the topics that are no events: they must end in the dead letters, and cost nobody else
//! anything. Each is known by its key.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::sync::watch;

use crate::deployment::Topic;
use crate::provider::Counters;

/// How the keys of such records begin; their number follows.
pub const KEY: &str = "chaos-garbage-";

/// Puts `count` of them on the topics, spread over the first `of` acknowledged webhooks. Returns how many it has put there.
pub async fn put(
    brokers: String,
    topics: [Topic; 2],
    (count, of): (u64, u64),
    seed: u64,
    counters: Arc<Counters>,
    enough: watch::Receiver<bool>,
) -> Result<u64> {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x9a5ba9e);
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        // A broker may be away for a while; what is put must be there in the end.
        .set("message.timeout.ms", "180000")
        .create()?;
    let mut put = 0;
    while put < count && !*enough.borrow() {
        if counters.acked.load(Relaxed) < of * put / count {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        let topic = &topics[usize::from(rng.random_ratio(1, 3))];
        let (key, value) = (format!("{KEY}{put}"), value(&mut rng));
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&topic.name).key(&key);
        record.partition = Some(rng.random_range(0..topic.partitions));
        record.payload = value.as_deref();
        producer.send(record).map_err(|(error, _)| error)?;
        put += 1;
    }
    tokio::task::spawn_blocking(move || producer.flush(Duration::from_secs(180)))
        .await?
        .context("records could not be put on the topics")?;
    Ok(put)
}

fn value(rng: &mut SmallRng) -> Option<Vec<u8>> {
    match rng.random_range(0..6) {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some((0..rng.random_range(1..500)).map(|_| rng.random()).collect()),
        3 => Some(br#"{"specversion":"1.0","type":"half of an eve"#.to_vec()),
        4 => Some(br#"{"specversion":"0.3","id":"1","source":"s"}"#.to_vec()),
        _ => Some(b"[]".to_vec()),
    }
}
