//! A real Apache Kafka and real Postgres shards on this machine, without containers, and a sender of webhooks.
//!
//! Tests use it as a library ([`stack::Stack`]), people through the command (`cargo run -p dev -- --help`).

pub mod fetch;
pub mod process;
pub mod proxy;
pub mod send;
pub mod stack;
