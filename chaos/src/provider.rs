//! Providers: they send again what was not answered with 2xx or not in time, now and then what was, some of it at once
//! and out of order, and they remember everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use dev::send::{Expected, Generator, GeneratorSettings, SOURCES, Secrets, SendArgs, Webhook, sign};
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng, SeedableRng};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::pace::Pace;

/// Providers wait so long for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A webhook that was sent, and all that came of it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// What must become of it.
    pub expect: Expected,
    /// The beginning of its body's SHA-256.
    pub digest: [u8; 8],
    /// Every time it was sent.
    pub attempts: Vec<Attempt>,
}

/// One time that a webhook was sent. Times are in µs since the campaign's start.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// When.
    pub at_us: u64,
    /// To which instance.
    pub to: u8,
    /// When it was answered, or given up.
    pub until_us: u64,
    /// The status; 0 where there was none.
    pub status: u16,
}

impl Attempt {
    /// Whether it was acknowledged.
    pub fn acknowledged(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Sent {
    /// When it was acknowledged first.
    pub fn acked_us(&self) -> Option<u64> {
        let acks = self.attempts.iter().filter(|attempt| attempt.acknowledged());
        acks.map(|attempt| attempt.until_us).min()
    }

    /// When it was sent first; one that never was comes after all.
    pub fn first_us(&self) -> u64 {
        self.attempts.iter().map(|a| a.at_us).min().unwrap_or(u64::MAX)
    }
}

/// The beginning of a text's SHA-256.
pub fn digest(body: &[u8]) -> [u8; 8] {
    let mut start = [0; 8];
    start.copy_from_slice(&Sha256::digest(body)[..8]);
    start
}

/// How the providers are.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides everything.
    pub seed: u64,
    /// Part of every id.
    pub run_id: String,
    /// Webhooks in all.
    pub count: u64,
    /// Of these, verified and never writable.
    pub poison: u64,
    /// Connections, each with users of its own.
    pub connections: u64,
    /// In percent: sent again though acknowledged.
    pub duplicates: u32,
    /// In percent: sent in groups, at once and out of order.
    pub disorder: u32,
    /// Where to; the index is the instance's.
    pub urls: Vec<String>,
    /// When times are counted from.
    pub started: Instant,
}

/// What can be seen while they send.
#[derive(Default)]
pub struct Counters {
    /// Webhooks that were acknowledged.
    pub acked: AtomicU64,
    /// Requests in all.
    pub requests: AtomicU64,
    /// Requests that were not acknowledged.
    pub unacknowledged: AtomicU64,
    /// Requests that were answered 4xx, where sending again is not expected to help.
    pub refused: AtomicU64,
    /// Webhooks sent again though acknowledged.
    pub duplicates: AtomicU64,
}

struct Shared {
    settings: Settings,
    secrets: Secrets,
    pace: Pace,
    counters: Arc<Counters>,
    enough: watch::Receiver<bool>,
}

/// Sends everything; returns what was sent once all is acknowledged, or once `enough` says so.
pub async fn send(
    settings: Settings,
    secrets: Secrets,
    pace: Pace,
    counters: Arc<Counters>,
    enough: watch::Receiver<bool>,
) -> Result<Vec<Sent>> {
    let connections = settings.connections.clamp(1, settings.count.max(1));
    let share = |of: u64, i: u64| of / connections + u64::from(i < of % connections);
    let shared = Arc::new(Shared {
        settings,
        secrets,
        pace,
        counters,
        enough,
    });
    let connections = (0..connections).map(|i| {
        let settings = &shared.settings;
        let generator = Generator::new(GeneratorSettings {
            sources: SOURCES.to_vec(),
            worker: i,
            users: 20,
            disputes_percent: 20,
            old_one_in: 50,
            poison: share(settings.poison, i),
            count: share(settings.count, i),
            seed: settings.seed,
            run_id: settings.run_id.clone(),
        });
        tokio::spawn(Connection::run(shared.clone(), i, generator))
    });
    let mut all = Vec::new();
    for sent in join_all(connections).await {
        all.extend(sent??);
    }
    Ok(all)
}

/// One provider's connection. What it sends one behind another is in order.
struct Connection {
    shared: Arc<Shared>,
    client: reqwest::Client,
    /// The instance it sends to, until that fails.
    to: AtomicU64,
}

impl Connection {
    async fn run(shared: Arc<Shared>, i: u64, generator: Generator) -> Result<Vec<Sent>> {
        let mut rng = SmallRng::seed_from_u64(shared.settings.seed ^ (i << 32));
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(4)
            .tcp_nodelay(true)
            .build()?;
        let connection = Self {
            shared,
            client,
            to: AtomicU64::new(i),
        };
        let (mut sent, mut again): (Vec<Sent>, Vec<(usize, Webhook)>) = (Vec::new(), Vec::new());
        let mut webhooks = generator.peekable();
        while webhooks.peek().is_some() && !*connection.shared.enough.borrow() {
            let disorder = rng.random_ratio(connection.shared.settings.disorder.min(100), 100);
            let size = if disorder { rng.random_range(2..8) } else { 1 };
            let mut group: Vec<Webhook> = webhooks.by_ref().take(size).collect();
            group.shuffle(&mut rng);
            for _ in &group {
                connection.shared.pace.leave().await;
            }
            let seeds: Vec<u64> = group.iter().map(|_| rng.random()).collect();
            let deliveries = group.iter().zip(seeds).map(|(w, seed)| connection.deliver(w, seed));
            for (attempts, webhook) in join_all(deliveries).await.into_iter().zip(&group) {
                let attempts = attempts?;
                let acked = attempts.last().is_some_and(Attempt::acknowledged);
                if acked {
                    connection.shared.counters.acked.fetch_add(1, Relaxed);
                    if rng.random_ratio(connection.shared.settings.duplicates.min(100), 100) {
                        again.push((sent.len(), webhook.clone()));
                    }
                }
                sent.push(Sent {
                    expect: webhook.expect.clone(),
                    digest: digest(&webhook.body),
                    attempts,
                });
            }
            // What is sent twice comes again at once, or much later.
            if !again.is_empty() && rng.random_ratio(1, 4) {
                let (index, webhook) = again.swap_remove(rng.random_range(0..again.len()));
                connection.repeat(&mut sent[index], &webhook, rng.random()).await?;
            }
        }
        for (index, webhook) in again {
            connection.repeat(&mut sent[index], &webhook, rng.random()).await?;
        }
        Ok(sent)
    }

    async fn repeat(&self, sent: &mut Sent, webhook: &Webhook, seed: u64) -> Result<()> {
        self.shared.counters.duplicates.fetch_add(1, Relaxed);
        sent.attempts.extend(self.deliver(webhook, seed).await?);
        Ok(())
    }

    /// Posts a webhook until it is acknowledged or it is enough. The signature is made anew for every attempt.
    async fn deliver(&self, webhook: &Webhook, seed: u64) -> Result<Vec<Attempt>> {
        let (shared, mut rng) = (&self.shared, SmallRng::seed_from_u64(seed));
        let secret = shared.secrets.iter().find(|(name, _)| *name == webhook.source);
        let secret = secret.map_or("", |(_, secret)| secret);
        let (mut attempts, mut wait) = (Vec::new(), Duration::from_millis(50));
        let us = |at: Instant| u64::try_from((at - shared.settings.started).as_micros()).unwrap_or(u64::MAX);
        while !*shared.enough.borrow() {
            let to = self.to.load(Relaxed) % shared.settings.urls.len() as u64;
            let url = &shared.settings.urls[usize::try_from(to)?];
            let mut request = self.client.post(format!("{url}/webhooks/{}", webhook.source));
            let square_url = SQUARE_URL.as_str();
            for (name, value) in sign(webhook, secret, square_url, chrono::Utc::now())? {
                request = request.header(name, value);
            }
            let request = request.header("content-type", "application/json");
            shared.counters.requests.fetch_add(1, Relaxed);
            let asked = Instant::now();
            let (mut status, mut patience) = (0, None);
            if let Ok(answer) = request.body(webhook.body.clone()).send().await {
                status = answer.status().as_u16();
                let seconds = answer.headers().get("retry-after").and_then(|v| v.to_str().ok());
                patience = seconds.and_then(|v| v.parse().ok()).map(Duration::from_secs);
                // Read to its end, so that the connection can be used again. An answer that breaks off is none.
                if answer.bytes().await.is_err() {
                    status = 0;
                }
            }
            let attempt = Attempt {
                at_us: us(asked),
                to: u8::try_from(to)?,
                until_us: us(Instant::now()),
                status,
            };
            attempts.push(attempt);
            if attempt.acknowledged() {
                break;
            }
            shared.counters.unacknowledged.fetch_add(1, Relaxed);
            if (400..500).contains(&status) && status != 408 && status != 429 {
                shared.counters.refused.fetch_add(1, Relaxed);
            }
            // Another instance may take it.
            self.to.fetch_add(1, Relaxed);
            let pause = patience.map_or(wait, |p| p.min(Duration::from_secs(2)));
            tokio::time::sleep(pause.mul_f64(rng.random_range(0.5..1.0))).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
        Ok(attempts)
    }
}

/// The URL that Square signs; as in config.toml.
static SQUARE_URL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| SendArgs::default().square_url);
