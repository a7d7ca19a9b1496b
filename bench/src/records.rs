//! Webhooks as many connections would send them, and the records that they become.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use dev::send::{Generator, GeneratorSettings, SOURCES, Webhook};
use hookmill_actors::kafka::KafkaSettings;
use hookmill_schema::{Kind, NewEvent};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::product::{DISPUTES, ORDERS};

/// Connections whose webhooks are mixed: each has a few entities alive at a time.
pub const SENDERS: u64 = 64;

/// Generators for `count` webhooks in all; the same `run_id` makes the same ones.
pub fn generators(sources: &[&'static str], senders: u64, count: u64, run_id: &str) -> Vec<Generator> {
    let of = |worker| {
        Generator::new(GeneratorSettings {
            sources: sources.to_vec(),
            worker,
            users: 20,
            disputes_percent: 10,
            poison: 0,
            count: count / senders + u64::from(worker < count % senders),
            seed: 1,
            run_id: run_id.to_owned(),
        })
    };
    (0..senders).map(of).collect()
}

/// How many events went to each topic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filled {
    pub orders: u64,
    pub disputes: u64,
}

/// Fills both topics with `count` events of all sources.
pub fn fill(brokers: String, count: u64) -> Result<Filled> {
    let kafka = KafkaSettings {
        brokers,
        ..KafkaSettings::default()
    };
    let mut config = kafka.producer(Duration::from_secs(60), 2 << 20);
    // Nobody waits for a single record here.
    config.set("linger.ms", "20");
    let producer: BaseProducer = config.create()?;
    let mut senders = generators(&SOURCES, SENDERS, count, "drain");
    let mut filled = Filled::default();
    let mut sent = 0;
    while sent < count {
        for webhook in senders.iter_mut().filter_map(Iterator::next) {
            publish(&producer, &webhook)?;
            match webhook.expect.dispute_id {
                Some(_) => filled.disputes += 1,
                None => filled.orders += 1,
            }
            sent += 1;
            if sent % 100_000 == 0 {
                eprintln!("filling the topics: {sent} of {count}");
            }
        }
    }
    producer
        .flush(Duration::from_secs(60))
        .context("the topics cannot be filled")?;
    Ok(filled)
}

fn publish(producer: &BaseProducer, webhook: &Webhook) -> Result<()> {
    let expect = &webhook.expect;
    let (kind, topic) = match expect.dispute_id {
        Some(_) => (Kind::Dispute, DISPUTES.0),
        None => (Kind::Order, ORDERS.0),
    };
    let value = NewEvent {
        source: expect.source,
        event_id: &expect.event_id,
        kind,
        event_type: "bench.event",
        occurred_at: expect.occurred_at,
        user_id: &expect.user_id,
        order_id: Some(&expect.order_id),
        dispute_id: expect.dispute_id.as_deref(),
        status: kind.status(expect.status).context("a canonical status")?,
        provider_status: Some(expect.status),
        amount_minor: Some(1999),
        currency: Some("USD"),
        entity_version: None,
        received_at: Utc::now(),
        body: std::str::from_utf8(&webhook.body)?,
    }
    .encode()?;
    let headers = OwnedHeaders::new_with_capacity(2)
        .insert(Header {
            key: "content-type",
            value: Some("application/cloudevents+json"),
        })
        .insert(Header {
            key: "traceparent",
            value: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        });
    let mut record = BaseRecord::to(topic)
        .key(&expect.user_id)
        .payload(&value)
        .headers(headers);
    while let Err((error, back)) = producer.send(record) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(error.into());
        }
        producer.poll(Duration::from_millis(20));
        record = back;
    }
    Ok(())
}
