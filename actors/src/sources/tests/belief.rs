//! Whom and what to believe: identities, secrets, amounts and answers that are not what they seem.

use base64::Engine as _;
use chrono::Utc;
use hmac::Mac as _;
use serde_json::json;

use super::super::*;
use super::presets::{mapped, of, source};

/// Two ways to sign name the event by a header each. Only the one that was signed says who it is.
#[test]
fn an_unsigned_header_gives_no_event_its_identity() {
    let source = source("name = \"s\"\npreset = \"svix\"\nsecrets = [SECRET]", "whsec_c2VjcmV0").expect("it compiles");
    let body =
        br#"{"type":"order.paid","timestamp":"2026-01-02T03:04:05Z","data":{"id":"o","user_id":"u","status":"paid"}}"#;
    for (signed, other) in [("webhook", "svix"), ("svix", "webhook")] {
        let name = |family: &str, part: &str| format!("{family}-{part}");
        let (now, id) = (Utc::now(), name(signed, "id"));
        let asked = [(id.as_str(), "m")];
        let mut headers = vec![(id.clone(), "m".to_owned()), (name(other, "id"), "EVIL".to_owned())];
        let time = now.timestamp().to_string();
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"secret").expect("a key");
        mac.update(format!("{}.{time}.", asked[0].1).as_bytes());
        mac.update(body);
        let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        headers.push((name(signed, "timestamp"), time));
        headers.push((name(signed, "signature"), format!("v1,{signature}")));
        // The other family is there in full, and wrong.
        headers.push((name(other, "timestamp"), now.timestamp().to_string()));
        headers.push((name(other, "signature"), "v1,AAAA".to_owned()));
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let received = source.receive(&Incoming::post(&headers[..], body, now));
        let Ok(Received::Events { accepted, .. }) = received else {
            panic!("{received:?}")
        };
        assert_eq!(accepted[0].id, "m", "signed by {signed}");
    }
}

/// A public key is known to everybody: taken for an HMAC's secret it would let everybody sign.
#[test]
fn it_must_be_clear_which_scheme_a_secret_is_for() {
    let bare = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    let standard = "name = \"s\"\npreset = \"standard\"\nsecrets = [SECRET]";
    let refused = source(standard, &bare)
        .expect_err("a secret, or a public key?")
        .to_string();
    assert!(
        refused.contains("whsec_, whpk_") && !refused.contains(&bare),
        "{refused}"
    );
    assert!(source(standard, &format!("whsec_{bare}")).is_ok());
    assert!(
        source(standard, "c2VjcmV0").is_ok(),
        "of another length it is no public key"
    );
    let two = "name = \"s\"\npreset = \"standard\"\nsecrets = [SECRET]
        auth = [{ kind = \"hmac\", header = \"x-sig\", encoding = \"hex\" }, { kind = \"token\", header = \"x-token\" }]";
    let refused = source(two, "s")
        .expect_err("nobody could ever come by the second")
        .to_string();
    assert!(refused.contains("secret_prefix"), "{refused}");
}

#[test]
fn an_amount_that_is_no_value_is_refused_and_not_dropped() {
    for (amount, why) in [("{\"value\":5}", "is an object"), ("[5]", "is an array")] {
        let body = format!(
            r#"{{"id":"evt","type":"payment_intent.succeeded","created":1,"data":{{"object":{{"id":"pi","amount":{amount},"currency":"usd","status":"succeeded"}}}}}}"#
        );
        let refused = of("stripe").map(&Incoming::post(&[][..] as &[(&str, &str)], body.as_bytes(), Utc::now()));
        assert!(
            matches!(&refused, Err(Refusal::Unmappable { field: "amount", why: said, .. }) if said.contains(why)),
            "{refused:?}"
        );
    }
}

#[test]
fn an_answer_that_a_provider_would_take_for_a_failure_is_refused() {
    for answer in ["{ status = 500 }", "{ status = 302 }", "{ content_type = \"a\\nb\" }"] {
        let config = format!("name = \"s\"\npreset = \"shopify\"\nsecrets = [SECRET]\nanswer = {answer}");
        assert!(source(&config, "k").is_err(), "{answer}");
    }
}

#[test]
fn paypal_names_a_refunds_capture_wherever_the_link_stands() {
    let refund = |links: Value| {
        json!({ "id": "WH-1", "event_type": "PAYMENT.CAPTURE.REFUNDED", "resource_type": "refund", "create_time": "2026-01-02T03:04:05Z",
            "resource": { "id": "R1", "status": "COMPLETED", "amount": { "value": "1.00", "currency_code": "USD" }, "links": links } })
    };
    let this = json!({ "rel": "self", "href": "https://api.paypal.com/v2/payments/refunds/R1" });
    let up = json!({ "rel": "up", "href": "https://api.paypal.com/v2/payments/captures/C1" });
    for links in [
        json!([this, up]),
        json!([up, this]),
        json!([up]),
        json!([this, this, up]),
    ] {
        let events = mapped(&of("paypal"), &[], &refund(links.clone()));
        assert!(events[0].contains("capture:C1 capture:C1"), "{links}: {events:?}");
    }
    let body = refund(json!([this])).to_string();
    let none = of("paypal").map(&Incoming::post(&[][..] as &[(&str, &str)], body.as_bytes(), Utc::now()));
    assert!(
        matches!(none, Err(Refusal::Unmappable { .. })),
        "its own id is no capture: {none:?}"
    );
}

#[test]
fn events_that_providers_send_now_and_then() {
    let topic = |topic| {
        [
            ("x-shopify-topic", topic),
            ("x-shopify-event-id", "e"),
            ("x-shopify-shop-domain", "s"),
        ]
    };
    let dispute = json!({ "id": 5, "order_id": null, "type": "chargeback", "status": "lost", "amount": "1.00", "currency": "USD",
        "initiated_at": "2026-01-02T03:04:05Z" });
    let events = mapped(&of("shopify"), &topic("disputes/create"), &dispute);
    assert!(events[0].contains(" dispute:s/5 - s/5 lost "), "{events:?}");
    let payment = |refunded: u32| {
        json!({ "event_id": "e", "type": "payment.updated", "merchant_id": "m", "created_at": "2026-01-02T03:04:05Z",
            "data": { "object": { "payment": { "id": "p", "order_id": "o", "status": "COMPLETED",
                "total_money": { "amount": 100, "currency": "USD" }, "refunded_money": { "amount": refunded, "currency": "USD" } } } } })
    };
    for (refunded, status) in [(0, " paid "), (1, " partially_refunded "), (100, " refunded ")] {
        let events = mapped(&of("square"), &[], &payment(refunded));
        assert!(events[0].contains(status), "{refunded}: {events:?}");
    }
    let intent = json!({ "id": "evt", "type": "payment_intent.created", "created": 1,
        "data": { "object": { "id": "pi", "amount": 1, "currency": "usd", "status": "requires_source_action" } } });
    assert!(mapped(&of("stripe"), &[], &intent)[0].contains(" pending "));
}
