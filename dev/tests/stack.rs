//! The stack itself: servers start, break and come back with their data, and none outlives its parent.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dev::stack::{Options, Stack};

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("the target directory can be written");
    dir
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds().await {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_break_and_come_back_with_their_data() {
    let options = Options {
        brokers: 1,
        shards: 2,
        dir: Some(scratch("breaks")),
        ..Options::default()
    };
    let stack = Stack::start(options).await.expect("it starts");
    let urls = stack.create_databases("kept").await.expect("databases");
    assert_eq!(urls.len(), 2);
    let shard = stack.shard(1);
    shard
        .execute("kept", "CREATE TABLE t AS SELECT 7::bigint AS n")
        .await
        .expect("a table");

    shard.process().kill();
    assert!(!shard.process().is_running());
    assert!(shard.connect("kept").await.is_err(), "it is gone");
    assert_eq!(
        stack
            .shard(0)
            .query_one("kept", "SELECT 1::bigint")
            .await
            .expect("the other is not"),
        1
    );
    shard.restart().await.expect("it comes back");
    assert_eq!(shard.query_one("kept", "SELECT n FROM t").await.expect("its data"), 7);

    shard.process().freeze();
    let asked = tokio::time::timeout(Duration::from_millis(500), shard.query_one("kept", "SELECT n FROM t"));
    assert!(asked.await.is_err(), "a frozen server does not answer");
    shard.process().thaw();
    assert_eq!(shard.query_one("kept", "SELECT n FROM t").await.expect("it goes on"), 7);

    let status = shard.process().stop(Duration::from_secs(20)).await.expect("it stops");
    assert!(status.success(), "{status}");
    shard.restart().await.expect("it comes back");

    let (client, connection) = tokio_postgres::connect(&shard.proxied_url_of(0, "kept"), tokio_postgres::NoTls)
        .await
        .expect("by way of the proxy");
    let connection = tokio::spawn(connection);
    client.simple_query("SELECT 1").await.expect("it passes");
    shard.proxy().cut();
    assert!(connection.await.expect("no panic").is_err(), "the connection broke");
    assert!(
        shard.query_one("kept", "SELECT n FROM t").await.is_ok(),
        "beside the proxy nothing is cut"
    );

    let broker = stack.kafka(0);
    broker.process().kill();
    assert!(tokio::net::TcpStream::connect(broker.address()).await.is_err());
    broker.restart().await.expect("it comes back");
    let pids: Vec<u32> = stack.processes().iter().map(|p| p.pid()).collect();
    drop(stack);
    for pid in pids {
        assert!(
            !Path::new("/proc").join(pid.to_string()).exists(),
            "{pid} was left behind"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_outlives_a_killed_parent() {
    let dir = scratch("orphans");
    let log = std::fs::File::create(dir.join("log")).expect("a log");
    let mut runner = Command::new(env!("CARGO_BIN_EXE_dev"))
        .args(["run", "--servers-only", "--shards", "1", "--dir"])
        .arg(&dir)
        .stdout(log.try_clone().expect("a log"))
        .stderr(Stdio::from(log))
        .spawn()
        .expect("it starts");
    until("it runs", async || dir.join("ready").exists()).await;
    let text = std::fs::read_to_string(dir.join("pids")).expect("pids");
    let pids: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| Some(Path::new("/proc").join(line.split_once(' ')?.1)))
        .collect();
    assert_eq!(pids.len(), 2, "{text}");
    assert!(pids.iter().all(|pid| pid.exists()), "{text}");
    runner.kill().expect("SIGKILL");
    runner.wait().expect("it is gone");
    until("its servers are gone too", async || {
        pids.iter().all(|pid| !pid.exists())
    })
    .await;
}
