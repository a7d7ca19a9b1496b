//! A real Apache Kafka and real Postgres shards on this machine, without containers, a sender of webhooks, and the rule
//! of where a key belongs.
//!
//! Tests use it as a library ([`stack::Stack`]), people through the command (`cargo run -p dev -- --help`).

pub mod clock;
pub mod disk;
pub mod fetch;
pub mod place;
pub mod process;
pub mod proxy;
pub mod run;
pub mod send;
pub mod stack;
pub mod tls;

/// How this command is called.
pub const COMMAND: &str = "cargo run -q -p dev --";
