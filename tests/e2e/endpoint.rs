//! What a provider's endpoint is asked besides events: handshakes, tests, other ways to show who one is, and bodies that nobody
//! should send. Everything is signed by `hookmill sources sign`, and goes over HTTP to a running instance.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Instance, World, light, shared_stack};

const SOURCES: &str = r#"
[[sources]]
name = "github"
preset = "github"
secrets = ["env:ENDPOINT_SECRET"]
[[sources]]
name = "adyen"
preset = "adyen"
secrets = ["env:ENDPOINT_HEX"]
[[sources]]
name = "woo"
preset = "woocommerce"
secrets = ["env:ENDPOINT_SECRET"]
[[sources]]
name = "challenged"
preset = "standard"
secrets = ["env:HOOKMILL_SECRET_STANDARD"]
[[sources.handshake]]
method = "GET"
signed = false
when = { "query:mode" = "subscribe" }
answer = { body = "{query:challenge}" }
[[sources.handshake]]
when = { "/type" = "url_verification" }
answer = { content_type = "application/json", body = '{"challenge":"{/challenge}"}' }
[[sources]]
name = "basic"
preset = "chargebee"
secrets = ["env:ENDPOINT_BASIC"]
[[sources]]
name = "bearer"
preset = "chargebee"
secrets = ["env:ENDPOINT_SECRET"]
auth = { kind = "token", prefix = "Bearer " }
[[sources]]
name = "elsewhere"
preset = "chargebee"
secrets = ["env:ENDPOINT_BASIC"]
allow_from = ["192.0.2.0/24"]
[[sources]]
name = "here"
preset = "chargebee"
secrets = ["env:ENDPOINT_BASIC"]
allow_from = ["192.0.2.0/24", "127.0.0.0/8"]
[[sources]]
name = "open"
preset = "chargebee"
auth = { kind = "none" }
[[sources]]
name = "rotated"
preset = "razorpay"
secrets = [{ from = "env:ENDPOINT_SECRET", name = "new" }, { from = "env:ENDPOINT_BASIC", name = "old" }, { from = "env:ENDPOINT_HEX", name = "ended", valid_until = "2020-01-01T00:00:00Z" }]
"#;

/// PayPal's form, with certificates given beforehand; they were made for these tests, and nothing is fetched.
fn paypal() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/actors/fixtures/paypal");
    format!(
        "[[sources]]\nname = \"paypal\"\npreset = \"paypal\"\nsecrets = [\"env:ENDPOINT_PAYPAL\"]\ncertificates = [\"{folder}/chain.pem\"]\ncertificate_roots = \"{folder}/root.pem\"\n"
    )
}

async fn world(name: &str) -> World {
    let world = World::new(&shared_stack().await, name).await;
    let world = world
        .set("ENDPOINT_SECRET", "s3cret")
        .set("ENDPOINT_BASIC", "user:pass:word")
        .set(
            "ENDPOINT_HEX",
            "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
        );
    let world = world.set("ENDPOINT_PAYPAL", "8PT597110X687430LKGECATA");
    world.configured(|text| text + SOURCES + &paypal())
}

/// A body in a file, for commands.
fn file(world: &World, name: &str, body: &[u8]) -> PathBuf {
    let path = world.log_dir().join(format!("{}-{name}", world.name));
    std::fs::write(&path, body).expect("a file");
    path
}

/// The request that `hookmill sources sign` makes of a body.
async fn signed(
    world: &World,
    source: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (Vec<(String, String)>, Vec<u8>) {
    let path = file(world, &format!("{source}.body"), body);
    let path = path.to_str().expect("UTF-8");
    let given: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let mut command = vec!["sources", "sign", source, "--body", path, "--output", "json"];
    given.iter().for_each(|header| command.extend(["--header", header]));
    let (code, said) = world.run(&format!("sign-{source}"), &command, &[]).await;
    assert_eq!(code, 0, "{said}");
    let answer: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect("JSON");
    let headers = serde_json::from_value(answer["headers"].clone()).expect("pairs");
    let body = answer["body"]
        .as_str()
        .map_or(body.to_vec(), |text| text.as_bytes().to_vec());
    (headers, body)
}

async fn post(instance: &Instance, source: &str, headers: &[(String, String)], body: &[u8]) -> (u16, String) {
    let response = instance.post(&format!("/webhooks/{source}"), headers, body).await;
    (response.status().as_u16(), response.text().await.expect("a text"))
}

fn of(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

const INVOICE: &str = r#"{"id":"ev_1","event_type":"payment_succeeded","occurred_at":1772618400,"content":{"invoice":{"id":"INV1","customer_id":"cus1","status":"paid","total":100,"currency_code":"EUR"}}}"#;

#[test]
fn handshakes_and_tests_get_their_answer_and_nothing_of_them_lands() {
    light(async {
        let world = world("handshakes").await;
        let instance = world.start("only").await;

        // GitHub's ping, which is signed; without a signature it is nobody's.
        let ping = br#"{"zen":"Design for failure.","hook_id":1}"#;
        let (headers, body) = signed(&world, "github", &[("X-GitHub-Event", "ping")], ping).await;
        assert_eq!(
            post(&instance, "github", &headers, &body).await,
            (200, "pong".to_owned())
        );
        assert_eq!(
            post(&instance, "github", &of(&[("x-github-event", "ping")]), ping)
                .await
                .0,
            401
        );

        // Shopify's "Send test notification", of a topic that is mapped.
        let order = br#"{"id":1,"updated_at":"2026-03-04T10:00:00Z","financial_status":"paid","total_price":"1.00","currency":"USD"}"#;
        let topic = [
            ("X-Shopify-Topic", "orders/paid"),
            ("X-Shopify-Shop-Domain", "a.example"),
            ("X-Shopify-Event-Id", "e"),
        ];
        let (mut headers, body) = signed(&world, "shopify", &topic, order).await;
        headers.push(("X-Shopify-Test".to_owned(), "true".to_owned()));
        assert_eq!(
            post(&instance, "shopify", &headers, &body).await,
            (200, "ok".to_owned())
        );

        // Adyen's test of a configuration, and a report that nobody maps: both get the word that it waits for.
        let item = |psp: &str, code: &str| {
            json!({ "live": "false", "notificationItems": [{ "NotificationRequestItem": { "pspReference": psp, "eventCode": code,
                "eventDate": "2026-03-04T10:00:00+01:00", "merchantAccountCode": "Shop", "merchantReference": "R", "success": "true",
                "amount": { "value": 1, "currency": "EUR" } } }] })
            .to_string()
        };
        for (psp, code) in [("test_AUTHORISATION_1", "AUTHORISATION"), ("8", "REPORT_AVAILABLE")] {
            let (headers, body) = signed(&world, "adyen", &[], item(psp, code).as_bytes()).await;
            assert_eq!(
                post(&instance, "adyen", &headers, &body).await,
                (200, "[accepted]".to_owned()),
                "{code}"
            );
        }

        // WooCommerce posts a new webhook's number as a form, without a signature; anything else without one is refused.
        let form = of(&[("content-type", "application/x-www-form-urlencoded")]);
        assert_eq!(
            post(&instance, "woo", &form, b"webhook_id=12").await,
            (200, "ok".to_owned())
        );
        assert_eq!(post(&instance, "woo", &form, b"something=12").await.0, 401);
        assert_eq!(post(&instance, "woo", &[], br#"{"webhook_id":12}"#).await.0, 401);

        // A challenge by GET, one in a signed body, and a GET where none is expected.
        let get = async |path: &str| {
            let response = instance
                .client
                .get(format!("{}{path}", instance.url))
                .send()
                .await
                .expect("an answer");
            (response.status().as_u16(), response.text().await.expect("a text"))
        };
        assert_eq!(
            get("/webhooks/challenged?mode=subscribe&challenge=a%2Bb").await,
            (200, "a+b".to_owned())
        );
        assert_eq!(get("/webhooks/challenged?mode=other&challenge=a").await.0, 401);
        assert_eq!(get("/webhooks/github").await.0, 405);
        let challenge = br#"{"type":"url_verification","challenge":"c-1"}"#;
        let (headers, body) = signed(&world, "challenged", &[], challenge).await;
        assert_eq!(
            post(&instance, "challenged", &headers, &body).await,
            (200, r#"{"challenge":"c-1"}"#.to_owned())
        );

        for topic in [world.orders(), world.disputes()] {
            let partitions = if topic == world.orders() {
                world.partitions.0
            } else {
                world.partitions.1
            };
            assert!(world.records(&topic, partitions).await.is_empty(), "{topic}");
        }
        assert!(world.records(&world.parked(), 1).await.is_empty());
        assert!(world.events().await.is_empty());
        instance.stop().await;
    });
}

#[test]
fn passwords_tokens_addresses_and_secrets_that_end() {
    light(async {
        let world = world("ways_in").await;
        let instance = world.start("only").await;
        let status = async |source: &str, headers: &[(&str, &str)]| {
            post(&instance, source, &of(headers), INVOICE.as_bytes()).await.0
        };
        let basic = ("authorization", "Basic dXNlcjpwYXNzOndvcmQ=");
        assert_eq!(status("basic", &[basic]).await, 202);
        for wrong in [
            "Basic dXNlcjpwYXNz",
            "Bearer dXNlcjpwYXNzOndvcmQ=",
            "Basic",
            "dXNlcjpwYXNzOndvcmQ=",
            "",
        ] {
            assert_eq!(status("basic", &[("authorization", wrong)]).await, 401, "{wrong}");
        }
        assert_eq!(status("basic", &[basic, basic]).await, 401);
        assert_eq!(status("basic", &[]).await, 401);
        assert_eq!(status("bearer", &[("authorization", "Bearer s3cret")]).await, 202);
        assert_eq!(status("bearer", &[("authorization", "Bearer s3cre")]).await, 401);
        // The address is one more condition: right or not, the password alone does not do.
        assert_eq!(status("elsewhere", &[basic]).await, 403);
        assert_eq!(
            status("elsewhere", &[basic, ("x-forwarded-for", "192.0.2.7")]).await,
            403
        );
        assert_eq!(status("here", &[basic]).await, 202);
        assert_eq!(status("here", &[]).await, 401);
        // On loopback, where this instance listens, nothing need be asked.
        assert_eq!(status("open", &[]).await, 202);

        // Three secrets, one of which has ended.
        let event = br#"{"event":"order.paid","created_at":1772618400,"payload":{"order":{"entity":{"id":"o1","amount":1,"currency":"INR","status":"paid"}}}}"#;
        let (made_with_new, _) = signed(&world, "rotated", &[("x-razorpay-event-id", "rz-1")], event).await;
        assert_eq!(post(&instance, "rotated", &made_with_new, event).await.0, 202);
        let used = async |name: &str| {
            let stats = instance.stats().await;
            let sources = stats["sources"].as_array().expect("sources").clone();
            let source = sources.into_iter().find(|s| s["name"] == "rotated").expect("ours");
            let secrets = source["secrets"].as_array().expect("secrets").clone();
            secrets.into_iter().find(|s| s["name"] == name).expect("it is shown")
        };
        assert!(used("new").await["last_matched"].is_string());
        assert!(used("old").await["last_matched"].is_null());
        assert_eq!(used("ended").await["valid_until"], "2020-01-01T00:00:00.000Z");
        let with = async |secret: &str| {
            let other = world.clone().set("ENDPOINT_SECRET", secret);
            let (headers, _) = signed(&other, "rotated", &[("x-razorpay-event-id", "rz-2")], event).await;
            post(&instance, "rotated", &headers, event).await.0
        };
        assert_eq!(with("user:pass:word").await, 202);
        assert!(used("old").await["last_matched"].is_string());
        let ended = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
        assert_eq!(with(ended).await, 401);
        assert!(used("ended").await["last_matched"].is_null());
        let metrics = instance
            .client
            .get(format!("{}/metrics", instance.admin))
            .send()
            .await
            .expect("metrics");
        let metrics = metrics.text().await.expect("a text");
        let line = |secret: &str| format!(r#"last_matched_timestamp_seconds{{source="rotated",secret="{secret}"}}"#);
        assert!(
            metrics.contains(&line("old")) && metrics.contains(&line("new")),
            "{metrics}"
        );
        assert!(
            !metrics.contains(&line("ended")) && !metrics.contains("pass:word"),
            "{metrics}"
        );

        // A certificate's signature, offline; and changes of all that it covers.
        let fixture = |name: &str| {
            let path = format!("{}/actors/fixtures/paypal/{name}", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).expect("a fixture")
        };
        let (body, signature) = (fixture("dispute-created.json"), fixture("leaf.sig"));
        let request = [
            ("paypal-transmission-id", "69cd13f0-d67a-11e5-baa3-778b53f4ae55"),
            ("paypal-transmission-time", "2026-01-02T03:04:06Z"),
            ("paypal-transmission-sig", signature.trim()),
            (
                "paypal-cert-url",
                "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77",
            ),
            ("paypal-auth-algo", "SHA256withRSA"),
        ];
        let paypal = async |headers: &[(&str, &str)], body: &str| {
            post(&instance, "paypal", &of(headers), body.as_bytes()).await.0
        };
        assert_eq!(paypal(&request, &body).await, 202);
        assert_eq!(paypal(&request, &format!("{body} ")).await, 401);
        for (at, value) in [
            (0, "another"),
            (1, "2026-01-02T03:04:07Z"),
            (2, "AAAA"),
            (2, ""),
            (3, "https://evil.example/cert"),
            (4, "none"),
        ] {
            let mut changed = request;
            changed[at].1 = value;
            assert_eq!(paypal(&changed, &body).await, 401, "{} {value}", request[at].0);
            assert_eq!(
                paypal(&[&request[..], &request[at..=at]].concat(), &body).await,
                401,
                "{} twice",
                request[at].0
            );
        }
        instance.stop().await;

        // Off loopback, who asks for nothing must say it twice.
        let (code, said) = world
            .run("off", &["check"], &[("HOOKMILL_INGEST__LISTEN", "0.0.0.0:0")])
            .await;
        assert!(code != 0 && said.contains("i know"), "{said}");
    });
}

/// Each body is signed rightly, as sent. What could be read in two ways, or in none, is refused, and everything goes on.
#[test]
fn bodies_that_nobody_should_send_are_refused_and_harm_nothing() {
    light(async {
        let world = world("odd_bodies").await;
        let instance = world.start("only").await;
        let event = |id: &str, more: &str| {
            format!(
                r#"{{"type":"order.paid","timestamp":"2026-03-04T10:00:00Z","data":{{"id":"{id}","user_id":"u1","amount":1,"currency":"usd","status":"paid"{more}}}}}"#
            )
        };
        let deep = |depth: usize| event("deep", &format!(r#","x":{}0{}"#, "[".repeat(depth), "]".repeat(depth)));
        let objects = |depth: usize| {
            event(
                "deep",
                &format!(r#","x":{}0{}"#, r#"{"x":"#.repeat(depth), "}".repeat(depth)),
            )
        };
        let refused: Vec<(&str, u16, Vec<u8>)> = vec![
            ("empty", 400, Vec::new()),
            ("no JSON", 400, b"hello".to_vec()),
            ("cut", 400, event("o", "").into_bytes()[..40].to_vec()),
            ("something behind it", 400, (event("o", "") + "{}").into_bytes()),
            (
                "a byte order mark",
                400,
                format!("\u{feff}{}", event("o", "")).into_bytes(),
            ),
            (
                "UTF-16",
                400,
                event("o", "").encode_utf16().flat_map(u16::to_le_bytes).collect(),
            ),
            (
                "invalid UTF-8",
                400,
                event("o", "")
                    .replace("u1", "@")
                    .into_bytes()
                    .iter()
                    .map(|b| if *b == b'@' { 0xff } else { *b })
                    .collect(),
            ),
            ("an overlong NUL", 400, [b"{\"a\":\"\xc0\x80\"}".as_slice()].concat()),
            ("deep arrays", 400, deep(200).into_bytes()),
            ("very deep arrays", 400, deep(100_000).into_bytes()),
            ("very deep objects", 400, objects(50_000).into_bytes()),
            ("an array without end", 400, "[".repeat(500_000).into_bytes()),
            (
                "a key twice that is read",
                400,
                event("o", r#","user_id":"u2""#).into_bytes(),
            ),
            (
                "a key twice that nobody reads",
                400,
                event("o", r#","note":1,"note":1"#).into_bytes(),
            ),
            (
                "a key twice, escaped",
                400,
                event("o", r#","us\u0065r_id":"u2""#).into_bytes(),
            ),
            (
                "a key twice, far inside",
                400,
                event("o", r#","a":[{"b":{"c":1,"c":2}}]"#).into_bytes(),
            ),
            ("infinite", 400, event("o", r#","weight":1e999"#).into_bytes()),
            ("minus infinite", 400, event("o", r#","weight":-1e999"#).into_bytes()),
            (
                "a million digits",
                400,
                event("o", &format!(r#","weight":{}"#, "9".repeat(500_000))).into_bytes(),
            ),
            ("NaN", 400, event("o", r#","weight":NaN"#).into_bytes()),
            ("a control character", 400, event("a\u{1}b", "").into_bytes()),
            ("a comment", 400, (event("o", "") + " // hi").into_bytes()),
            (
                "an amount above 64 bits",
                422,
                event("o", "").replace(":1,", ":99999999999999999999,").into_bytes(),
            ),
            (
                "an amount with an exponent",
                422,
                event("o", "").replace(":1,", ":1e3,").into_bytes(),
            ),
            (
                "half an amount",
                422,
                event("o", "").replace(":1,", ":1.5,").into_bytes(),
            ),
            (
                "an id of a thousand digits",
                422,
                event("o", "").replace("\"o\"", &"9".repeat(1000)).into_bytes(),
            ),
            ("an id with NUL", 422, event("a\\u0000b", "").into_bytes()),
            (
                "a year without end",
                422,
                event("o", "").replace("2026-03", "99999-03").into_bytes(),
            ),
            ("a list", 200, b"[]".to_vec()),
            ("a number", 200, b"12345678901234567890".to_vec()),
        ];
        for (what, wanted, body) in refused {
            let (headers, _) = signed(&world, "challenged", &[("webhook-id", "msg_odd")], &body).await;
            let (status, said) = post(&instance, "challenged", &headers, &body).await;
            assert_eq!(status, wanted, "{what}: {said}");
            assert!(said.len() < 2000, "{what}: {said}");
        }
        // What is only unusual is taken, to the byte.
        let unusual = event(
            "9007199254740993",
            r#","note":"\ud800 \u0000","weight":0.1000000000000000000000000000001,"x":{"x":{"x":1}}"#,
        );
        let unusual = format!("\r\n\t {unusual} \n");
        let (headers, _) = signed(&world, "challenged", &[("webhook-id", "msg_good")], unusual.as_bytes()).await;
        assert_eq!(post(&instance, "challenged", &headers, unusual.as_bytes()).await.0, 202);
        world.landed(std::time::Duration::from_secs(30)).await;
        let ids: Vec<String> = world.events().await.into_iter().map(|e| e.event_id).collect();
        assert_eq!(ids, ["msg_good"]);
        world.nothing_buried().await;
        instance.stop().await;
    });
}
