//! A provider that sends webhooks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dev::send::{Acked, SendArgs, Summary, send_all};
use tokio::sync::mpsc;

use super::{Instance, World, secrets, until};

impl World {
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
