//! Hookmill's actors.
//!
//! ```text
//!                       (bounds of the mailboxes stand on the edges)
//!
//! provider ──HTTP──> HttpServer ──4096──> Producer ──librdkafka's queue──> Kafka
//!                    max_in_flight   (one a worker's thread; ProducerClient owns the client)
//!
//! Kafka ──> ConsumerGroup ─spawns─> PartitionConsumer ──1 a partition──> DeadLetters ──the same client──> Kafka
//!           (pump thread)                │      ^
//!                        2 batches and   │      │ an answer a batch
//!                        1 claim for each│      │
//!                        partition       v      │   (on the same thread)
//!                                      ShardWriter (shard p % N, lane p / N % lanes) ──one statement──> Postgres
//!
//! PartitionKeeper ──> every shard     event partitions, ahead of time
//! LagWatcher ──> every shard, Kafka   progress, lag, health
//! ```
//!
//! A reader that cannot hand on stops reading, so a slow shard pushes back to Kafka and never into memory. Who
//! restarts whom stands in [`pipeline`], the only list of the tree.

pub mod actor_ref;
pub mod batch;
pub mod bounds;
pub mod consumer_group;
pub mod dead_letters;
pub mod health;
pub mod http;
pub mod kafka;
pub mod lag_watcher;
pub mod metrics;
pub mod parking;
pub mod partition_consumer;
pub mod partition_keeper;
pub mod partition_table;
pub mod pipeline;
pub mod producer;
pub mod rebalance;
pub mod secret;
pub mod shard_writer;
mod slot;
pub mod sources;
pub mod stats;
pub mod supervision;

/// Arms the fail points named in the environment (`FAILPOINTS`), in builds that have them.
pub fn enable_failpoints() {
    #[cfg(feature = "failpoints")]
    {
        // Kept for the life of the process.
        std::mem::forget(fail::FailScenario::setup());
    }
}
