//! Events in each provider's documented shape, and what they must become.

use chrono::{TimeDelta, Utc};
use serde_json::json;

use super::super::*;

/// A source from its configuration; `SECRET` in it becomes a reference to a file with `secret`.
pub(super) fn source(config: &str, secret: &str) -> Result<Source, SourceConfigError> {
    let path = std::env::temp_dir().join(format!(
        "hookmill-presets-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, secret).expect("a temporary file");
    let text = config.replace("SECRET", &format!("\"file:{}\"", path.display()));
    let parsed: SourceConfig = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
    let source = parsed.compile();
    std::fs::remove_file(&path).expect("the temporary file");
    source
}

pub(super) fn of(preset: &str) -> Source {
    SourceConfig::of_preset(preset)
        .compile_unverified()
        .expect("the preset compiles")
}

/// The events that a body becomes, as `kind event user order dispute status amount currency time`.
pub(super) fn mapped(source: &Source, headers: &[(&str, &str)], body: &Value) -> Vec<String> {
    let body = body.to_string();
    let request = Incoming::post(headers, body.as_bytes(), Utc::now());
    match source.map(&request) {
        Ok(Received::Events { accepted, .. }) => accepted
            .iter()
            .map(|event| {
                let event: Value = serde_json::from_slice(&event.value).expect("JSON");
                let keys = [
                    "kind",
                    "id",
                    "userid",
                    "orderid",
                    "disputeid",
                    "status",
                    "amountminor",
                    "currency",
                    "time",
                ];
                keys.map(|key| event[key].as_str().unwrap_or("-").to_owned()).join(" ")
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_preset_compiles_and_says_what_to_know() {
    let names: Vec<&str> = presets().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 15, "{names:?}");
    for (name, about) in presets() {
        let about = about.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(about.contains("https://"), "{name} names its source");
        assert!(
            about.to_lowercase().contains("key") || name == "github",
            "{name} says where its key comes from"
        );
        let config = SourceConfig::of_preset(name);
        let effective = config.effective().expect("it is effective");
        assert!(
            effective.map.iter().all(|rule| rule.name.is_some()),
            "{name}: rules have names"
        );
        of(name);
    }
}

#[test]
fn woocommerce() {
    let source = of("woocommerce");
    let body = json!({ "id": 727, "status": "processing", "currency": "JPY", "total": "2935", "customer_id": 0,
        "date_modified_gmt": "2026-03-22T19:28:08" });
    let headers = [("X-WC-Webhook-Topic", "order.updated")];
    let expected =
        "order order.updated:727:2026-03-22T19:28:08:processing order:727 727 - paid 2935 JPY 2026-03-22T19:28:08Z";
    assert_eq!(mapped(&source, &headers, &body), [expected]);
    // The number of a new webhook, unsigned, as a form.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let ping = Incoming::post(&form[..], b"webhook_id=12", Utc::now());
    assert!(matches!(source.receive(&ping), Ok(Received::Handshake(answer)) if answer.status == 200));
}

#[test]
fn bigcommerce_paddle_and_checkout() {
    let thin = json!({ "scope": "store/order/statusUpdated", "store_id": "1025646", "data": { "type": "order", "id": 250,
        "status": { "previous_status_id": 0, "new_status_id": 10 } }, "hash": "7ee67cd1", "created_at": 1_767_323_045, "producer": "stores/abc" });
    let expected = "order m1 order:stores/abc/250 stores/abc/250 - fulfilled - - 2026-01-02T03:04:05Z";
    assert_eq!(mapped(&of("bigcommerce"), &[("webhook-id", "m1")], &thin), [expected]);

    let transaction = json!({ "event_id": "evt_01", "event_type": "transaction.completed", "occurred_at": "2026-01-02T03:04:05.5Z",
        "data": { "id": "txn_01", "status": "completed", "customer_id": null, "currency_code": "USD",
                  "details": { "totals": { "grand_total": "59950", "currency_code": "USD" } } } });
    let expected = "order evt_01 order:txn_01 txn_01 - paid 59950 USD 2026-01-02T03:04:05.500Z";
    assert_eq!(mapped(&of("paddle"), &[], &transaction), [expected]);
    let chargeback = json!({ "event_id": "evt_02", "event_type": "adjustment.created", "occurred_at": "2026-01-03T03:04:05Z",
        "data": { "id": "adj_01", "action": "chargeback_warning", "transaction_id": "txn_01", "currency_code": "USD", "totals": { "total": "100" } } });
    let expected = "dispute evt_02 order:txn_01 txn_01 adj_01 inquiry_needs_response 100 USD 2026-01-03T03:04:05Z";
    assert_eq!(mapped(&of("paddle"), &[], &chargeback), [expected]);

    let dispute = json!({ "id": "evt_az", "type": "dispute_evidence_required", "created_on": "2026-01-02T03:04:05Z",
        "data": { "id": "dsp_1", "payment_id": "pay_1", "amount": 6540, "currency": "USD" } });
    let expected = "dispute evt_az payment:pay_1 pay_1 dsp_1 needs_response 6540 USD 2026-01-02T03:04:05Z";
    assert_eq!(mapped(&of("checkout"), &[], &dispute), [expected]);
}

#[test]
fn klarna_chargebee_and_paypal() {
    let klarna = json!({ "metadata": { "event_id": "e1", "event_type": "payment.request.state-change.completed", "occurred_at": "2026-01-02T03:04:05Z" },
        "payload": { "payment_request_id": "krn:1", "state": "COMPLETED" } });
    let expected = "order e1 order:krn:1 krn:1 - paid - - 2026-01-02T03:04:05Z";
    assert_eq!(mapped(&of("klarna"), &[], &klarna), [expected]);

    let chargebee = json!({ "id": "ev_1", "event_type": "payment_succeeded", "occurred_at": 1_767_323_045,
        "content": { "invoice": { "id": "INV1", "customer_id": "cus9", "status": "paid", "total": 9900, "currency_code": "EUR", "resource_version": 1_767_323_045_123_i64 } } });
    let expected = "order ev_1 cus9 INV1 - paid 9900 EUR 2026-01-02T03:04:05Z";
    assert_eq!(mapped(&of("chargebee"), &[], &chargebee), [expected]);

    let capture = json!({ "id": "WH-1", "event_type": "PAYMENT.CAPTURE.COMPLETED", "create_time": "2026-01-02T03:04:05Z",
        "resource": { "id": "CAP1", "status": "COMPLETED", "update_time": "2026-01-02T03:04:00Z",
                      "amount": { "value": "7.47", "currency_code": "USD" }, "supplementary_data": { "related_ids": { "order_id": "ORD1" } } } });
    let expected = "order WH-1 order:ORD1 ORD1 - paid 747 USD 2026-01-02T03:04:00Z";
    assert_eq!(mapped(&of("paypal"), &[], &capture), [expected]);
}

fn adyen_item(psp: &str, code: &str) -> Value {
    json!({ "NotificationRequestItem": { "pspReference": psp, "eventCode": code, "eventDate": "2026-01-02T04:04:05+01:00",
        "merchantAccountCode": "Shop", "merchantReference": "ORD-1", "success": "true", "amount": { "value": 1130, "currency": "EUR" } } })
}

/// The example of https://docs.adyen.com/development-resources/webhooks/verify-hmac-signatures/
#[test]
fn adyens_own_example_is_verified_and_all_of_a_request_is_or_nothing() {
    const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
    let source = source("name = \"a\"\npreset = \"adyen\"\nsecrets = [SECRET]", KEY).expect("it compiles");
    let example = json!({ "NotificationRequestItem": {
        "additionalData": { "hmacSignature": "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0=" },
        "amount": { "currency": "EUR", "value": 1130 }, "pspReference": "7914073381342284", "eventCode": "AUTHORISATION",
        "eventDate": "2019-05-06T17:15:34.121+02:00", "merchantAccountCode": "TestMerchant", "merchantReference": "TestPayment-1407325143704",
        "operations": ["CANCEL", "CAPTURE", "REFUND"], "paymentMethod": "visa", "success": "true" } });
    let receive = |items: Vec<Value>| {
        let body = json!({ "live": "false", "notificationItems": items }).to_string();
        source.receive(&Incoming::post(&[][..], body.as_bytes(), Utc::now()))
    };
    let Ok(Received::Events { accepted, .. }) = receive(vec![example.clone()]) else {
        panic!("{:?}", receive(vec![example.clone()]))
    };
    assert_eq!(accepted[0].id, "7914073381342284:AUTHORISATION");
    assert_eq!(source.answer().map(|answer| answer.body.as_str()), Some("[accepted]"));

    let mut forged = example.clone();
    forged["NotificationRequestItem"]["amount"]["value"] = json!(1131);
    let wrong = Err(Refusal::Unauthorized(AuthError::Wrong));
    assert_eq!(receive(vec![example.clone(), forged]), wrong);
    let unsigned = receive(vec![example.clone(), adyen_item("1", "REFUND")]);
    assert!(
        matches!(unsigned, Err(Refusal::Unauthorized(AuthError::MissingField { .. }))),
        "{unsigned:?}"
    );
    assert!(matches!(
        receive(vec![]),
        Err(Refusal::Unmappable { field: "each", .. })
    ));
}

#[test]
fn adyens_events_and_its_test() {
    let source = of("adyen");
    let several = json!({ "notificationItems": [adyen_item("8", "CAPTURE"), adyen_item("9", "SECOND_CHARGEBACK"), adyen_item("test_AUTHORISATION_1", "AUTHORISATION")] });
    let expected = [
        "order 8:CAPTURE order:Shop/ORD-1 ORD-1 - paid 1130 EUR 2026-01-02T03:04:05Z",
        "dispute 9:SECOND_CHARGEBACK order:Shop/ORD-1 ORD-1 9 lost 1130 EUR 2026-01-02T03:04:05Z",
    ];
    assert_eq!(mapped(&source, &[], &several), expected);
    let test = json!({ "notificationItems": [adyen_item("test_AUTHORISATION_1", "AUTHORISATION")] }).to_string();
    let answer = source.map(&Incoming::post(&[][..], test.as_bytes(), Utc::now()));
    assert!(matches!(answer, Ok(Received::Handshake(answer)) if answer.body == "[accepted]"));
}

#[test]
fn github_pings_are_answered_and_its_vector_is_accepted() {
    let beside = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/providers/samples");
    let folder = std::env::var_os("HOOKMILL_PROVIDER_SAMPLES").map_or(beside, Into::into);
    let vectors: Vec<Value> =
        serde_json::from_slice(&std::fs::read(folder.join("vectors.json")).expect("vectors")).expect("JSON");
    let vector = vectors
        .iter()
        .find(|v| v["scheme"] == "github")
        .expect("a vector of GitHub");
    let body = match vector["body_file"].as_str() {
        Some(file) => std::fs::read(folder.join(file)).expect("a body"),
        None => vector["body"].as_str().expect("a body").as_bytes().to_vec(),
    };
    let secret = vector["secret"].as_str().expect("a secret");
    let source = source("name = \"g\"\npreset = \"github\"\nsecrets = [SECRET]", secret).expect("it compiles");
    let signature = vector["headers"]["x-hub-signature-256"].as_str().expect("a signature");
    let headers = [("X-Hub-Signature-256", signature), ("X-GitHub-Event", "ping")];
    assert_eq!(source.verify(&Incoming::post(&headers[..], &body, Utc::now())), Ok(()));
    let ping = of("github").map(&Incoming::post(&headers[..], b"{}", Utc::now()));
    assert!(matches!(ping, Ok(Received::Handshake(answer)) if answer.body == "pong"));
}

#[test]
fn basic_authentication_tokens_and_addresses() {
    let basic = source(
        "name = \"c\"\npreset = \"chargebee\"\nsecrets = [SECRET]\nallow_from = [\"10.0.0.0/8\", \"::1\"]",
        "user:pass:word",
    )
    .expect("it compiles");
    let verify = |source: &Source, value: &str| {
        source.verify(&Incoming::post(&[("Authorization", value)][..], b"{}", Utc::now()))
    };
    assert_eq!(verify(&basic, "Basic dXNlcjpwYXNzOndvcmQ="), Ok(()));
    for wrong in [
        "Basic dXNlcjpwYXNz",
        "Bearer dXNlcjpwYXNzOndvcmQ=",
        "Basic",
        "Basic \u{e9}",
    ] {
        assert!(verify(&basic, wrong).is_err(), "{wrong}");
    }
    let from = |peer: &str| {
        let headers = [("Authorization", "Basic dXNlcjpwYXNzOndvcmQ=")];
        basic.receive(&Incoming {
            peer: Some(peer.parse().expect("an address")),
            ..Incoming::post(&headers[..], b"{}", Utc::now())
        })
    };
    assert!(from("10.1.2.3").is_ok() && from("::ffff:10.1.2.3").is_ok() && from("::1").is_ok());
    assert_eq!(from("11.1.2.3"), Err(Refusal::Unauthorized(AuthError::Address)));
    let no_colon = source("name = \"c\"\npreset = \"chargebee\"\nsecrets = [SECRET]", "password").expect_err("no user");
    assert!(no_colon.to_string().contains("user:password"), "{no_colon}");

    let token =
        "name = \"t\"\npreset = \"standard\"\nsecrets = [SECRET]\nauth = { kind = \"token\", prefix = \"Bearer \" }";
    let token = source(token, "s3cret").expect("it compiles");
    assert_eq!(verify(&token, "bearer s3cret"), Ok(()));
    assert_eq!(
        verify(&token, "Bearer s3cre"),
        Err(Refusal::Unauthorized(AuthError::Wrong))
    );
}

#[test]
fn public_keys_and_secrets_stand_side_by_side() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let public = format!("whpk_{}", STANDARD.encode(pair.public_key().as_ref()));
    for (preset, header) in [("standard", "webhook"), ("svix", "svix"), ("svix", "webhook")] {
        let source = source(
            &format!("name = \"s\"\npreset = \"{preset}\"\nsecrets = [SECRET]"),
            &public,
        )
        .expect("it compiles");
        let now = Utc::now();
        let (time, body) = (now.timestamp().to_string(), b"{}");
        let signature = |message: &str| {
            format!(
                "v1,AAAA v1a,{}",
                STANDARD.encode(pair.sign(message.as_bytes()).as_ref())
            )
        };
        let verify = |signature: &str| {
            let names = [
                format!("{header}-id"),
                format!("{header}-timestamp"),
                format!("{header}-signature"),
            ];
            let headers = [
                (names[0].as_str(), "m1"),
                (names[1].as_str(), time.as_str()),
                (names[2].as_str(), signature),
            ];
            source.verify(&Incoming::post(&headers[..], body, now))
        };
        assert_eq!(verify(&signature(&format!("m1.{time}.{{}}"))), Ok(()), "{preset}");
        assert_eq!(
            verify(&signature(&format!("m2.{time}.{{}}"))),
            Err(Refusal::Unauthorized(AuthError::Wrong))
        );
    }
}

#[test]
fn a_secret_ends_when_it_is_said_to_and_its_use_is_seen() {
    let until = "2026-06-01T00:00:00Z";
    let config = format!(
        "name = \"s\"\npreset = \"shopify\"\nsecrets = [{{ from = SECRET, name = \"old\", valid_until = \"{until}\" }}]"
    );
    let source = source(&config, "k").expect("it compiles");
    assert!(source.secret_uses().all(|(name, at)| name == "old" && at.is_none()));
    let end: DateTime<Utc> = until.parse().expect("a time");
    let sign = |now| source.sign(&Incoming::post(&[][..] as &[(&str, &str)], b"{}", now));
    assert_eq!(sign(end + TimeDelta::seconds(1)), None, "nor is it signed with");
    let verify = |now| {
        let headers = sign(end).expect("an HMAC can be made");
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        source.verify(&Incoming::post(&headers[..], b"{}", now))
    };
    assert_eq!(verify(end), Ok(()));
    assert!(source.secret_uses().all(|(_, at)| at == Some(end)));
    assert_eq!(
        verify(end + TimeDelta::seconds(1)),
        Err(Refusal::Unauthorized(AuthError::Wrong))
    );
    let shown = source.secrets_view();
    assert_eq!(shown[0]["name"], "old");
    assert!(!shown[0].to_string().contains("\"k\""));
}

#[test]
fn a_named_rule_is_changed_and_others_come_before_and_after() {
    let config = r#"
        name = "stripe"
        preset = "stripe"
        secrets = [SECRET]
        [[map]]
        name = "payment-intent"
        user_id = "customer:{/data/object/customer}"
        [[map]]
        name = "mine"
        when = { "/type" = "sale" }
        kind = "order"
        event_id = "/id"
        event_type = "/type"
        occurred_at = { from = "/created", as = "unix" }
        order_id = "/id"
        user_id = "/id"
        [[map_after]]
        name = "rest"
        when = { "/object" = "event" }
        kind = "order"
        event_id = "/id"
        event_type = "/type"
        occurred_at = { from = "/created", as = "unix" }
        order_id = "/id"
        user_id = "const:rest"
    "#;
    let source = source(config, "whsec").expect("it compiles");
    let event = |kind: &str| json!({ "id": "e", "type": kind, "object": "event", "created": 1_767_323_045, "data": { "object": { "id": "pi_1", "customer": "cus_1" } } });
    let time = "2026-01-02T03:04:05Z";
    assert_eq!(
        mapped(&source, &[], &event("payment_intent.created")),
        [format!("order e customer:cus_1 pi_1 - pending - - {time}").replace("pending", "unknown")]
    );
    assert_eq!(
        mapped(&source, &[], &event("sale")),
        [format!("order e e e - unknown - - {time}")]
    );
    assert_eq!(
        mapped(&source, &[], &event("charge.succeeded")),
        [format!("order e rest e - unknown - - {time}")]
    );
}

#[test]
fn what_is_missing_in_a_rule_is_named() {
    let config = "name = \"s\"\npreset = \"stripe\"\nsecrets = [SECRET]\n[[map]]\nname = \"mine\"\nkind = \"order\"\norder_id = \"/id\"\n";
    let error = source(config, "whsec").expect_err("it is not complete").to_string();
    assert!(error.contains("\"mine\"") && error.contains("`"), "{error}");
}

#[test]
fn what_is_not_understood_is_parked_or_refused_as_the_source_says() {
    let of = |lines: &str| {
        let config = format!("name = \"s\"\npreset = \"standard\"\n{lines}");
        let config: SourceConfig = toml::from_str(&config).expect("a source");
        config.compile_unverified().expect("it compiles")
    };
    let unknown = json!({ "type": "parcel.sent" }).to_string();
    let lacking =
        json!({ "type": "order.paid", "timestamp": "2026-01-02T03:04:05Z", "data": { "id": "1" } }).to_string();
    let receive = |source: &Source, body: &str| {
        source.map(&Incoming::post(&[("webhook-id", "m")][..], body.as_bytes(), Utc::now()))
    };
    let usual = of("");
    assert!(matches!(receive(&usual, &unknown), Ok(Received::Ignored { event_type: Some(t) }) if t == "parcel.sent"));
    assert!(matches!(
        receive(&usual, &lacking),
        Err(Refusal::Unmappable { field: "user_id", .. })
    ));
    let parks = of("unmapped = \"park\"\ninvalid = \"park\"");
    for (body, why) in [(&unknown, "unmapped"), (&lacking, "invalid")] {
        let received = receive(&parks, body);
        assert!(
            matches!(&received, Ok(Received::Events { accepted, parked }) if accepted.is_empty() && parked[0].why == why),
            "{received:?}"
        );
    }
    assert!(matches!(
        receive(&of("unmapped = \"reject\""), &unknown),
        Err(Refusal::Unwanted { .. })
    ));
}

/// A challenge by GET, as some providers prove that an endpoint is one's own.
#[test]
fn a_challenge_is_answered_with_what_it_asks_for() {
    let config = "name = \"s\"\npreset = \"standard\"\n[[handshake]]\nmethod = \"GET\"\nsigned = false\nwhen = { \"query:mode\" = \"subscribe\" }\nanswer = { body = \"{query:challenge}\" }\n";
    let config: SourceConfig = toml::from_str(config).expect("a source");
    let source = config.compile_unverified().expect("it compiles");
    assert!(source.answers_get());
    let get = |query| Incoming {
        method: Method::Get,
        query,
        ..Incoming::post(&[][..], b"", Utc::now())
    };
    let answer = source.receive(&get("mode=subscribe&challenge=a%20b"));
    assert!(matches!(answer, Ok(Received::Handshake(answer)) if answer.body == "a b"));
    assert!(source.receive(&get("mode=other&challenge=a")).is_err());
}
