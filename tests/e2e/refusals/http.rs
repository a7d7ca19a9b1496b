//! Refusals by path, method, media type, size, speed and rate, over raw connections that go on to work afterwards
//! wherever the request was read to its end.

use std::time::{Duration, Instant};

use chrono::Utc;

use super::wire::{Wire, good_order, head};
use crate::harness::{Instance, World, light, shared_stack, signed};

const LIMIT: usize = 1 << 20;

/// A source with a rate limit, and one that does not ask for JSON's media type.
const MORE_SOURCES: &str = r#"
[[sources]]
name = "limited"
preset = "standard"
secrets = ["env:HOOKMILL_SECRET_STANDARD"]
rate_limit = { per_second = 1, burst = 2 }

[[sources]]
name = "lax"
preset = "standard"
secrets = ["env:HOOKMILL_SECRET_STANDARD"]
require_json = false
"#;

pub async fn start(name: &str) -> Instance {
    let world = World::new(&shared_stack().await, name)
        .await
        .set("HOOKMILL_INGEST__BODY_TIMEOUT", "1s")
        .configured(|text| text + MORE_SOURCES);
    world.start("only").await
}

pub fn of_standard(body: &[u8]) -> Vec<(String, String)> {
    signed("standard", body, "msg_1", Utc::now())
}

/// The headers with one of them changed; `ABSENT` leaves it out.
pub fn with(headers: &[(String, String)], name: &str, value: &str) -> Vec<(String, String)> {
    let mut headers: Vec<_> = headers.iter().filter(|(n, _)| n != name).cloned().collect();
    headers.push((name.to_owned(), value.to_owned()));
    headers
}

#[test]
fn paths_methods_and_media_types() {
    light(async {
        let instance = start("refused_heads").await;
        let mut wire = Wire::to(&instance).await;
        let body = good_order();
        let body = body.as_bytes();
        let good = of_standard(body);
        for path in [
            "/webhooks/nobody",
            "/",
            "/webhooks/standard/",
            "/webhooks/Standard",
            "/health/live",
            "/webhooks/../webhooks/standard",
        ] {
            wire.request("POST", path, &good, body)
                .await
                .is_problem(404, "unknown-source");
            wire.works_on(path).await;
        }
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = wire.request(method, "/webhooks/standard", &good, body).await;
            answer.is_problem(405, "method-not-allowed");
            assert_eq!(answer.headers["allow"], "POST");
            wire.works_on(method).await;
        }
        let answer = wire.request("HEAD", "/webhooks/standard", &good, b"").await;
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "POST"));
        wire.works_on("HEAD").await;

        for media_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonish",
            "json",
        ] {
            let headers = with(&good, "content-type", media_type);
            let answer = wire.request("POST", "/webhooks/standard", &headers, body).await;
            let detail = answer.is_problem(415, "unsupported-media-type");
            assert!(detail.contains("application/json"), "{detail}");
            wire.works_on(media_type).await;
        }
        for media_type in [
            "ABSENT",
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/cloudevents+json",
        ] {
            let headers = with(&good, "content-type", media_type);
            let answer = wire.request("POST", "/webhooks/standard", &headers, body).await;
            assert_eq!(answer.status, 202, "{media_type}");
        }
        let answer = wire
            .request(
                "POST",
                "/webhooks/lax",
                &with(&good, "content-type", "text/plain"),
                body,
            )
            .await;
        assert_eq!(answer.status, 202, "a source that does not ask for JSON's media type");
        instance.stop().await;
    });
}

#[test]
fn slow_bodies() {
    light(async {
        let instance = start("refused_slow").await;
        let body = good_order();
        let body = body.as_bytes();
        // A part, and then nothing.
        let mut wire = Wire::to(&instance).await;
        let head = head("POST", "/webhooks/standard", &of_standard(body));
        let begun = Instant::now();
        wire.send(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes())
            .await;
        wire.send(&body[..10]).await;
        let answer = wire.answer(true).await;
        let detail = answer.is_problem(408, "body-too-slow");
        assert!(detail.contains("1 s"), "{detail}");
        let took = begun.elapsed();
        assert!(
            (Duration::from_secs(1)..Duration::from_secs(4)).contains(&took),
            "{took:?}"
        );
        assert!(wire.is_closed().await, "where the rest would begin is not known");

        // Always a little: it is the whole that has a limit, not the pause.
        let mut wire = Wire::to(&instance).await;
        let begun = Instant::now();
        wire.send(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes())
            .await;
        let mut drip = tokio::time::interval(Duration::from_millis(100));
        let answer = loop {
            tokio::select! {
                answer = wire.answer(true) => break answer,
                _ = drip.tick() => {}
            }
            wire.send(b"1\r\n \r\n").await;
        };
        answer.is_problem(408, "body-too-slow");
        let took = begun.elapsed();
        assert!(
            (Duration::from_secs(1)..Duration::from_secs(4)).contains(&took),
            "{took:?}"
        );
        Wire::to(&instance).await.works_on("slow bodies").await;
        instance.stop().await;
    });
}

/// A body of exactly `length` bytes that is a good webhook.
fn padded(length: usize) -> Vec<u8> {
    let mut body = good_order().into_bytes();
    body.resize(length, b' ');
    body
}

#[test]
fn large_bodies() {
    light(async {
        let instance = start("refused_large").await;
        let says_limit = |detail: String| assert!(detail.contains("1048576"), "{detail}");

        // The largest there may be is taken, all the way to the broker.
        let mut wire = Wire::to(&instance).await;
        let largest = padded(LIMIT);
        let answer = wire
            .request("POST", "/webhooks/standard", &of_standard(&largest), &largest)
            .await;
        assert_eq!(answer.status, 202, "{}", instance.log());
        wire.works_on("the largest").await;

        let larger = padded(LIMIT + 1);
        let answer = wire
            .request("POST", "/webhooks/standard", &of_standard(&larger), &larger)
            .await;
        says_limit(answer.is_problem(413, "body-too-large"));

        // Without a length, in chunks.
        let mut wire = Wire::to(&instance).await;
        let head = head("POST", "/webhooks/standard", &of_standard(&larger));
        wire.send(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes())
            .await;
        for chunk in larger.chunks(60_000) {
            wire.send(format!("{:x}\r\n", chunk.len()).as_bytes()).await;
            wire.send(chunk).await;
            wire.send(b"\r\n").await;
        }
        wire.send(b"0\r\n\r\n").await;
        says_limit(wire.answer(true).await.is_problem(413, "body-too-large"));

        // The same, within the limit.
        let mut wire = Wire::to(&instance).await;
        let body = padded(100_000);
        let head_of_small = super::wire::head("POST", "/webhooks/standard", &of_standard(&body));
        wire.send(format!("{head_of_small}transfer-encoding: chunked\r\n\r\n").as_bytes())
            .await;
        for chunk in body.chunks(1_000) {
            wire.send(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
                .await;
        }
        wire.send(b"0\r\n\r\n").await;
        assert_eq!(wire.answer(true).await.status, 202);
        wire.works_on("chunks").await;

        // A length that says too much is believed: refused before the body is there.
        let mut wire = Wire::to(&instance).await;
        wire.send(format!("{head}content-length: 99999999999\r\n\r\n{{").as_bytes())
            .await;
        says_limit(wire.answer(true).await.is_problem(413, "body-too-large"));

        // One that says too little: what is signed does not match, and the rest is no request.
        let mut wire = Wire::to(&instance).await;
        let body = good_order();
        let headers = of_standard(body.as_bytes());
        let head_of_lie = super::wire::head("POST", "/webhooks/standard", &headers);
        wire.send(format!("{head_of_lie}content-length: 20\r\n\r\n{body}").as_bytes())
            .await;
        wire.answer(true).await.is_problem(401, "signature-wrong");
        if let Some(rest) = wire.try_answer(true).await {
            assert_eq!(rest.status, 400, "{rest:?}");
        }
        assert!(wire.is_closed().await);

        // Two lengths that differ, or a length beside chunks, are the beginning of request smuggling.
        for framing in [
            "content-length: 20\r\ncontent-length: 21\r\n\r\n",
            "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            let mut wire = Wire::to(&instance).await;
            wire.send(format!("{head_of_lie}{framing}").as_bytes()).await;
            let answer = wire.answer(true).await;
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
        Wire::to(&instance).await.works_on("large bodies").await;
        instance.stop().await;
        let log = instance.log();
        assert!(
            !log.contains("ERROR") && !log.contains("WARN"),
            "what strangers send alarms nobody: {log}"
        );
    });
}

#[test]
fn too_many_requests() {
    light(async {
        let instance = start("refused_rate").await;
        let mut wire = Wire::to(&instance).await;
        let body = good_order();
        let body = body.as_bytes();
        // Whoever cannot sign uses up nobody's share.
        for _ in 0..5 {
            let answer = wire.request("POST", "/webhooks/limited", &[], body).await;
            answer.is_problem(401, "signature-missing");
        }
        let mut statuses = Vec::new();
        for _ in 0..5 {
            let answer = wire
                .request("POST", "/webhooks/limited", &of_standard(body), body)
                .await;
            statuses.push(answer.status);
            if answer.status == 429 {
                answer.is_problem(429, "rate-limited");
                assert_eq!(answer.retry_after(), 1);
                wire.works_on("429").await;
                break;
            }
            assert_eq!(answer.status, 202);
        }
        assert!(
            statuses.len() >= 3 && statuses.last() == Some(&429),
            "two at once, then one a second: {statuses:?}"
        );
        // Who waits as told is taken.
        crate::harness::until("the rate allows one more", Duration::from_secs(3), async || {
            let answer = wire
                .request("POST", "/webhooks/limited", &of_standard(body), body)
                .await;
            answer.status == 202
        })
        .await;
        instance.stop().await;
    });
}
