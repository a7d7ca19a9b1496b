//! Refusals of single requests, over raw connections that go on to work afterwards wherever the request was read to its end.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};

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

async fn start(name: &str) -> Instance {
    let world = World::new(&shared_stack().await, name)
        .await
        .set("HOOKMILL_INGEST__BODY_TIMEOUT", "1s")
        .configured(|text| text + MORE_SOURCES);
    world.start("only").await
}

fn of_standard(body: &[u8]) -> Vec<(String, String)> {
    signed("standard", body, "msg_1", Utc::now())
}

/// The headers with one of them changed; `ABSENT` leaves it out.
fn with(headers: &[(String, String)], name: &str, value: &str) -> Vec<(String, String)> {
    let mut headers: Vec<_> = headers.iter().filter(|(n, _)| n != name).cloned().collect();
    headers.push((name.to_owned(), value.to_owned()));
    headers
}

#[test]
fn bodies_that_are_no_json() {
    light(async {
        let instance = start("refused_bodies").await;
        let mut wire = Wire::to(&instance).await;
        let deep = "[".repeat(100_000);
        let bodies: [&[u8]; 11] = [
            b"",
            b"{",
            b"not json",
            b"{\"a\":1}}",
            b"{\"a\":01}",
            b"{\"a\":NaN}",
            b"{'a':1}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\n\"}",
            deep.as_bytes(),
        ];
        for body in bodies {
            let answer = wire
                .request("POST", "/webhooks/standard", &of_standard(body), body)
                .await;
            let detail = answer.is_problem(400, "not-json");
            assert!(detail.len() < 300, "{detail}");
            wire.works_on("400").await;
        }
        // Two values for one field could be read in two ways, by us and by whoever reads the payload later.
        let twice = good_order().replace(r#""id":"o1""#, r#""id":"o1","id":"o2""#);
        let answer = wire
            .request(
                "POST",
                "/webhooks/standard",
                &of_standard(twice.as_bytes()),
                twice.as_bytes(),
            )
            .await;
        answer.is_problem(400, "not-json");
        // What is not signed is not even looked at.
        let unsigned = with(&of_standard(b"{"), "webhook-signature", "v1,AAAA");
        wire.request("POST", "/webhooks/standard", &unsigned, b"{")
            .await
            .is_problem(401, "signature-wrong");
        instance.stop().await;
    });
}

#[test]
fn signatures() {
    light(async {
        let instance = start("refused_signatures").await;
        let mut wire = Wire::to(&instance).await;
        let body = good_order();
        let body = body.as_bytes();
        let good = of_standard(body);
        let aged = |seconds| signed("standard", body, "msg_1", Utc::now() + TimeDelta::seconds(seconds));
        let stripe = |seconds| signed("stripe", body, "", Utc::now() + TimeDelta::seconds(seconds));
        let twice = [good.clone(), vec![good[2].clone()]].concat();
        for (what, source, headers, kind, says) in [
            (
                "no signature",
                "standard",
                with(&good, "webhook-signature", "ABSENT"),
                "signature-missing",
                "webhook-signature",
            ),
            (
                "no time",
                "standard",
                with(&good, "webhook-timestamp", "ABSENT"),
                "signature-missing",
                "webhook-timestamp",
            ),
            (
                "no id",
                "standard",
                with(&good, "webhook-id", "ABSENT"),
                "signature-missing",
                "webhook-id",
            ),
            (
                "another form",
                "standard",
                with(&good, "webhook-signature", "v9,xyz"),
                "signature-malformed",
                "webhook-signature",
            ),
            (
                "no base64",
                "standard",
                with(&good, "webhook-signature", "v1,???"),
                "signature-malformed",
                "webhook-signature",
            ),
            (
                "two of them",
                "standard",
                twice,
                "signature-malformed",
                "webhook-signature",
            ),
            (
                "another id",
                "standard",
                with(&good, "webhook-id", "msg_2"),
                "signature-wrong",
                "match",
            ),
            (
                "another time",
                "standard",
                with(&good, "webhook-timestamp", "1"),
                "signature-wrong",
                "match",
            ),
            ("an old one", "standard", aged(-310), "signature-too-old", "s old"),
            (
                "one of tomorrow",
                "standard",
                aged(86_400),
                "signature-too-far-ahead",
                "ahead",
            ),
            (
                "one just too far ahead",
                "standard",
                aged(310),
                "signature-too-far-ahead",
                "ahead",
            ),
            (
                "Stripe: none",
                "stripe",
                vec![],
                "signature-missing",
                "stripe-signature",
            ),
            (
                "Stripe: no time",
                "stripe",
                vec![("stripe-signature".into(), "v1=00".into())],
                "signature-malformed",
                "stripe-signature",
            ),
            (
                "Stripe: only v0",
                "stripe",
                vec![("stripe-signature".into(), "t=1,v0=00".into())],
                "signature-malformed",
                "stripe-signature",
            ),
            (
                "Stripe: an old one",
                "stripe",
                stripe(-310),
                "signature-too-old",
                "s old",
            ),
            (
                "Stripe: one ahead",
                "stripe",
                stripe(310),
                "signature-too-far-ahead",
                "ahead",
            ),
            (
                "Shopify: none",
                "shopify",
                vec![],
                "signature-missing",
                "x-shopify-hmac-sha256",
            ),
            (
                "Shopify: another source's",
                "shopify",
                signed("razorpay", body, "", Utc::now()),
                "signature-missing",
                "x-shopify-hmac-sha256",
            ),
            (
                "Square: of another URL",
                "square",
                vec![("x-square-hmacsha256-signature".into(), "AAAA".into())],
                "signature-wrong",
                "match",
            ),
            (
                "Razorpay: no hex",
                "razorpay",
                vec![("x-razorpay-signature".into(), "zz".into())],
                "signature-malformed",
                "x-razorpay-signature",
            ),
        ] {
            let answer = wire
                .request("POST", &format!("/webhooks/{source}"), &headers, body)
                .await;
            let detail = answer.is_problem(401, kind);
            assert!(detail.contains(says), "{what}: {detail}");
            wire.works_on(what).await;
        }
        for (seconds, what) in [(-290, "nearly too old"), (290, "nearly too far ahead")] {
            let answer = wire.request("POST", "/webhooks/standard", &aged(seconds), body).await;
            assert_eq!(answer.status, 202, "{what}");
        }
        instance.stop().await;
    });
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
    });
}

#[test]
fn events_that_cannot_be_mapped() {
    light(async {
        let instance = start("refused_events").await;
        let mut wire = Wire::to(&instance).await;
        for (from, to, field, tried) in [
            (r#""id":"o1","#, "", "order_id", "/data/order_id, /data/id"),
            (
                r#""id":"o1""#,
                r#""id":{"a":1}"#,
                "order_id",
                "/data/order_id, /data/id",
            ),
            (
                r#""id":"o1""#,
                r#""id":"a\u0000b""#,
                "order_id",
                "/data/order_id, /data/id",
            ),
            (r#""user_id":"u1""#, r#""user_id":null"#, "user_id", "/data/user_id"),
            (r#""user_id":"u1""#, r#""user_id":"""#, "user_id", "/data/user_id"),
            ("2026-01-02T03:04:05Z", "yesterday", "occurred_at", "/timestamp"),
            (
                "2026-01-02T03:04:05Z",
                "2026-01-02T03:04:05",
                "occurred_at",
                "/timestamp",
            ),
            (r#""amount":1"#, r#""amount":1.5"#, "amount", "/data/amount"),
            (
                r#""amount":1"#,
                r#""amount":9223372036854775808"#,
                "amount",
                "/data/amount",
            ),
            ("EUR", "euros", "currency", "/data/currency"),
            (r#""status":"paid""#, r#""version":"one""#, "version", "/data/version"),
        ] {
            let body = good_order().replace(from, to);
            assert_ne!(body, good_order());
            let headers = of_standard(body.as_bytes());
            let answer = wire
                .request("POST", "/webhooks/standard", &headers, body.as_bytes())
                .await;
            let detail = answer.is_problem(422, "not-mappable");
            assert!(detail.contains(field) && detail.contains(tried), "{to}: {detail}");
            wire.works_on(to).await;
        }
        // The identity is in a header here, and that is what is named.
        let body = br#"{"event":"order.paid","created_at":1567674606,"payload":{"order":{"entity":{"id":"o1","status":"paid"}}}}"#;
        let headers = signed("razorpay", body, "", Utc::now());
        let answer = wire.request("POST", "/webhooks/razorpay", &headers, body).await;
        let detail = answer.is_problem(422, "not-mappable");
        assert!(
            detail.contains("event_id") && detail.contains("header:x-razorpay-event-id"),
            "{detail}"
        );

        // What no mapping wants is no mistake: the provider shall not send it again.
        let body = good_order().replace("order.created", "contact.created");
        let answer = wire
            .request(
                "POST",
                "/webhooks/standard",
                &of_standard(body.as_bytes()),
                body.as_bytes(),
            )
            .await;
        assert_eq!(
            (answer.status, answer.json()),
            (200, serde_json::json!({ "ignored": "contact.created" }))
        );
        let metrics = instance.client.get(format!("{}/metrics", instance.admin));
        let metrics = metrics.send().await.expect("metrics").text().await.expect("text");
        for line in [
            r#"hookmill_webhooks_total{source="standard",outcome="ignored"} 1"#,
            r#"hookmill_webhooks_total{source="standard",outcome="not-mappable"} 11"#,
            r#"hookmill_webhooks_total{source="razorpay",outcome="not-mappable"} 1"#,
        ] {
            assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
        }
        instance.stop().await;
    });
}

#[test]
fn too_many_requests() {
    light(async {
        let instance = start("refused_rate").await;
        let mut wire = Wire::to(&instance).await;
        let body = good_order();
        let body = body.as_bytes();
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
