//! Refusals that a request's signature or body earns, over raw connections that go on to work afterwards.

use chrono::{TimeDelta, Utc};

use super::http::{of_standard, start, with};
use super::wire::{Wire, good_order};
use crate::harness::{light, signed};

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
        let body = br#"{"event":"order.paid","created_at":1567674606,"payload":{"order":{"entity":{"id":"o1"}}}}"#;
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
