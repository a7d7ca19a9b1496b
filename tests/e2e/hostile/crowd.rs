//! Hostile connections, opened from addresses of their own, and what can be seen of a process from outside.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use chrono::Utc;
use dev::process::Process;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Instance, signed};
use crate::refusals::wire::{good_order, head};

/// Where an instance listens.
pub fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address")
}

/// Opens a connection as the `i`th of many clients, of which a thousand share an address (on Linux all of 127/8 is this
/// machine's).
pub async fn connect(i: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
    let from = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + i / 1000).expect("not so many"));
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Opens `n` connections and sends `bytes` over each.
pub async fn crowd(n: usize, instance: &Instance, bytes: &[u8]) -> Vec<TcpStream> {
    let to = address(&instance.url);
    let mut all = Vec::with_capacity(n);
    for i in 0..n {
        let mut stream = connect(i, to).await.expect("the server takes connections");
        // It may be closed already.
        let _ = stream.write_all(bytes).await;
        all.push(stream);
    }
    all
}

/// This process needs a file for each connection, too.
pub fn allow_files(n: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    assert!(
        hard >= n,
        "this needs {n} open files and the system allows {hard}: raise the limit (ulimit -Hn)"
    );
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
}

/// Open files of a process.
pub fn files(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.pid()))
        .expect("it runs")
        .count()
}

/// Resident memory of a process, in MiB.
pub fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    kib / 1024
}

/// A whole request that is as it should be, with this id.
pub fn good_request(id: &str) -> Vec<u8> {
    let body = good_order();
    let head = head(
        "POST",
        "/webhooks/standard",
        &signed("standard", body.as_bytes(), id, Utc::now()),
    );
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Reads until the server closes; `None` if it does not within `patience`.
pub async fn read_to_end(stream: &mut TcpStream, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    let mut all = Vec::new();
    let mut some = [0; 16384];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, stream.read(&mut some)).await {
            Err(_) => return None,
            Ok(Ok(0) | Err(_)) => return Some(String::from_utf8_lossy(&all).into_owned()),
            Ok(Ok(n)) => all.extend_from_slice(&some[..n]),
        }
    }
}

/// The status codes in what was read.
pub fn statuses(answers: &str) -> Vec<u16> {
    let lines = answers.lines().filter_map(|line| line.split_once("HTTP/1.1 "));
    lines.filter_map(|(_, rest)| rest.get(..3)?.parse().ok()).collect()
}
