//! Requests whose end could be read in two ways, each with a whole request behind it that is not to be served, and other
//! bytes that are no HTTP: refused once, and the connection closed.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::crowd::{address, connect, good_request, read_to_end, statuses};
use crate::harness::{World, light, shared_stack};

/// Heads of which the framing is two-faced, without their beginning and end.
const FRAMINGS: &[&str] = &[
    "content-length: 6\r\ntransfer-encoding: chunked",
    "transfer-encoding: chunked\r\ncontent-length: 6",
    "content-length: 6\r\ncontent-length: 7",
    "content-length: 6\r\ncontent-length: 6",
    "content-length: 6, 6",
    "content-length: +6",
    "content-length: -6",
    "content-length: 0x6",
    "content-length: 6 6",
    "content-length: 6;",
    "content-length:",
    "content-length: 99999999999999999999999",
    "transfer-encoding: chunked, identity",
    "transfer-encoding: identity, chunked",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: xchunked",
    "transfer-encoding: identity\r\ncontent-length: 6",
    "transfer-encoding: chunked\r\ntransfer-encoding: identity",
    "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    "transfer-encoding : chunked",
    "transfer-encoding: \x0bchunked",
    "transfer-encoding:\r\n chunked",
    "x: y\r\n content-length: 6",
    "x\0: y\r\ncontent-length: 6",
    "x: a\rb\r\ncontent-length: 6",
    "host: another\r\ncontent-length: 6",
    "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 7",
    "upgrade: websocket\r\ncontent-length: 7",
];

/// Bodies in chunks that are none, behind `transfer-encoding: chunked`.
const CHUNKS: &[&str] = &[
    "-1\r\nA\r\n0\r\n\r\n",
    "+1\r\nA\r\n0\r\n\r\n",
    "0x1\r\nA\r\n0\r\n\r\n",
    "g\r\nA\r\n0\r\n\r\n",
    "\r\nA\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nA\r\n0\r\n\r\n",
    "1\r\nABC\r\n0\r\n\r\n",
    "1\nA\r\n0\r\n\r\n",
    "1 1\r\nA\r\n0\r\n\r\n",
    "1\r\nA0\r\n\r\n",
];

/// What is no request at all.
const STRANGE: &[&[u8]] = &[
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /webhooks/standard\r\n\r\n",
    b"POST /webhooks/standard HTTP/3.0\r\nhost: h\r\n\r\n",
    b"POST /webhooks/standard HTTP/1.1\r\n\r\n",
    b"POST  /webhooks/standard HTTP/1.1\r\nhost: h\r\n\r\n",
    b"POST /webhooks/\x00standard HTTP/1.1\r\nhost: h\r\n\r\n",
    b"POST /webhooks/standard HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a greeting by TLS",
    b"\x00\x00\x00\x00\xff\xff\xff\xff\r\n\r\n",
];

#[test]
fn two_ways_to_read_it_are_one_way_to_be_refused() {
    light(async {
        let world = World::new(&shared_stack().await, "smuggling")
            .await
            .set("HOOKMILL_INGEST__HEAD_TIMEOUT", "2s")
            .set("HOOKMILL_INGEST__BODY_TIMEOUT", "2s");
        let instance = world.start("only").await;
        let to = address(&instance.url);
        let hidden = good_request("hidden");
        let begin = "POST /webhooks/standard HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n";
        let mut cases: Vec<Vec<u8>> = Vec::new();
        for framing in FRAMINGS {
            cases.push(format!("{begin}{framing}\r\n\r\n0\r\n\r\n\r\n").into_bytes());
        }
        for chunks in CHUNKS {
            cases.push(format!("{begin}transfer-encoding: chunked\r\n\r\n{chunks}").into_bytes());
        }
        cases.extend(STRANGE.iter().map(|bytes| bytes.to_vec()));
        for (i, case) in cases.iter().enumerate() {
            let shown = String::from_utf8_lossy(case).into_owned();
            let mut stream = connect(0, to).await.expect("it listens");
            stream
                .write_all(&[case.as_slice(), &hidden].concat())
                .await
                .expect("sent");
            let answers = read_to_end(&mut stream, Duration::from_secs(8)).await;
            let answers = answers.unwrap_or_else(|| panic!("{i}: stays open after {shown:?}"));
            let all = statuses(&answers);
            assert!(
                all.len() <= 2 && all.iter().all(|status| (400..500).contains(status)),
                "{i}: {shown:?} is answered {all:?}: {answers}"
            );
        }
        // The same behind it, where there is one way to read it.
        let mut stream = connect(0, to).await.expect("it listens");
        let two = [good_request("first"), good_request("second")].concat();
        stream.write_all(&two).await.expect("sent");
        let answers = read_to_end(&mut stream, Duration::from_secs(20))
            .await
            .expect("closed when idle");
        assert_eq!(statuses(&answers), [202, 202], "{answers}");
        world.landed(Duration::from_secs(60)).await;
        let ids: Vec<String> = world.events().await.into_iter().map(|e| e.event_id).collect();
        assert!(!ids.iter().any(|id| id == "hidden") && ids.len() == 2, "{ids:?}");
        instance.stop().await;
        let log = instance.log();
        assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
    });
}
