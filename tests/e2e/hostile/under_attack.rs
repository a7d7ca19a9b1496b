//! Honest clients while others attack: every webhook is taken, the slowest hundredth waits at most twice as long as in calm
//! (or [`FLOOR`], as a busy machine is no attack), and the instance's files and memory are bounded.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::Utc;
use rand::RngCore as _;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::crowd::{address, allow_files, connect, crowd, files, memory};
use crate::harness::{Instance, World, heavy, shared_stack, signed, until};
use crate::refusals::wire::good_order;

/// A p99 below this is no complaint: an attack that starves honest clients costs them seconds.
const FLOOR: Duration = Duration::from_millis(250);
/// How long each attack is watched.
const WATCH: Duration = Duration::from_secs(3);
/// How often, as long as it waits longer than twice: a machine that was busy for a moment is not for all that time.
const LOOKS: usize = 4;
/// Honest clients, each with a connection, and a webhook every so often.
const HONEST: (usize, Duration) = (4, Duration::from_millis(40));
/// What the instance may have more in memory at the worst, in MiB.
const MEMORY: u64 = 700;

/// Honest clients at work.
struct Honest {
    times: Arc<Mutex<Vec<(Instant, Duration)>>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Honest {
    fn start(instance: &Instance) -> Self {
        let (times, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        for client in 0..HONEST.0 {
            let (times, stop, url) = (
                times.clone(),
                stop.clone(),
                format!("{}/webhooks/standard", instance.url),
            );
            tasks.spawn(async move {
                let http = reqwest::Client::new();
                for i in 0.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    let body = good_order();
                    let mut request = http.post(&url).header("content-type", "application/json");
                    for (name, value) in
                        signed("standard", body.as_bytes(), &format!("honest-{client}-{i}"), Utc::now())
                    {
                        request = request.header(name, value);
                    }
                    let begun = Instant::now();
                    let answer = request.body(body).send().await.expect("an answer");
                    assert_eq!(answer.status().as_u16(), 202, "an honest webhook");
                    times.lock().expect("not poisoned").push((begun, begun.elapsed()));
                    tokio::time::sleep(HONEST.1).await;
                }
            });
        }
        Self { times, stop, tasks }
    }

    /// The p99 over the next [`WATCH`].
    async fn watched(&self) -> Duration {
        let begun = Instant::now();
        tokio::time::sleep(WATCH).await;
        let times = self.times.lock().expect("not poisoned");
        let mut times: Vec<Duration> = times
            .iter()
            .filter(|(at, _)| *at > begun)
            .map(|(_, took)| *took)
            .collect();
        assert!(
            times.len() > 50,
            "honest clients hardly got through: {} webhooks",
            times.len()
        );
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }

    async fn finish(mut self) -> usize {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no honest client failed");
        }
        self.times.lock().expect("not poisoned").len()
    }
}

/// Connections that send `drip` over each again and again.
async fn dripping(n: usize, instance: &Instance, first: &[u8], drip: &'static [u8]) -> JoinSet<()> {
    let mut streams = crowd(n, instance, first).await;
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            for stream in &mut streams {
                // Those that were closed stay closed.
                let _ = stream.try_write(drip);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    task
}

/// Clients who open a connection, do `what` over it, and begin again; each pauses in between, so that it is what they send
/// that counts, and not how fast this machine makes connections.
fn again_and_again<F>(
    n: usize,
    instance: &Instance,
    what: impl Fn(TcpStream) -> F + Clone + Send + 'static,
) -> JoinSet<()>
where
    F: Future<Output = ()> + Send,
{
    let to = address(&instance.url);
    let mut tasks = JoinSet::new();
    for i in 0..n {
        let what = what.clone();
        tasks.spawn(async move {
            loop {
                if let Ok(stream) = connect(i, to).await {
                    what(stream).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    tasks
}

async fn garbage(mut stream: TcpStream) {
    let mut bytes = vec![0; 20_000];
    rand::rng().fill_bytes(&mut bytes);
    let good = b"GET /nobody HTTP/1.1\r\nhost: h\r\n\r\n".repeat(20);
    let _ = stream.write_all(&[&good, bytes.as_slice()].concat()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn large_head(mut stream: TcpStream) {
    let head = format!(
        "POST /webhooks/standard HTTP/1.1\r\nhost: h\r\n{}",
        "x-flood: 0123456789\r\n".repeat(6000)
    );
    let _ = stream.write_all(head.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn packed(mut stream: TcpStream) {
    let head =
        "POST /webhooks/standard HTTP/1.1\r\nhost: h\r\ncontent-encoding: gzip\r\ncontent-length: 500000\r\n\r\n";
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&vec![0x1f; 500_000]).await;
}

async fn half_closed(mut stream: TcpStream) {
    let _ = stream
        .write_all(b"POST /webhooks/standard HTTP/1.1\r\nhost: h\r\n")
        .await;
    let _ = stream.shutdown().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[test]
fn honest_clients_hardly_notice() {
    heavy(async {
        // Ten thousand connections here, and some for everything else.
        allow_files(12_000);
        let world = World::new(&shared_stack().await, "under_attack")
            .await
            .set("HOOKMILL_INGEST__HEAD_TIMEOUT", "60s")
            .set("HOOKMILL_INGEST__BODY_TIMEOUT", "60s")
            .set("HOOKMILL_INGEST__WORKERS", "2");
        let instance = world.start("only").await;
        let honest = Honest::start(&instance);
        // Connections, caches and code are warm after a while.
        honest.watched().await;
        let (files_before, memory_before) = (files(&instance.process), memory(&instance.process));
        let calm = honest.watched().await;
        let allowed = (2 * calm).max(FLOOR);
        println!("calm: p99 {calm:?}; {files_before} files, {memory_before} MiB");
        let watch = async |what: &str, connections: usize, attack: JoinSet<()>| {
            let mut p99 = Duration::MAX;
            for _ in 0..LOOKS {
                p99 = p99.min(honest.watched().await);
                let (files, memory) = (files(&instance.process), memory(&instance.process));
                println!("{what}: p99 {p99:?}; {files} files, {memory} MiB");
                assert!(
                    files > connections,
                    "{what}: the attack is over already, there are {files} files"
                );
                assert!(files < 16384 + 1024, "{what}: {files} files");
                assert!(
                    memory < memory_before + MEMORY,
                    "{what}: {memory} MiB, {memory_before} before"
                );
                if p99 <= 2 * calm {
                    break;
                }
            }
            assert!(
                p99 <= allowed,
                "{what}: the slowest hundredth waited {p99:?}, in calm {calm:?}"
            );
            drop(attack);
        };
        let slow_body = b"POST /webhooks/standard HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n";
        watch(
            "10,000 that say nothing",
            10_000,
            dripping(10_000, &instance, b"", b"").await,
        )
        .await;
        watch(
            "3,000 heads byte by byte",
            3_000,
            dripping(3_000, &instance, b"GET /", b"a").await,
        )
        .await;
        // More than may be under way at once.
        watch(
            "3,000 bodies byte by byte",
            3_000,
            dripping(3_000, &instance, slow_body, b"a").await,
        )
        .await;
        watch("large heads", 0, again_and_again(40, &instance, large_head)).await;
        watch("packed bodies", 0, again_and_again(20, &instance, packed)).await;
        watch("garbage behind requests", 0, again_and_again(40, &instance, garbage)).await;
        watch("half-closed", 0, again_and_again(200, &instance, half_closed)).await;
        until("the attackers' files are closed", Duration::from_secs(30), async || {
            files(&instance.process) <= files_before + 20
        })
        .await;
        let sent = honest.finish().await;
        // One body for all, so one order; but every webhook is an event of its own.
        world.landed(Duration::from_secs(60)).await;
        let landed = world
            .events()
            .await
            .iter()
            .filter(|e| e.event_id.starts_with("honest-"))
            .count();
        assert_eq!(landed, sent);
        instance.stop().await;
        let log = instance.log();
        assert!(!log.contains("ERROR"), "{log}");
    });
}
