//! Vectors and samples of the providers. They stand beside the repository; a missing folder is a failure.

mod belief;
mod paypal;
mod presets;
mod properties;
mod rules;

use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn samples() -> PathBuf {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/providers/samples");
    let folder = std::env::var_os("HOOKMILL_PROVIDER_SAMPLES").map_or(beside, PathBuf::from);
    assert!(
        folder.is_dir(),
        "the providers' samples are not at {}: set HOOKMILL_PROVIDER_SAMPLES",
        folder.display()
    );
    folder
}

/// A source of `preset` whose secret is `secret`; its variable is named after the test, so tests do not meet.
fn source(preset: &str, secret: &str, url: Option<&str>) -> Source {
    let path = std::env::temp_dir().join(format!(
        "hookmill-{}-{:?}-{preset}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, secret).expect("a temporary file");
    let url = url.map(|url| format!("url = {url:?}\n")).unwrap_or_default();
    let text = format!(
        "name = \"x\"\npreset = {preset:?}\n{url}secrets = [\"file:{}\"]\n",
        path.display()
    );
    let config: SourceConfig = toml::from_str(&text).expect("a source");
    let source = config.compile().expect("it compiles");
    std::fs::remove_file(&path).expect("the temporary file");
    source
}

fn post<'a>(
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    now: DateTime<Utc>,
) -> Incoming<'a, [(&'a str, &'a str)]> {
    Incoming::post(headers, body, now)
}

const URL: &str = "https://hooks.example.com/webhooks/square";

fn unverified(preset: &str) -> Source {
    source(preset, "c2VjcmV0", (preset == "square").then_some(URL))
}

#[test]
fn every_vector_is_accepted_and_no_change_of_it_is() {
    let text = std::fs::read_to_string(samples().join("vectors.json")).expect("vectors.json");
    let vectors: Vec<Value> = serde_json::from_str(&text).expect("vectors.json is JSON");
    let mut tried = 0;
    for vector in vectors.iter().filter(|v| v["scheme"] != "github") {
        tried += 1;
        let scheme = vector["scheme"].as_str().expect("a scheme");
        let secret = vector["secret"].as_str().expect("a secret");
        let body = match vector["body_file"].as_str() {
            Some(file) => std::fs::read(samples().join(file)).expect("a body"),
            None => vector["body"].as_str().expect("a body").as_bytes().to_vec(),
        };
        let headers: Vec<(&str, &str)> = vector["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str().expect("text")))
            .collect();
        let now = DateTime::from_timestamp(vector["now"].as_i64().unwrap_or(0), 0).expect("a time");
        let ours = source(scheme, secret, vector["url"].as_str().or(Some(URL)));
        assert_eq!(ours.verify(&post(&headers, &body, now)), Ok(()), "{scheme}");

        let mut changed = body.clone();
        changed[0] ^= 1;
        assert_eq!(
            ours.verify(&post(&headers, &changed, now)),
            Err(Refusal::Unauthorized(AuthError::Wrong)),
            "{scheme}: another body"
        );
        let other = if scheme == "standard" { "whsec_AAAA" } else { "another" };
        assert_eq!(
            source(scheme, other, Some(URL)).verify(&post(&headers, &body, now)),
            Err(Refusal::Unauthorized(AuthError::Wrong)),
            "{scheme}: another secret"
        );
        for i in 0..headers.len() {
            let mut fewer = headers.clone();
            fewer.remove(i);
            assert!(
                matches!(
                    ours.verify(&post(&fewer, &body, now)),
                    Err(Refusal::Unauthorized(AuthError::Missing { .. }))
                ),
                "{scheme} without {}",
                headers[i].0
            );
            let mut doubled = headers.clone();
            doubled.push(headers[i]);
            assert!(
                matches!(
                    ours.verify(&post(&doubled, &body, now)),
                    Err(Refusal::Unauthorized(AuthError::Malformed { .. }))
                ),
                "{scheme} with {} twice",
                headers[i].0
            );
            let mut empty = headers.clone();
            empty[i].1 = "";
            assert!(
                matches!(
                    ours.verify(&post(&empty, &body, now)),
                    Err(Refusal::Unauthorized(AuthError::Malformed { .. }))
                ),
                "{scheme} with an empty {}",
                headers[i].0
            );
        }
        if vector["now"].is_i64() {
            let (late, early) = (
                now + chrono::TimeDelta::seconds(301),
                now - chrono::TimeDelta::seconds(301),
            );
            assert_eq!(
                ours.verify(&post(&headers, &body, late)),
                Err(Refusal::Unauthorized(AuthError::TooOld { seconds: 301 })),
                "{scheme}"
            );
            assert_eq!(
                ours.verify(&post(&headers, &body, early)),
                Err(Refusal::Unauthorized(AuthError::TooFarAhead { seconds: 301 })),
                "{scheme}"
            );
            assert_eq!(
                ours.verify(&post(&headers, &body, now + chrono::TimeDelta::seconds(300))),
                Ok(()),
                "{scheme}"
            );
        }
    }
    assert_eq!(
        tried, 6,
        "one vector for each of the five schemes, and a second of Standard Webhooks"
    );
}

#[test]
fn any_of_several_secrets_will_do_while_one_is_replaced() {
    let files: Vec<PathBuf> = [("old", "old"), ("new", "shp_secret")]
        .map(|(name, secret)| {
            let path = std::env::temp_dir().join(format!("hookmill-rotation-{}-{name}", std::process::id()));
            std::fs::write(&path, secret).expect("a temporary file");
            path
        })
        .to_vec();
    let refs: Vec<String> = files.iter().map(|f| format!("\"file:{}\"", f.display())).collect();
    let config: SourceConfig = toml::from_str(&format!(
        "name = \"s\"\npreset = \"shopify\"\nsecrets = [{}]",
        refs.join(", ")
    ))
    .expect("a source");
    let source = config.compile().expect("it compiles");
    assert!(!format!("{source:?}").contains("shp_secret"));
    let body = std::fs::read(samples().join("square-dispute.created.json")).expect("a body");
    let headers = [("X-Shopify-Hmac-Sha256", "2PyRwJfMYNH+yB+dyPIQLQWE6JzuO2RMOzkwa031qQM=")];
    assert_eq!(source.verify(&post(&headers, &body, Utc::now())), Ok(()));
    files
        .iter()
        .for_each(|file| std::fs::remove_file(file).expect("the temporary file"));
}

/// The event that a sample maps to, as JSON without its data.
fn event(preset: &str, file: &str, body: &[u8]) -> Result<Value, Refusal> {
    let topic = file
        .strip_prefix("shopify-")
        .map(|f| f.trim_end_matches(".json").replacen('-', "/", 1))
        .unwrap_or_default();
    let headers = [
        ("x-shopify-topic", topic.as_str()),
        ("x-shopify-event-id", "e-1"),
        ("x-shopify-shop-domain", "shop.example"),
        ("x-shopify-triggered-at", "2026-01-02T03:04:05.678Z"),
        ("x-razorpay-event-id", "rz-1"),
        ("webhook-id", "msg_1"),
    ];
    match unverified(preset).map(&post(&headers, body, Utc::now()))? {
        Received::Events { accepted, .. } => Ok(serde_json::from_slice(&accepted[0].value).expect("a CloudEvent")),
        Received::Ignored { .. } => Ok(Value::Null),
        Received::Handshake(answer) => panic!("{answer:?}"),
    }
}

fn sample(preset: &str, file: &str) -> Result<Value, Refusal> {
    let body = std::fs::read(samples().join(file)).expect("a sample");
    event(preset, file, &body)
}

#[test]
fn the_samples_map_to_the_canonical_states() {
    for (file, kind, status, amount, currency) in [
        (
            "stripe-charge.dispute.created.json",
            "dispute",
            "inquiry_needs_response",
            Some("1000"),
            Some("USD"),
        ),
        (
            "stripe-charge.dispute.closed.json",
            "dispute",
            "inquiry_needs_response",
            Some("1000"),
            Some("USD"),
        ),
        (
            "stripe-old-charge.dispute.created.json",
            "dispute",
            "inquiry_needs_response",
            Some("100"),
            Some("USD"),
        ),
        ("stripe-checkout.session.completed.json", "order", "paid", None, None),
        ("stripe-payment_intent.succeeded.json", "order", "paid", None, None),
        ("stripe-payment_intent.canceled.json", "order", "cancelled", None, None),
        ("stripe-charge.refunded.json", "order", "refunded", None, None),
        ("shopify-orders-cancelled.json", "order", "cancelled", None, Some("USD")),
        ("shopify-orders-create.json", "order", "cancelled", None, Some("USD")),
        (
            "shopify-disputes-create.json",
            "dispute",
            "under_review",
            Some("1150"),
            Some("CAD"),
        ),
        ("square-order.created.json", "order", "pending", None, None),
        ("square-order.updated.json", "order", "pending", None, None),
        ("square-payment.created.json", "order", "authorized", None, None),
        ("square-payment.updated.json", "order", "paid", None, None),
        ("square-dispute.created.json", "dispute", "needs_response", None, None),
        ("square-dispute.state.updated.json", "dispute", "won", None, None),
        ("razorpay-order.paid.json", "order", "paid", None, Some("INR")),
        ("razorpay-payment.captured.json", "order", "paid", None, Some("INR")),
        ("razorpay-payment.failed.json", "order", "failed", None, Some("INR")),
        (
            "razorpay-payment.dispute.created.json",
            "dispute",
            "needs_response",
            None,
            Some("INR"),
        ),
        (
            "razorpay-payment.dispute.under_review.json",
            "dispute",
            "under_review",
            None,
            Some("INR"),
        ),
        (
            "razorpay-payment.dispute.closed.json",
            "dispute",
            "closed",
            None,
            Some("INR"),
        ),
    ] {
        let preset = file.split('-').next().expect("a provider");
        let event = sample(preset, file).unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
        assert_eq!(event["kind"], kind, "{file}");
        assert_eq!(event["status"], status, "{file}: {}", event["providerstatus"]);
        if amount.is_some() {
            assert_eq!(event["amountminor"].as_str(), amount, "{file}");
        }
        if currency.is_some() {
            assert_eq!(event["currency"].as_str(), currency, "{file}");
        }
    }
}

#[test]
fn a_dispute_without_an_id_is_refused_with_the_places_tried() {
    let refusal = sample("stripe", "stripe-old-charge.dispute.updated.json").expect_err("it has no dispute id");
    assert!(
        matches!(&refusal, Refusal::Unmappable { field: "dispute_id", tried, .. } if tried == &["/data/object/id"]),
        "{refusal}"
    );
}

#[test]
fn what_no_rule_wants_is_ignored_by_its_own_word() {
    assert_eq!(sample("stripe", "stripe-charge.succeeded.json"), Ok(Value::Null));
    assert_eq!(sample("shopify", "shopify-orders-edited.json"), Ok(Value::Null));
}

#[test]
fn the_key_of_an_order_is_the_same_in_all_its_events() {
    let key =
        |preset: &str, file: &str, body: &str| event(preset, file, body.as_bytes()).expect("it maps")["userid"].clone();
    let checkout = r#"{"id":"evt_1","type":"checkout.session.completed","created":1760000000,"data":{"object":{"id":"cs_1","payment_intent":"pi_1","client_reference_id":"u1","customer":null,"payment_status":"paid"}}}"#;
    let refund = r#"{"id":"evt_2","type":"charge.refunded","created":1760000009,"data":{"object":{"id":"ch_1","payment_intent":"pi_1","customer":"cus_1","refunded":true}}}"#;
    let dispute = r#"{"id":"evt_3","type":"charge.dispute.created","created":1760000010,"data":{"object":{"id":"dp_1","payment_intent":{"id":"pi_1"},"charge":"ch_1","status":"needs_response"}}}"#;
    assert_eq!(key("stripe", "", checkout), "pi:pi_1");
    assert_eq!(key("stripe", "", refund), "pi:pi_1");
    assert_eq!(key("stripe", "", dispute), "pi:pi_1");
    let guest = r#"{"id":9007199254740993,"customer":null,"updated_at":"2026-01-02T03:04:05Z"}"#;
    let known = r#"{"id":9007199254740993,"customer":{"id":5},"updated_at":"2026-01-02T03:04:06Z"}"#;
    assert_eq!(
        key("shopify", "shopify-orders-create.json", guest),
        "order:shop.example/9007199254740993"
    );
    assert_eq!(
        key("shopify", "shopify-orders-updated.json", known),
        "order:shop.example/9007199254740993"
    );
}

#[test]
fn bad_bodies_are_refused_and_say_where() {
    let with = |body: &str| event("standard", "", body.as_bytes()).expect_err("it is bad");
    let good = r#"{"type":"order.created","timestamp":"2026-01-02T03:04:05Z","data":{"id":"o1","user_id":"u1","amount":1010,"currency":"usd","status":"paid"}}"#;
    assert_eq!(
        event("standard", "", good.as_bytes()).expect("it is good")["amountminor"],
        "1010"
    );
    assert!(matches!(with("{"), Refusal::NotJson(_)));
    assert!(matches!(
        event("standard", "", b"{\"type\":\"\xff\"}"),
        Err(Refusal::NotJson(_))
    ));
    for (from, to, wrong) in [
        ("\"u1\"", "null", "user_id"),
        ("\"o1\"", "\"a\\u0000b\"", "order_id"),
        ("2026-01-02T03:04:05Z", "yesterday", "occurred_at"),
        ("1010", "10.10", "amount"),
        ("usd", "dollars", "currency"),
    ] {
        let refusal = with(&good.replace(from, to));
        assert!(
            matches!(&refusal, Refusal::Unmappable { field, .. } if *field == wrong),
            "{to}: {refusal}"
        );
    }
    let long = good.replace("\"o1\"", &format!("\"{}\"", "o".repeat(513)));
    assert!(matches!(with(&long), Refusal::Unmappable { field: "order_id", .. }));
}

#[test]
fn a_wrong_configuration_says_what_would_be_right() {
    let compile = |text: &str| {
        let config: SourceConfig = toml::from_str(text).map_err(|e| e.to_string())?;
        config.compile().map(|_| ()).map_err(|e| e.to_string())
    };
    for (text, part) in [
        ("name = \"a\"\npreset = \"strip\"\nsecrets = [\"env:PATH\"]", "stripe"),
        ("name = \"a\"\npreset = \"stripe\"", "secrets"),
        (
            "name = \"a\"\npreset = \"stripe\"\nsecrets = [\"env:HOOKMILL_TEST_UNSET\"]",
            "HOOKMILL_TEST_UNSET",
        ),
        ("name = \"a\"\npreset = \"square\"\nsecrets = [\"env:PATH\"]", "`url`"),
        (
            "name = \"a b\"\npreset = \"stripe\"\nsecrets = [\"env:PATH\"]",
            "letters",
        ),
        ("name = \"a\"\nsecrets = [\"env:PATH\"]", "preset"),
        ("name = \"a\"\npreset = \"stripe\"\nsecret = [\"env:PATH\"]", "secret"),
    ] {
        let message = compile(text).expect_err(text);
        assert!(message.contains(part), "{part} is not in {message}");
    }
}

/// A header that is only malformed costs no more than a signature that is only wrong: the least of many rounds, so that what
/// else the machine does is not measured.
#[test]
fn a_malformed_signature_costs_no_more_than_a_wrong_one() {
    let stripe = source("stripe", "whsec_test", None);
    let standard = source("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None);
    let body = vec![b'x'; 1024];
    let now = Utc::now();
    let time = now.timestamp().to_string();
    let cost = |source: &Source, headers: &[(&str, &str)], expected: fn(&AuthError) -> bool| {
        let round = || {
            let started = std::time::Instant::now();
            for _ in 0..50 {
                let refused = source.verify(&post(headers, &body, now)).expect_err("it is not signed");
                assert!(
                    matches!(&refused, Refusal::Unauthorized(why) if expected(why)),
                    "{refused}"
                );
            }
            started.elapsed()
        };
        std::iter::repeat_with(round).take(60).min().expect("rounds")
    };
    let malformed: fn(&AuthError) -> bool =
        |why| matches!(why, AuthError::Malformed { .. } | AuthError::Missing { .. });
    let wrong: fn(&AuthError) -> bool = |why| *why == AuthError::Wrong;
    // Both are measured in one go, and again where the machine may have been busy with something else: what truly costs more
    // does so every time.
    let never_dearer = |header: &str, took: &dyn Fn() -> Duration, dearest: &dyn Fn() -> Duration| {
        let mut measured = Vec::new();
        let cheap = (0..5).any(|_| {
            measured.push((took(), dearest()));
            measured.last().is_some_and(|(took, dearest)| took <= dearest)
        });
        assert!(cheap, "{header:.40}, beside a wrong one: {measured:?}");
    };
    let zeros = "0".repeat(64);
    let right_form = format!("t={time},v1={zeros}");
    let of = |signature: &str, expected| cost(&stripe, &[("stripe-signature", signature)], expected);
    for header in [
        format!("t={time},v1={}", "0".repeat(2000)),
        format!("t={time},v1={}", "0".repeat(100_000)),
        ",".repeat(2000),
        "v1=,".repeat(500),
        format!("{}t={time}", format!("v1={},", "g".repeat(64)).repeat(25)),
        format!("t={},v1=g", "9".repeat(2000)),
        " ".repeat(2000),
        "=".repeat(2000),
    ] {
        never_dearer(&header, &|| of(&header, malformed), &|| of(&right_form, wrong));
    }
    let of = |signature: &str, expected| {
        let headers = [
            ("webhook-id", "m"),
            ("webhook-timestamp", time.as_str()),
            ("webhook-signature", signature),
        ];
        cost(&standard, &headers, expected)
    };
    let right_form = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for header in [
        "v1,!!!! ".repeat(200),
        format!("v1,{}", "A".repeat(2000)),
        " v1".repeat(600),
        "v1a,AAAA ".repeat(200),
    ] {
        never_dearer(&header, &|| of(&header, malformed), &|| of(right_form, wrong));
    }
}
