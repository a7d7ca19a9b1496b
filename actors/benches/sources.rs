//! What verifying and mapping an event of 1 KiB costs, beside what it cannot do without: the bare HMAC over what is signed, and one
//! parse of the same body by serde_json. `cargo bench -p hookmill-actors` measures both for every preset, prints their ratio, and
//! fails where it is above two.

use std::hint::black_box;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use criterion::{Criterion, Throughput};
use hmac::{Hmac, Mac};
use hookmill_actors::sources::{Incoming, Received, Source, SourceConfig};
use serde_json::{Value, json};
use sha2::Sha256;

/// Bytes of each body, without a signature in it.
const SIZE: usize = 1024;
/// How much dearer than the bare work it may be.
const MOST: f64 = 2.0;

struct Case {
    preset: &'static str,
    source: Source,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// What is signed; nothing where a password is sent.
    signed: Option<Vec<u8>>,
    now: DateTime<Utc>,
}

/// An event of each preset that is signed by an HMAC or carries a password, as its provider documents it.
/// A preset's name, an event of its provider, and the headers that come with it.
type Example = (&'static str, Value, Vec<(&'static str, &'static str)>);

fn events() -> Vec<Example> {
    let time = "2026-03-04T10:00:00Z";
    let shopify = vec![
        ("x-shopify-topic", "orders/updated"),
        ("x-shopify-event-id", "98880550-7158-44d4-b7cd-2c97c8a091b5"),
        ("x-shopify-shop-domain", "shop.example"),
    ];
    let standard = json!({ "type": "order.paid", "timestamp": time, "data": { "id": "o1", "user_id": "u1", "amount": 1010, "currency": "usd", "status": "paid" } });
    vec![
        (
            "stripe",
            json!({ "id": "evt_1", "type": "charge.dispute.created", "created": 1_772_618_400, "data": { "object": { "id": "dp_1", "payment_intent": "pi_1", "charge": "ch_1", "amount": 1000, "currency": "usd", "status": "needs_response" } } }),
            vec![],
        ),
        (
            "shopify",
            json!({ "id": 820_982_911_946_154_500_u64, "updated_at": time, "financial_status": "paid", "fulfillment_status": null, "cancelled_at": null, "current_total_price": "414.95", "currency": "USD" }),
            shopify,
        ),
        (
            "square",
            json!({ "merchant_id": "M1", "type": "payment.updated", "event_id": "e1", "created_at": time, "data": { "object": { "payment": { "id": "p1", "order_id": "o1", "status": "COMPLETED", "total_money": { "amount": 100, "currency": "USD" }, "updated_at": time } } } }),
            vec![],
        ),
        (
            "razorpay",
            json!({ "event": "order.paid", "created_at": 1_772_618_400, "payload": { "order": { "entity": { "id": "o1", "amount": 100, "currency": "INR", "status": "paid" } } } }),
            vec![("x-razorpay-event-id", "rz-1")],
        ),
        (
            "adyen",
            json!({ "live": "false", "notificationItems": [{ "NotificationRequestItem": { "pspReference": "A1", "originalReference": "", "merchantAccountCode": "Shop", "merchantReference": "R1", "amount": { "value": 1130, "currency": "EUR" }, "eventCode": "AUTHORISATION", "success": "true", "eventDate": "2026-03-04T11:00:00+01:00" } }] }),
            vec![],
        ),
        (
            "woocommerce",
            json!({ "id": 727, "status": "processing", "currency": "USD", "total": "29.35", "date_modified_gmt": "2026-03-22T19:28:08" }),
            vec![("x-wc-webhook-topic", "order.updated")],
        ),
        (
            "bigcommerce",
            json!({ "scope": "store/order/statusUpdated", "data": { "type": "order", "id": 250, "status": { "new_status_id": 10 } }, "hash": "7ee67cd1", "created_at": 1_772_618_400, "producer": "stores/abc" }),
            vec![("webhook-id", "m1")],
        ),
        (
            "github",
            json!({ "action": "opened", "number": 1 }),
            vec![("x-github-event", "issues")],
        ),
        ("standard", standard.clone(), vec![("webhook-id", "m1")]),
        ("svix", standard, vec![("svix-id", "m1")]),
        (
            "paddle",
            json!({ "event_id": "evt_1", "event_type": "transaction.completed", "occurred_at": time, "data": { "id": "txn_1", "status": "completed", "details": { "totals": { "grand_total": "59950", "currency_code": "USD" } } } }),
            vec![],
        ),
        (
            "checkout",
            json!({ "id": "evt_1", "type": "payment_captured", "created_on": time, "data": { "id": "pay_1", "amount": 6540, "currency": "USD" } }),
            vec![],
        ),
        (
            "klarna",
            json!({ "metadata": { "event_id": "e1", "event_type": "payment.request.state-change.completed", "occurred_at": time }, "payload": { "payment_request_id": "krn:1", "state": "COMPLETED" } }),
            vec![],
        ),
        (
            "chargebee",
            json!({ "id": "ev_1", "event_type": "payment_succeeded", "occurred_at": 1_772_618_400, "content": { "invoice": { "id": "INV1", "customer_id": "cus9", "status": "paid", "total": 9900, "currency_code": "EUR" } } }),
            vec![],
        ),
    ]
}

/// Fills an event up to its size with fields as providers send them: texts, numbers, lists and objects that no rule reads.
fn filled(mut event: Value) -> Vec<u8> {
    let mut i = 0;
    while event.to_string().len() < SIZE - 120 {
        event[format!("extra_field_{i}")] =
            json!({ "name": "Some text", "count": i, "paid": true, "lines": [1, 2, null] });
        i += 1;
    }
    let missing = SIZE - event.to_string().len() - r#","description":"""#.len();
    event["description"] = "x".repeat(missing).into();
    event.to_string().into_bytes()
}

fn cases() -> Vec<Case> {
    let now = Utc::now();
    let mut cases = Vec::new();
    for (preset, event, headers) in events() {
        let secret = match preset {
            "adyen" => "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
            "standard" | "svix" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "chargebee" => "user:password",
            _ => "secret-of-the-provider",
        };
        let file = std::env::temp_dir().join(format!("hookmill-bench-{}-{preset}", std::process::id()));
        std::fs::write(&file, secret).expect("a temporary file");
        let config = format!(
            "name = \"bench\"\npreset = {preset:?}\nurl = \"https://hooks.example.com/webhooks/square\"\nsecrets = [\"file:{}\"]",
            file.display()
        );
        let config: SourceConfig = toml::from_str(&config).expect("a source");
        let source = config.compile().expect("it compiles");
        std::fs::remove_file(&file).expect("the temporary file");

        let given: Vec<(&str, &str)> = headers.clone();
        let mut body = filled(event);
        let incoming = Incoming::post(&given[..], &body, now);
        let mut all = source.sign(&incoming).expect("it can be signed");
        if let Some((_, signature)) = source.item_signatures(&incoming).expect("items").pop() {
            let mut whole: Value = serde_json::from_slice(&body).expect("JSON");
            whole["notificationItems"][0]["NotificationRequestItem"]["additionalData"] =
                json!({ "hmacSignature": signature });
            body = whole.to_string().into_bytes();
        }
        all.extend(
            headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        // What is put before the body, as a time or an id, is a few bytes: the body is what counts.
        let signed = match preset {
            "chargebee" => None,
            "adyen" => Some(b"A1::Shop:R1:1130:EUR:AUTHORISATION:true".to_vec()),
            _ => Some(body.clone()),
        };
        cases.push(Case {
            preset,
            source,
            headers: all,
            body,
            signed,
            now,
        });
    }
    cases
}

impl Case {
    /// The bare work: an HMAC, and a parse.
    fn bare(&self, key: &Hmac<Sha256>) {
        if let Some(signed) = &self.signed {
            let mac = key.clone().chain_update(signed);
            black_box(mac.finalize());
        }
        let value: Value = serde_json::from_slice(black_box(&self.body)).expect("JSON");
        black_box(value);
    }

    fn receive(&self, headers: &[(&str, &str)]) {
        let incoming = Incoming::post(headers, black_box(&self.body), self.now);
        let received = self.source.receive(&incoming).expect("it is signed and mapped");
        black_box(received);
    }
}

/// The best of several rounds, in nanoseconds for each call.
fn best(mut work: impl FnMut()) -> f64 {
    const ROUNDS: usize = 40;
    const CALLS: u32 = 500;
    let round = || {
        let started = Instant::now();
        (0..CALLS).for_each(|_| work());
        started.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    std::iter::repeat_with(round).take(ROUNDS).fold(f64::INFINITY, f64::min)
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let key = Hmac::<Sha256>::new_from_slice(b"secret-of-the-provider").expect("a key");
    let cases = cases();
    let mut rows = Vec::new();
    for case in &cases {
        let headers: Vec<(&str, &str)> = case.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mapped = case.source.receive(&Incoming::post(&headers[..], &case.body, case.now));
        let is_event = matches!(&mapped, Ok(Received::Events { accepted, .. }) if accepted.len() == 1);
        assert!(is_event || case.preset == "github", "{}: {mapped:?}", case.preset);
        // A signature in the body comes on top.
        assert!((SIZE..SIZE + 100).contains(&case.body.len()), "{}", case.preset);
        let mut group = criterion.benchmark_group(case.preset);
        group.throughput(Throughput::Bytes(SIZE as u64));
        group.bench_function("bare", |b| b.iter(|| case.bare(&key)));
        group.bench_function("receive", |b| b.iter(|| case.receive(&headers)));
        group.finish();
        rows.push((case.preset, best(|| case.bare(&key)), best(|| case.receive(&headers))));
    }
    criterion.final_summary();
    println!("\n| preset | HMAC and parse, us | verify and map, us | ratio |\n|---|---|---|---|");
    for (preset, bare, full) in &rows {
        println!(
            "| {preset} | {:.2} | {:.2} | {:.2} |",
            bare / 1e3,
            full / 1e3,
            full / bare
        );
    }
    let dear: Vec<&str> = rows
        .iter()
        .filter(|(_, bare, full)| full / bare > MOST)
        .map(|(preset, ..)| *preset)
        .collect();
    assert!(
        dear.is_empty(),
        "more than {MOST} times the bare work: {}",
        dear.join(", ")
    );
}
