//! What is measured with: webhooks as many connections would send them, and the records that they become.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use clap::ValueEnum;
use dev::send::{Generator, GeneratorSettings, SOURCES, Webhook};
use hookmill_actors::kafka::KafkaSettings;
use hookmill_schema::{Kind, NewEvent};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// The two kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Orders of five providers in their documented shapes, with 3 to 5 events close in time, 1 % disputes, 3 % sent again,
    /// users by Zipf's law.
    Realistic,
    /// Orders of one provider whose events lie far apart, so that folding those of one order helps nobody; none sent
    /// again, users evenly distributed.
    Uniform,
}

impl Mode {
    /// In names of topics and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Realistic => "realistic",
            Mode::Uniform => "uniform",
        }
    }
}

/// The pair of topics that a run reads and writes.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Name and partitions of the orders' topic.
    pub orders: (String, i32),
    /// The same of the disputes' topic.
    pub disputes: (String, i32),
}

impl Topics {
    /// A pair of its own, with names that begin with `prefix`.
    pub fn new(prefix: &str, orders: i32, disputes: i32) -> Self {
        Self {
            orders: (format!("{prefix}.orders"), orders),
            disputes: (format!("{prefix}.disputes"), disputes),
        }
    }

    /// With the shipped partition counts.
    pub fn shipped(prefix: &str) -> Self {
        Self::new(prefix, 12, 6)
    }

    /// Both.
    pub fn both(&self) -> [&(String, i32); 2] {
        [&self.orders, &self.disputes]
    }
}

/// Connections whose webhooks are mixed: each has a few orders alive at a time.
pub const SENDERS: u64 = 64;

/// Generators for `count` webhooks in all; the same `run_id` makes the same ones.
pub fn generators(sources: &[&'static str], senders: u64, count: u64, run_id: &str) -> Vec<Generator> {
    let of = |worker| {
        Generator::new(GeneratorSettings {
            sources: sources.to_vec(),
            worker,
            users: 20,
            disputes_percent: 1,
            old_one_in: 0,
            poison: 0,
            count: count / senders + u64::from(worker < count % senders),
            seed: 1,
            run_id: run_id.to_owned(),
        })
    };
    (0..senders).map(of).collect()
}

/// What went to the topics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filled {
    /// Records, redeliveries counted.
    pub records: u64,
    /// Orders' events, redeliveries not counted.
    pub orders: u64,
    /// Disputes' events, redeliveries not counted.
    pub disputes: u64,
}

/// How many users there are.
const USERS: usize = 20_000;

/// Of so many earlier webhooks one may be sent again: some at once, some much later.
const REMEMBERED: usize = 20_000;

/// Fills `topics` with `count` records.
pub fn fill(brokers: String, topics: &Topics, mode: Mode, count: u64) -> Result<Filled> {
    let kafka = KafkaSettings {
        brokers,
        ..KafkaSettings::default()
    };
    let mut config = kafka.producer(Duration::from_secs(60), 2 << 20);
    // Nobody waits for a single record here.
    config.set("linger.ms", "20").set("compression.type", "none");
    let mut filling = Filling {
        producer: config.create()?,
        topics,
        filled: Filled::default(),
    };
    match mode {
        Mode::Realistic => filling.realistic(count)?,
        Mode::Uniform => filling.uniform(count)?,
    }
    let waited = filling.producer.flush(Duration::from_secs(60));
    waited.context("the topics cannot be filled")?;
    Ok(filling.filled)
}

struct Filling<'a> {
    producer: BaseProducer,
    topics: &'a Topics,
    filled: Filled,
}

impl Filling<'_> {
    fn realistic(&mut self, count: u64) -> Result<()> {
        let users = Zipf::new(USERS);
        let mut rng = SmallRng::seed_from_u64(7);
        let mut senders = generators(&SOURCES, SENDERS, count, "realistic");
        let mut sent: Vec<(Webhook, String)> = Vec::new();
        while self.filled.records < count {
            for webhook in senders.iter_mut().filter_map(Iterator::next) {
                if !sent.is_empty() && rng.random_ratio(3, 100) {
                    let (again, user) = &sent[rng.random_range(0..sent.len())];
                    self.publish(again, user)?;
                    self.filled.records += 1;
                }
                let user = users.of(&webhook.expect.order_id);
                self.count_and_publish(&webhook, &user)?;
                let place = if sent.len() < REMEMBERED {
                    sent.push((webhook, user));
                    continue;
                } else {
                    rng.random_range(0..REMEMBERED)
                };
                sent[place] = (webhook, user);
            }
        }
        Ok(())
    }

    /// The body is that of a webhook of the source `standard`, with an order of which each event is `count / 4` records
    /// away from the last.
    fn uniform(&mut self, count: u64) -> Result<()> {
        let mut sender = generators(&["standard"], 1, 1, "uniform").remove(0);
        let mut webhook = sender.next().context("a webhook")?;
        let orders = (count / 4).max(1);
        for i in 0..count {
            let order = i % orders;
            // No order of the keys: ids are random in life.
            let mixed = order.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let expect = &mut webhook.expect;
            expect.order_id = format!("ord_{mixed:016x}");
            expect.event_id = format!("msg_{:016x}s{}", mixed.rotate_left(32), i / orders);
            expect.occurred_at += chrono::TimeDelta::microseconds(100);
            let user = format!("user-{}", mixed % USERS as u64);
            self.count_and_publish(&webhook, &user)?;
        }
        Ok(())
    }

    fn count_and_publish(&mut self, webhook: &Webhook, user: &str) -> Result<()> {
        match webhook.expect.dispute_id {
            Some(_) => self.filled.disputes += 1,
            None => self.filled.orders += 1,
        }
        self.filled.records += 1;
        if self.filled.records.is_multiple_of(100_000) {
            eprintln!("filling the topics: {}", self.filled.records);
        }
        self.publish(webhook, user)
    }

    fn publish(&self, webhook: &Webhook, user: &str) -> Result<()> {
        let (kind, topic) = match webhook.expect.dispute_id {
            Some(_) => (Kind::Dispute, &self.topics.disputes.0),
            None => (Kind::Order, &self.topics.orders.0),
        };
        let value = encode(webhook, kind, user)?;
        let mut record = BaseRecord::to(topic).key(user).payload(&value).headers(headers());
        while let Err((error, back)) = self.producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            self.producer.poll(Duration::from_millis(20));
            record = back;
        }
        Ok(())
    }
}

/// The record's value, as the product would make it.
pub fn encode(webhook: &Webhook, kind: Kind, user: &str) -> Result<Vec<u8>> {
    let expect = &webhook.expect;
    let event = NewEvent {
        source: expect.source,
        event_id: &expect.event_id,
        kind,
        event_type: "bench.event",
        occurred_at: expect.occurred_at,
        user_id: user,
        order_id: Some(&expect.order_id),
        dispute_id: expect.dispute_id.as_deref(),
        status: kind.status(expect.status).context("a canonical status")?,
        provider_status: Some(expect.status),
        amount_minor: Some(1999),
        currency: Some("USD"),
        entity_version: None,
        received_at: Utc::now(),
        body: std::str::from_utf8(&webhook.body)?,
    };
    Ok(event.encode()?)
}

/// The headers that the product's records have.
pub fn headers() -> OwnedHeaders {
    let pairs = [
        ("content-type", "application/cloudevents+json"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    pairs.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    })
}

/// Users by Zipf's law: the n-th has 1/n of the first one's orders.
struct Zipf {
    /// Sums of the shares.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(users: usize) -> Self {
        let sums = (1..=users).scan(0.0, |sum, n| {
            *sum += 1.0 / n as f64;
            Some(*sum)
        });
        Self { sums: sums.collect() }
    }

    /// An order has the same user all its life.
    fn of(&self, order: &str) -> String {
        let hash = order.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let all = self.sums.last().copied().unwrap_or(1.0);
        let at = SmallRng::seed_from_u64(hash).random::<f64>() * all;
        format!("user-{}", self.sums.partition_point(|sum| *sum < at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_user_has_most_orders_and_an_order_keeps_its_user() {
        let users = Zipf::new(1000);
        let counted = (0..10_000)
            .filter(|i| users.of(&format!("order {i}")) == "user-0")
            .count();
        // One of 7.5: the sum of 1/n to 1000.
        assert!((1000..1700).contains(&counted), "{counted}");
        assert_eq!(users.of("o"), users.of("o"));
    }
}
