//! `dev send`: order and dispute webhooks in the providers' documented shapes, signed and posted as providers do it:
//! again after 408, 429, 5xx, a time-out or a broken connection, and now and then again though acknowledged.

mod bodies;
mod generator;
mod sign;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

pub use generator::{Acked, Expected, Generator, GeneratorSettings, SOURCES, Webhook};
pub use sign::{sign, sign_body};

/// Sends signed order and dispute webhooks.
///
/// Each connection sends one webhook after another, and all of a user's go over the same connection, so that their order
/// is known. Secrets are read from HOOKMILL_SECRET_<SOURCE>.
#[derive(Clone, Debug, clap::Args)]
pub struct SendArgs {
    /// Where to; several instances with commas between share the connections, and stand in for each other.
    #[arg(
        long,
        env = "HOOKMILL_URL",
        default_value = "http://127.0.0.1:8080",
        value_delimiter = ','
    )]
    pub url: Vec<String>,
    /// Which sources; all shipped ones unless said.
    #[arg(long, value_delimiter = ',')]
    pub source: Vec<String>,
    /// How many webhooks of each source, not counting what is sent twice.
    #[arg(long, default_value_t = 100)]
    pub count: u64,
    /// Webhooks a second in all; 0 for as fast as they are taken.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Connections that send at once.
    #[arg(long, default_value_t = 8)]
    pub connections: usize,
    /// Users of the source "standard" for each connection; with the other sources every order is a key of its own.
    #[arg(long, default_value_t = 20)]
    pub users: u64,
    /// Share of entities that are disputes, in percent.
    #[arg(long, default_value_t = 10)]
    pub disputes: u8,
    /// Share of webhooks that are sent again though acknowledged, in percent.
    #[arg(long, default_value_t = 0)]
    pub duplicates: u8,
    /// How many of all shall be verified and mapped, but never be writable: they must end in the dead letters.
    #[arg(long, default_value_t = 0)]
    pub poison: u64,
    /// The same seed and run id make the same webhooks.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Part of all ids, so that runs do not meet; random unless said.
    #[arg(long)]
    pub run_id: Option<String>,
    /// Give a webhook up after so many seconds without an acknowledgement.
    #[arg(long, default_value_t = 300)]
    pub retry_for: u64,
    /// Write what was acknowledged here, as JSON lines.
    #[arg(long)]
    pub acked: Option<PathBuf>,
    /// The URL that Square signs; as in config.toml.
    #[arg(long, default_value = "https://hooks.example.com/webhooks/square")]
    pub square_url: String,
    /// Say nothing but the summary.
    #[arg(long)]
    pub quiet: bool,
}

impl Default for SendArgs {
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: SendArgs,
        }
        <Line as clap::Parser>::parse_from(["send"]).args
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Summary {
    /// Different webhooks that were acknowledged.
    pub acked: u64,
    /// Requests sent in all.
    pub requests: u64,
    /// Requests that had to be sent again.
    pub retried: u64,
    /// Requests that were sent again though acknowledged.
    pub duplicates: u64,
    /// Webhooks answered with a 4xx that sending again would not mend.
    pub refused: u64,
    /// Webhooks given up.
    pub given_up: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Time to a 202, in ms.
    pub p50_ms: f64,
    /// The same, of the slowest hundredth.
    pub p99_ms: f64,
}

/// Runs the command. Fails if a webhook was refused or given up.
pub async fn run(args: SendArgs) -> Result<()> {
    let mut file = match &args.acked {
        Some(path) => Some(std::io::BufWriter::new(
            std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => None,
    };
    let (ledger, mut acks) = mpsc::unbounded_channel::<Acked>();
    let writer = tokio::spawn(async move {
        while let Some(acked) = acks.recv().await {
            if let Some(file) = &mut file {
                serde_json::to_writer(&mut *file, &acked)?;
                file.write_all(b"\n")?;
            }
        }
        file.as_mut().map_or(Ok(()), std::io::Write::flush)
    });
    let quiet = args.quiet;
    let secrets = secrets_from_env(&args)?;
    let summary = send_all(&args, secrets, ledger).await?;
    writer.await??;
    if quiet {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        println!(
            "{} acknowledged in {:.1} s ({:.0}/s, p50 {:.1} ms, p99 {:.1} ms); {} sent again, {} doubled, {} refused, {} given up",
            summary.acked,
            summary.seconds,
            summary.acked as f64 / summary.seconds.max(0.001),
            summary.p50_ms,
            summary.p99_ms,
            summary.retried,
            summary.duplicates,
            summary.refused,
            summary.given_up
        );
    }
    if summary.refused + summary.given_up > 0 {
        bail!(
            "{} webhooks were refused and {} given up: see the lines above and the server's log",
            summary.refused,
            summary.given_up
        );
    }
    Ok(())
}

#[derive(Default)]
struct Counters {
    acked: AtomicU64,
    requests: AtomicU64,
    retried: AtomicU64,
    duplicates: AtomicU64,
    refused: AtomicU64,
    given_up: AtomicU64,
}

struct Shared {
    urls: Vec<String>,
    secrets: Secrets,
    square_url: String,
    retry_for: Duration,
    counters: Counters,
    ledger: mpsc::UnboundedSender<Acked>,
    quiet: bool,
}

/// A source and the secret its webhooks are signed with.
pub type Secrets = Vec<(String, String)>;

/// The secrets of the sources, from HOOKMILL_SECRET_<SOURCE>.
pub fn secrets_from_env(args: &SendArgs) -> Result<Secrets> {
    let secret = |source: &&'static str| {
        let name = format!("HOOKMILL_SECRET_{}", source.to_uppercase());
        let value = std::env::var(&name)
            .with_context(|| format!("{name} is not set: load the env file of the running product first"))?;
        Ok(((*source).to_owned(), value))
    };
    sources(args)?.iter().map(secret).collect()
}

fn sources(args: &SendArgs) -> Result<Vec<&'static str>> {
    Ok(match args.source.as_slice() {
        [] => SOURCES.to_vec(),
        wanted => wanted
            .iter()
            .map(|name| {
                SOURCES
                    .iter()
                    .copied()
                    .find(|s| s == name)
                    .with_context(|| format!("no source {name:?}: there are {}", SOURCES.join(", ")))
            })
            .collect::<Result<_>>()?,
    })
}

/// Sends everything that `args` ask for and tells `ledger` of each acknowledgement, in the order of a user's events.
pub async fn send_all(args: &SendArgs, secrets: Secrets, ledger: mpsc::UnboundedSender<Acked>) -> Result<Summary> {
    let sources = sources(args)?;
    let shared = Arc::new(Shared {
        urls: args.url.clone(),
        secrets,
        square_url: args.square_url.clone(),
        retry_for: Duration::from_secs(args.retry_for),
        counters: Counters::default(),
        ledger,
        quiet: args.quiet,
    });
    let run_id = args
        .run_id
        .clone()
        .unwrap_or_else(|| format!("{:06x}", rand::random::<u32>() & 0xff_ffff));
    let total = args.count * sources.len() as u64;
    let connections = u64::try_from(args.connections.max(1))?.min(total.max(1));
    let started = Instant::now();
    let progress = (!args.quiet).then(|| tokio::spawn(report(shared.clone(), total, started)));
    let share = |of: u64, i: u64| of / connections + u64::from(i < of % connections);
    let mut workers = Vec::new();
    for i in 0..connections {
        let generator = Generator::new(GeneratorSettings {
            sources: sources.clone(),
            worker: i,
            users: args.users.max(1),
            disputes_percent: args.disputes,
            old_one_in: 0,
            poison: share(args.poison, i),
            count: share(total, i),
            seed: args.seed,
            run_id: run_id.clone(),
        });
        let pace = (args.rate > 0).then(|| Duration::from_secs_f64(connections as f64 / args.rate as f64));
        let rng = SmallRng::seed_from_u64(args.seed ^ (i << 32));
        workers.push(tokio::spawn(worker(
            shared.clone(),
            generator,
            usize::try_from(i)?,
            pace,
            u32::from(args.duplicates),
            rng,
        )));
    }
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await??);
    }
    if let Some(progress) = progress {
        progress.abort();
    }
    latencies.sort_unstable();
    let percentile = |p: usize| {
        latencies
            .get(latencies.len().saturating_sub(1) * p / 100)
            .map_or(0.0, |d: &Duration| d.as_secs_f64() * 1e3)
    };
    let c = &shared.counters;
    Ok(Summary {
        acked: c.acked.load(Relaxed),
        requests: c.requests.load(Relaxed),
        retried: c.retried.load(Relaxed),
        duplicates: c.duplicates.load(Relaxed),
        refused: c.refused.load(Relaxed),
        given_up: c.given_up.load(Relaxed),
        seconds: started.elapsed().as_secs_f64(),
        p50_ms: percentile(50),
        p99_ms: percentile(99),
    })
}

async fn report(shared: Arc<Shared>, total: u64, started: Instant) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    loop {
        tick.tick().await;
        let c = &shared.counters;
        let acked = c.acked.load(Relaxed);
        let (retried, refused) = (c.retried.load(Relaxed), c.refused.load(Relaxed));
        eprintln!(
            "{acked}/{total} acknowledged, {:.0}/s, {retried} sent again, {refused} refused",
            acked as f64 / started.elapsed().as_secs_f64()
        );
    }
}

async fn worker(
    shared: Arc<Shared>,
    generator: Generator,
    first_url: usize,
    pace: Option<Duration>,
    duplicates: u32,
    mut rng: SmallRng,
) -> Result<Vec<Duration>> {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .pool_max_idle_per_host(1)
        .tcp_nodelay(true)
        .build()?;
    let mut sender = Sender {
        shared: shared.clone(),
        client,
        url: first_url,
    };
    let mut latencies = Vec::new();
    let mut again: Vec<Webhook> = Vec::new();
    let mut due = Instant::now();
    for webhook in generator {
        if let Some(pace) = pace {
            tokio::time::sleep_until(due.into()).await;
            due += pace;
        }
        if let Some((took, code)) = sender.deliver(&webhook, &mut rng).await? {
            latencies.push(took);
            shared.counters.acked.fetch_add(1, Relaxed);
            // The receiver lives as long as somebody wants to know.
            let _ = shared.ledger.send(webhook.expect.acked(code));
            if rng.random_ratio(duplicates.min(100), 100) {
                again.push(webhook);
            }
        }
        // What is sent twice comes again at once, or much later.
        if !again.is_empty() && rng.random_ratio(1, 4) {
            let webhook = again.swap_remove(rng.random_range(0..again.len()));
            shared.counters.duplicates.fetch_add(1, Relaxed);
            sender.deliver(&webhook, &mut rng).await?;
        }
    }
    for webhook in again {
        shared.counters.duplicates.fetch_add(1, Relaxed);
        sender.deliver(&webhook, &mut rng).await?;
    }
    Ok(latencies)
}

/// One connection: posts to one instance until that fails, then to the next.
struct Sender {
    shared: Arc<Shared>,
    client: reqwest::Client,
    url: usize,
}

impl Sender {
    /// Posts a webhook until it is acknowledged, refused or given up. The signature is made anew for every attempt.
    async fn deliver(&mut self, webhook: &Webhook, rng: &mut SmallRng) -> Result<Option<(Duration, u16)>> {
        let shared = self.shared.clone();
        let secret = shared
            .secrets
            .iter()
            .find(|(name, _)| *name == webhook.source)
            .map(|(_, s)| s.as_str())
            .unwrap_or_default();
        let started = Instant::now();
        let mut wait = Duration::from_millis(50);
        loop {
            let mut request = self.client.post(format!(
                "{}/webhooks/{}",
                shared.urls[self.url % shared.urls.len()],
                webhook.source
            ));
            for (name, value) in sign(webhook, secret, &shared.square_url, chrono::Utc::now())? {
                request = request.header(name, value);
            }
            shared.counters.requests.fetch_add(1, Relaxed);
            let asked = Instant::now();
            let response = request
                .header("content-type", "application/json")
                .body(webhook.body.clone())
                .send()
                .await;
            let mut patience = None;
            match response {
                Ok(response) => {
                    let status = response.status().as_u16();
                    patience = response
                        .headers()
                        .get("retry-after")
                        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok())
                        .map(Duration::from_secs);
                    // Read to its end, so that the connection can be used again.
                    let text = response.text().await.unwrap_or_default();
                    match status {
                        200..300 => return Ok(Some((asked.elapsed(), status))),
                        408 | 429 | 500.. => {}
                        _ => {
                            shared.counters.refused.fetch_add(1, Relaxed);
                            if !shared.quiet {
                                eprintln!("{} {}: {status} {text}", webhook.source, webhook.expect.event_id);
                            }
                            return Ok(None);
                        }
                    }
                }
                // Another instance may answer.
                Err(_) => self.url += 1,
            }
            if started.elapsed() > shared.retry_for {
                shared.counters.given_up.fetch_add(1, Relaxed);
                return Ok(None);
            }
            shared.counters.retried.fetch_add(1, Relaxed);
            let pause = patience.map_or(wait, |p| p.min(Duration::from_secs(5)));
            tokio::time::sleep(pause.mul_f64(rng.random_range(0.5..1.0))).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }
}

#[cfg(test)]
mod tests;
