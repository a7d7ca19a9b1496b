//! The bare limits: what the libraries do with nothing around them. Each runs as a process of its own, so that what it
//! costs can be told from what the bench costs.

pub mod drain;
pub mod ingest;

use std::ffi::OsString;

use anyhow::Result;
use dev::process::{Process, Program};
use dev::stack::Stack;

use crate::product::Deployment;
use crate::workload::Topics;

/// How the handler's records go to the broker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// Requests that may be under way at once.
    pub in_flight: u8,
    /// How long a record waits for others of its partition, in milliseconds, as librdkafka reads it.
    pub linger_ms: &'static str,
}

/// This executable again, as one of the limits. Dropping it kills it.
pub struct Limit(pub Process);

impl Limit {
    /// Starts the loop that drains, with the deployment's topics, shards and lanes.
    pub fn drain(stack: &Stack, name: &str, deployment: &Deployment) -> Result<Self> {
        let topic = |(name, partitions): &(String, i32)| format!("{name}:{partitions}");
        let args = [
            "limit-drain".to_owned(),
            format!("--brokers={}", stack.brokers()),
            format!("--orders={}", topic(&deployment.topics.orders)),
            format!("--disputes={}", topic(&deployment.topics.disputes)),
            format!("--shard-urls={}", deployment.shard_urls.join(",")),
            format!("--lanes={}", deployment.lanes),
        ];
        Self::start(stack, name, args)
    }

    /// Starts the handler that takes webhooks at `listen` and sends them on in that way.
    pub fn ingest(stack: &Stack, name: &str, topics: &Topics, listen: &str, sending: Sending) -> Result<Self> {
        let args = [
            "limit-ingest".to_owned(),
            format!("--brokers={}", stack.brokers()),
            format!("--orders={}", topics.orders.0),
            format!("--disputes={}", topics.disputes.0),
            format!("--listen={listen}"),
            format!("--in-flight={}", sending.in_flight),
            format!("--linger-ms={}", sending.linger_ms),
        ];
        Self::start(stack, name, args)
    }

    /// Starts the hidden subcommand `args[0]`.
    fn start<S: Into<OsString>>(stack: &Stack, name: &str, args: impl IntoIterator<Item = S>) -> Result<Self> {
        let log = stack.dir().join("logs").join(format!("{name}.log"));
        let program = Program::new(name, std::env::current_exe()?, log).args(args);
        Ok(Self(Process::spawn(program)?))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.0.kill();
    }
}
