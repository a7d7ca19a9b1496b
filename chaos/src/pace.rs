//! How fast webhooks come: evenly, in bursts, and so that there are always some while something is broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;

const TICK: Duration = Duration::from_millis(20);
/// Webhooks a second when all are sent that are due before the next fault: traffic never stops.
const TRICKLE: u64 = 20;

/// Gives out leave to send, one webhook each.
#[derive(Clone)]
pub struct Pace {
    leave: Arc<Semaphore>,
    given: Arc<AtomicU64>,
    due: Arc<AtomicU64>,
}

impl Pace {
    /// Gives leave at most `rate` times a second, in bursts that the seed decides.
    pub fn start(rate: u64, seed: u64) -> Self {
        let pace = Self {
            leave: Arc::new(Semaphore::new(0)),
            given: Arc::default(),
            due: Arc::default(),
        };
        tokio::spawn(pace.clone().run(rate, SmallRng::seed_from_u64(seed ^ 0xbeef)));
        pace
    }

    async fn run(self, rate: u64, mut rng: SmallRng) {
        let mut tick = tokio::time::interval(TICK);
        let (mut last, mut saved, mut trickled) = (Instant::now(), 0.0, 0.0);
        // Leave is saved up while a burst is being prepared.
        let mut wait_until = Instant::now();
        loop {
            tick.tick().await;
            let passed = last.elapsed().as_secs_f64().min(1.0);
            last = Instant::now();
            saved = (saved + rate as f64 * passed).min(rate as f64);
            trickled = (trickled + TRICKLE as f64 * passed).min(TRICKLE as f64);
            if Instant::now() < wait_until {
                continue;
            }
            if rng.random_ratio(1, 100) {
                wait_until = Instant::now() + Duration::from_millis(rng.random_range(200..800));
                continue;
            }
            let given = self.given.load(Relaxed);
            let before_due = self.due.load(Relaxed).saturating_sub(given);
            let n = if before_due > 0 {
                (saved as u64).min(before_due)
            } else {
                trickled as u64
            };
            // What nobody has taken yet is enough: it must not pile up while everything is broken.
            if n == 0 || self.leave.available_permits() as u64 > rate {
                continue;
            }
            if before_due > 0 {
                saved -= n as f64;
            } else {
                trickled -= n as f64;
            }
            self.given.fetch_add(n, Relaxed);
            self.leave.add_permits(usize::try_from(n).unwrap_or(0));
        }
    }

    /// From now on so many webhooks are due in all; the rest only trickles.
    pub fn due(&self, webhooks: u64) {
        self.due.store(webhooks, Relaxed);
    }

    /// Waits for leave to send one.
    pub async fn leave(&self) {
        // It is never closed.
        if let Ok(leave) = self.leave.acquire().await {
            leave.forget();
        }
    }
}
