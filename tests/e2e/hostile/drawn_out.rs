//! Whatever a client draws out ends, and one peer cannot have all connections.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::crowd::{address, connect, files, good_request, read_to_end, statuses};
use crate::harness::{Instance, World, light, shared_stack, until};

/// Sends `drip` again and again, with a pause; how long the server put up with it.
async fn drips(mut stream: TcpStream, drip: &[u8], pause: Duration) -> Duration {
    let begun = Instant::now();
    let mut some = [0; 4096];
    while begun.elapsed() < Duration::from_secs(40) {
        if stream.write_all(drip).await.is_err() {
            return begun.elapsed();
        }
        match tokio::time::timeout(pause, stream.read(&mut some)).await {
            Ok(Ok(0) | Err(_)) => return begun.elapsed(),
            Ok(Ok(_)) => tokio::time::sleep(pause).await,
            Err(_) => {}
        }
    }
    panic!("the server puts up with {:?} for ever", String::from_utf8_lossy(drip))
}

async fn opened(instance: &Instance, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(0, address(&instance.url)).await.expect("it listens");
    stream.write_all(bytes).await.expect("sent");
    stream
}

/// Sends requests and reads no answer; how long the server put up with it.
async fn never_reads(instance: &Instance) -> Duration {
    let stream = connect(0, address(&instance.url)).await.expect("it listens");
    let begun = Instant::now();
    let request = b"GET /nobody HTTP/1.1\r\nhost: h\r\n\r\n".repeat(100);
    loop {
        assert!(begun.elapsed() < Duration::from_secs(40), "it is never closed");
        if stream.writable().await.is_err() {
            return begun.elapsed();
        }
        match stream.try_write(&request) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return begun.elapsed(),
            Ok(_) => continue,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Both directions are full; that it was closed shows as an error that waits.
        if stream.take_error().is_ok_and(|error| error.is_some()) {
            return begun.elapsed();
        }
    }
}

#[test]
fn slow_clients_are_let_go() {
    light(async {
        let world = World::new(&shared_stack().await, "drawn_out")
            .await
            .set("HOOKMILL_INGEST__HEAD_TIMEOUT", "1s")
            .set("HOOKMILL_INGEST__BODY_TIMEOUT", "1s")
            .set("HOOKMILL_INGEST__KEEP_ALIVE", "1s")
            .set("HOOKMILL_INGEST__DEADLINE", "2s");
        let instance = world.start("only").await;
        // Its own connections, to Kafka and the shards, are there.
        instance.runs(36, Duration::from_secs(60)).await;
        let before = files(&instance.process);
        let pause = Duration::from_millis(200);
        let begin = "POST /webhooks/standard HTTP/1.1\r\nhost: h\r\n";
        let nobody = "GET /nobody HTTP/1.1\r\nhost: h\r\n\r\n";
        let by_length = format!("{begin}content-length: 1000\r\n\r\n");
        let by_chunks = format!("{begin}transfer-encoding: chunked\r\n\r\n");
        let refused_chunks = by_chunks.replace("standard", "nobody");
        let second_head = format!("{nobody}GET /");
        // The sum of all that an honest request may take; and what is not waited for so long.
        let (longest, soon) = (Duration::from_secs(5), Duration::from_secs(2));
        let cases: Vec<(&str, &str, &[u8], Duration)> = vec![
            ("says nothing", "", b"", soon),
            ("half a head", "GET / HTT", b"", soon),
            ("a head byte by byte", "GET /", b"a", soon),
            ("a head line by line", begin, b"x: y\r\n", soon),
            ("nothing after an answer", nobody, b"", soon),
            // The one that the HTTP library does not time.
            ("a second head byte by byte", &second_head, b"a", longest),
            ("line breaks after an answer", nobody, b"\r\n", longest),
            ("a body byte by byte", &by_length, b"a", longest),
            ("chunks byte by byte", &by_chunks, b"1\r\na\r\n", longest),
            ("chunks that nobody wants", &refused_chunks, b"1\r\na\r\n", longest),
        ];
        let waits = cases.into_iter().map(|(what, first, drip, limit)| {
            let instance = &instance;
            async move {
                let took = drips(opened(instance, first.as_bytes()).await, drip, pause).await;
                // A second of patience with the machine, and one in which a connection says good-bye.
                assert!(took < limit + Duration::from_secs(3), "{what}: {took:?}");
            }
        });
        let unread = async {
            let took = never_reads(&instance).await;
            assert!(
                took < longest + Duration::from_secs(8),
                "answers that are not read: {took:?}"
            );
        };
        // The operators' listener has no use for bodies, and five seconds for everything.
        let admin = async {
            let mut stream = connect(0, address(&instance.admin)).await.expect("it listens");
            let request = "GET /health/live HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(request.as_bytes()).await.expect("sent");
            let took = drips(stream, b"1\r\na\r\n", pause).await;
            assert!(
                took < Duration::from_secs(20),
                "a body for the operators' listener: {took:?}"
            );
        };
        tokio::join!(futures_util::future::join_all(waits), unread, admin);
        until("all connections are closed", Duration::from_secs(10), async || {
            let open = instance.actor(&["ingest", "server"]).await["connections"].clone();
            open == 0 && files(&instance.process) <= before + 10
        })
        .await;

        // Half-closed: what was asked whole is answered, and the rest is let go at once.
        let mut whole = opened(&instance, &good_request("half-closed")).await;
        whole.shutdown().await.expect("half closed");
        let answer = read_to_end(&mut whole, Duration::from_secs(5)).await.expect("closed");
        assert_eq!(statuses(&answer), [202], "{answer}");
        for part in ["", "GET / HTT", &by_length] {
            let mut stream = opened(&instance, part.as_bytes()).await;
            stream.shutdown().await.expect("half closed");
            let answer = read_to_end(&mut stream, Duration::from_secs(3)).await;
            let answer = answer.unwrap_or_else(|| panic!("{part:?} stays open"));
            assert!(
                statuses(&answer).iter().all(|status| *status >= 400),
                "{part:?}: {answer}"
            );
        }
        instance.stop().await;
    });
}

#[test]
fn large_heads_and_packed_bodies() {
    light(async {
        let instance = World::new(&shared_stack().await, "large_heads")
            .await
            .start("only")
            .await;
        let begin = "POST /webhooks/standard HTTP/1.1\r\nhost: h\r\n";
        let lines = |n: usize, value: &str| (0..n).map(|i| format!("x-{i}: {value}\r\n")).collect::<String>();
        // Fits, with room; one line too many; one line that is all too long; a path likewise.
        let fits = format!("{begin}{}content-length: 0\r\n\r\n", lines(80, &"v".repeat(100)));
        let mut stream = opened(&instance, fits.as_bytes()).await;
        let answer = read_to_end(&mut stream, Duration::from_secs(15))
            .await
            .expect("closed when idle");
        assert_eq!(statuses(&answer), [401], "{answer}");
        for (what, head) in [
            ("many lines", format!("{begin}{}\r\n", lines(120, "v"))),
            ("a long line", format!("{begin}x: {}\r\n\r\n", "v".repeat(100_000))),
            ("no end", format!("{begin}{}", lines(5000, "v"))),
            ("a long path", format!("POST /{} HTTP/1.1\r\n", "p".repeat(60_000))),
        ] {
            let mut stream = connect(0, address(&instance.url)).await.expect("it listens");
            // The server may close before all of it is sent.
            let _ = stream.write_all(head.as_bytes()).await;
            let answer = read_to_end(&mut stream, Duration::from_secs(3)).await;
            let answer = answer.unwrap_or_else(|| panic!("{what}: stays open"));
            // A close with bytes still unread can overtake the answer.
            assert!(answer.is_empty() || statuses(&answer) == [431], "{what}: {answer}");
        }

        // Packed bodies are refused by their head, unread; what is packed and does not say so is no JSON.
        let bomb = std::process::Command::new("sh")
            .args(["-c", "head -c 100000000 /dev/zero | gzip -9"])
            .output()
            .expect("gzip is there")
            .stdout;
        assert!((50_000..1_000_000).contains(&bomb.len()), "{}", bomb.len());
        let headers = crate::harness::signed("standard", &bomb, "bomb", chrono::Utc::now());
        let memory = super::crowd::memory(&instance.process);
        let packed = |coding: &str| {
            let mut all = headers.clone();
            all.push(("content-encoding".to_owned(), coding.to_owned()));
            all
        };
        for coding in ["gzip", "GZIP", "br", "zstd", "deflate", "gzip, gzip", "identity, gzip"] {
            let answer = instance.post("/webhooks/standard", &packed(coding), &bomb).await;
            assert_eq!(answer.status().as_u16(), 415, "{coding}");
            assert_eq!(answer.headers()["accept-encoding"], "identity", "{coding}");
            let problem: serde_json::Value = answer.json().await.expect("a problem");
            assert_eq!(problem["type"], "urn:hookmill:problem:unsupported-content-encoding");
        }
        let answer = instance.post("/webhooks/standard", &headers, &bomb).await;
        assert_eq!(
            answer.status().as_u16(),
            400,
            "a signed bomb that does not say that it is packed"
        );
        let grown = super::crowd::memory(&instance.process).saturating_sub(memory);
        assert!(grown < 50, "nothing is unpacked, and {grown} MiB more are used");
        instance.stop().await;
    });
}

#[test]
fn one_peer_has_its_fill() {
    light(async {
        let world = World::new(&shared_stack().await, "one_peer")
            .await
            .set("HOOKMILL_INGEST__MAX_CONNECTIONS_PER_PEER", "20");
        let instance = world.start("only").await;
        let nobody = b"GET /nobody HTTP/1.1\r\nhost: h\r\n\r\n";
        let mut taken = Vec::new();
        let mut refused = 0;
        for _ in 0..30 {
            let mut stream = connect(0, address(&instance.url)).await.expect("the kernel takes it");
            let mut some = [0; 512];
            let _ = stream.write_all(nobody).await;
            match stream.read(&mut some).await {
                Ok(0) | Err(_) => refused += 1,
                Ok(_) => taken.push(stream),
            }
        }
        assert_eq!((taken.len(), refused), (20, 10));
        // Somebody else does not notice, and the operator does.
        let answer = instance
            .client
            .get(format!("{}/nobody", instance.url))
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), 404);
        until("it is shown", Duration::from_secs(5), async || {
            let shown = instance.actor(&["ingest", "server"]).await;
            shown["connections_refused"] == 10 && shown["connections"].as_u64() >= Some(20)
        })
        .await;
        assert_eq!(
            instance.log().matches("max_connections_per_peer").count(),
            1,
            "{}",
            instance.log()
        );
        drop(taken);
        until("there is room again", Duration::from_secs(10), async || {
            let mut stream = connect(0, address(&instance.url)).await.expect("the kernel takes it");
            let mut some = [0; 512];
            stream.write_all(nobody).await.is_ok() && stream.read(&mut some).await.is_ok_and(|n| n > 0)
        })
        .await;
        instance.stop().await;
    });
}
