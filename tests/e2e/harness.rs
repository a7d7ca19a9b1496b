//! What the scenarios share: one stack for all that break no server, a world of its own (topics, databases, groups) for
//! each, instances of the product as processes, and the reckoning of what was acknowledged against what is in the tables.

mod instance;
mod sending;
mod tables;
mod topics;
mod world;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use dev::send::{Secrets, SendArgs, sign_body};
use dev::stack::{Options, Stack};
use tokio::sync::{OnceCell, RwLock};

pub use instance::Instance;
pub use sending::Sending;
pub use topics::RawRecord;
pub use world::World;

/// Servers and proxies outlive a single test, so all run on one runtime.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Scenarios that load the machine run alone; the others beside each other.
static LOAD: RwLock<()> = RwLock::const_new(());

/// Runs a scenario beside others.
pub fn light(scenario: impl Future<Output = ()>) {
    RUNTIME.block_on(async {
        let _turn = LOAD.read().await;
        scenario.await;
    });
}

/// Runs a scenario alone.
pub fn heavy(scenario: impl Future<Output = ()>) {
    RUNTIME.block_on(async {
        let _turn = LOAD.write().await;
        scenario.await;
    });
}

/// A folder for this run, beside what else the build makes. What former runs left is removed.
pub fn scratch() -> PathBuf {
    static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for entry in std::fs::read_dir(home).expect("cargo made it").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let alive = name
                .strip_prefix("e2e-")
                .is_none_or(|pid| Path::new("/proc").join(pid).exists());
            if !alive {
                // Another run may be at it too.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let dir = home.join(format!("e2e-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the target directory can be written");
        dir
    });
    SCRATCH.clone()
}

/// The stack that is shared by all who break no server. It ends with this process.
pub async fn shared_stack() -> Arc<Stack> {
    static STACK: OnceCell<Arc<Stack>> = OnceCell::const_new();
    STACK
        .get_or_init(|| async {
            let options = Options {
                brokers: 1,
                shards: 2,
                dir: Some(scratch().join("stack")),
                ..Options::default()
            };
            Arc::new(Stack::start(options).await.expect("the stack starts"))
        })
        .await
        .clone()
}

/// A stack to break.
pub async fn own_stack(name: &str, brokers: usize, shards: usize) -> Arc<Stack> {
    let options = Options {
        brokers,
        shards,
        dir: Some(scratch().join(name)),
        ..Options::default()
    };
    Arc::new(Stack::start(options).await.expect("the stack starts"))
}

/// The secrets of the shipped sources, in every world the same.
pub fn secrets() -> Secrets {
    [
        ("stripe", "whsec_test_stripe"),
        ("shopify", "shopify-secret"),
        ("square", "square-secret"),
        ("razorpay", "razorpay-secret"),
        ("standard", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
    ]
    .map(|(source, secret)| (source.to_owned(), secret.to_owned()))
    .to_vec()
}

/// Waits until `holds` is true.
pub async fn until(what: &str, patience: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds().await {
        assert!(
            Instant::now() < deadline,
            "after {} s still not: {what}",
            patience.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The providers' samples, which stand beside the repository; a missing folder is a failure.
pub fn samples() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/providers/samples");
    let folder = std::env::var_os("HOOKMILL_PROVIDER_SAMPLES").map_or(beside, PathBuf::from);
    assert!(
        folder.is_dir(),
        "the providers' samples are not at {}: set HOOKMILL_PROVIDER_SAMPLES",
        folder.display()
    );
    folder
}

/// The headers with which a shipped source signs `body` at `at`; `id` counts where the scheme signs one.
pub fn signed(source: &str, body: &[u8], id: &str, at: DateTime<Utc>) -> Vec<(String, String)> {
    let secret = secrets()
        .into_iter()
        .find(|(name, _)| name == source)
        .expect("a shipped source")
        .1;
    let url = SendArgs::default().square_url;
    let headers = sign_body(source, body, id, &secret, &url, at).expect("it signs");
    headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
