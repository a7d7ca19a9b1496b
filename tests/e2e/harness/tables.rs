//! What is in the tables, and the reckoning of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use dev::place::{partition_of, shard_of};
use dev::send::Acked;

use super::{World, until};

impl World {
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
                    let partition = partition_of(ack.user_id.as_bytes(), partitions);
                    assert_eq!(row.partition, partition, "the key decides the partition: {ack:?}");
                    assert_eq!(
                        row.shard,
                        shard_of(partition, self.stack.shards().len()),
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
