//! Signatures that the providers' own libraries make are accepted, and no change of them is.
//!
//! The libraries are installed as their registries have them (`libraries/package.json`, `libraries/requirements.txt`) into a
//! folder beside what the build makes. Each signs an event of its provider, which is posted to a running instance; then
//! at least twenty forgeries of every request are, which must all be answered 401.

mod forgeries;
mod install;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Instance, World, light, samples, shared_stack};
use install::{Language, sign};

const NOW: i64 = 0;
const AN_HOUR: i64 = 3600;
const SQUARE_URL: &str = "https://hooks.example.com/webhooks/libraries-square";

/// A library's provider, as the test knows it.
struct Provider {
    library: &'static str,
    /// Besides npm, also PyPI has one.
    python: bool,
    preset: &'static str,
    /// More lines of the source.
    lines: &'static str,
    /// The header that holds the signature, and what stands before it there; nothing where it stands in the body.
    header: &'static str,
    prefix: &'static str,
    /// Headers that the provider sends besides; they are not signed.
    beside: &'static [(&'static str, &'static str)],
    secret: &'static str,
    other_secret: &'static str,
    /// Whether the time of signing is part of the signature.
    timed: bool,
}

const STANDARD: (&str, &str) = (
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
);

const PROVIDERS: &[Provider] = &[
    Provider {
        library: "stripe",
        python: true,
        preset: "stripe",
        lines: "",
        header: "stripe-signature",
        prefix: "v1=",
        beside: &[],
        secret: "whsec_one",
        other_secret: "whsec_two",
        timed: true,
    },
    Provider {
        library: "standardwebhooks",
        python: true,
        preset: "standard",
        lines: "",
        header: "webhook-signature",
        prefix: "v1,",
        beside: &[],
        secret: STANDARD.0,
        other_secret: STANDARD.1,
        timed: true,
    },
    Provider {
        library: "svix",
        python: true,
        preset: "svix",
        lines: "",
        header: "svix-signature",
        prefix: "v1,",
        beside: &[],
        secret: STANDARD.0,
        other_secret: STANDARD.1,
        timed: true,
    },
    Provider {
        library: "octokit",
        python: false,
        preset: "github",
        lines: "[[sources.map]]\nwhen = { \"header:x-github-event\" = \"sponsorship\" }\nkind = \"order\"\nevent_id = \"header:x-github-delivery\"\nevent_type = \"header:x-github-event\"\noccurred_at = { from = \"/at\", as = \"rfc3339\" }\norder_id = \"/id\"\nuser_id = \"/user\"\n",
        header: "x-hub-signature-256",
        prefix: "sha256=",
        beside: &[("x-github-event", "sponsorship"), ("x-github-delivery", "d-1")],
        secret: "It's a Secret to Everybody",
        other_secret: "It's a Secret to Nobody",
        timed: false,
    },
    Provider {
        library: "shopify",
        python: false,
        preset: "shopify",
        lines: "",
        header: "x-shopify-hmac-sha256",
        prefix: "",
        beside: &[
            ("x-shopify-topic", "orders/create"),
            ("x-shopify-event-id", "e-1"),
            ("x-shopify-shop-domain", "shop.example"),
        ],
        secret: "shp_one",
        other_secret: "shp_two",
        timed: false,
    },
    Provider {
        library: "square",
        python: true,
        preset: "square",
        lines: "url = \"https://hooks.example.com/webhooks/libraries-square\"\n",
        header: "x-square-hmacsha256-signature",
        prefix: "",
        beside: &[],
        secret: "square-one",
        other_secret: "square-two",
        timed: false,
    },
    Provider {
        library: "razorpay",
        python: true,
        preset: "razorpay",
        lines: "",
        header: "x-razorpay-signature",
        prefix: "",
        beside: &[("x-razorpay-event-id", "rz-1")],
        secret: "razorpay-one",
        other_secret: "razorpay-two",
        timed: false,
    },
    Provider {
        library: "paddle",
        python: true,
        preset: "paddle",
        lines: "",
        header: "paddle-signature",
        prefix: "h1=",
        beside: &[],
        secret: "pdl_ntfset_one",
        other_secret: "pdl_ntfset_two",
        timed: true,
    },
    Provider {
        library: "adyen",
        python: true,
        preset: "adyen",
        lines: "",
        header: "",
        prefix: "",
        beside: &[],
        secret: "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
        other_secret: "54782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
        timed: false,
    },
];

/// A request, and what is changed of it.
#[derive(Clone)]
struct Request {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[test]
fn the_providers_own_libraries_are_believed_and_no_forgery_is() {
    light(async {
        let world = World::new(&shared_stack().await, "libraries").await;
        let mut sources = String::new();
        let mut env = Vec::new();
        for provider in PROVIDERS {
            let Provider {
                library,
                preset,
                lines,
                secret,
                ..
            } = provider;
            let variable = format!("LIBRARY_{}", library.to_uppercase());
            sources.push_str(&format!(
                "\n[[sources]]\nname = \"libraries-{library}\"\npreset = \"{preset}\"\nsecrets = [\"env:{variable}\"]\n{lines}"
            ));
            env.push((variable, *secret));
        }
        let world = env.iter().fold(world, |world, (name, secret)| world.set(name, secret));
        let world = world.configured(|text| text + &sources);
        let instance = world.start("only").await;

        let (mut accepted, mut refused) = (0, 0);
        for language in [Language::Node, Language::Python] {
            let mut others = others(language);
            for provider in PROVIDERS {
                if language == Language::Python && !provider.python {
                    continue;
                }
                let signed = Signed::by(language, provider);
                for (i, request) in signed.good.iter().enumerate() {
                    let (status, said) = post(&instance, provider, request).await;
                    let good =
                        status == 202 || (provider.preset == "adyen" && (status, said.as_str()) == (200, "[accepted]"));
                    assert!(good, "{language:?} {} body {i}: {status} {said}", provider.library);
                    accepted += 1;
                }
                let foreign = others.remove(provider.library).expect("one of another provider");
                let forgeries = forgeries::all(provider, &signed, &foreign);
                assert!(
                    forgeries.len() >= 20,
                    "{} forgeries of {}",
                    forgeries.len(),
                    provider.library
                );
                for (what, forgery) in forgeries {
                    let (status, said) = post(&instance, provider, &forgery).await;
                    assert_eq!(status, 401, "{language:?} {}, {what}: {said}", provider.library);
                    refused += 1;
                }
            }
        }
        assert_eq!(accepted, (9 + 7) * BODIES, "bodies for each library");
        println!("{accepted} accepted of {accepted}, {refused} refused of {refused}");

        // Those that were accepted are there, each once however often it was signed, and nothing else.
        world.landed(std::time::Duration::from_secs(60)).await;
        let events = world.events().await;
        let ours = events.iter().all(|event| event.source.starts_with("libraries-"));
        assert!(ours && !events.is_empty(), "{} events", events.len());
        let of_adyen = events.iter().filter(|event| event.source == "libraries-adyen").count();
        assert_eq!(of_adyen, 2 * BODIES, "each request of Adyen's has two events");
        world.nothing_buried().await;
        instance.stop().await;
    });
}

/// What a library signed: good requests, and some that are signed right and must be refused all the same.
struct Signed {
    good: Vec<Request>,
    wrong_secret: Request,
    other_body: Request,
    old: Request,
    ahead: Request,
}

/// How many bodies each library signs.
const BODIES: usize = 3;

impl Signed {
    fn by(language: Language, provider: &Provider) -> Self {
        let bodies = bodies(provider.library);
        let job = |body: &str, secret: &str, shift: i64| {
            json!({ "library": provider.library, "body": body, "secret": secret, "url": SQUARE_URL,
                "id": format!("msg_{}", provider.library), "at": chrono::Utc::now().timestamp() + shift })
        };
        let mut jobs: Vec<Value> = bodies.iter().map(|body| job(body, provider.secret, NOW)).collect();
        jobs.push(job(&bodies[0], provider.other_secret, NOW));
        jobs.push(job(&bodies[1], provider.secret, NOW));
        jobs.push(job(&bodies[0], provider.secret, -AN_HOUR));
        jobs.push(job(&bodies[0], provider.secret, AN_HOUR));
        let mut requests = sign(language, &jobs).into_iter().zip(&jobs).map(|(signed, job)| {
            let mut headers: BTreeMap<String, String> = serde_json::from_value(signed).expect("headers");
            // Where the signature stands in the body, the library gives the body.
            let body = headers.remove("body");
            let body = body.unwrap_or_else(|| job["body"].as_str().expect("a body").to_owned());
            let beside = provider
                .beside
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Request {
                headers: headers.into_iter().chain(beside).collect(),
                body: body.into_bytes(),
            }
        });
        let good = requests.by_ref().take(BODIES).collect();
        let mut next = || requests.next().expect("one for each job");
        Self {
            good,
            wrong_secret: next(),
            other_body: next(),
            old: next(),
            ahead: next(),
        }
    }
}

/// For each library a request that another provider's library signed.
fn others(language: Language) -> BTreeMap<&'static str, Request> {
    let foreign = |library| match library {
        "stripe" => "razorpay",
        _ => "stripe",
    };
    let of = |library| PROVIDERS.iter().find(|p| p.library == library).expect("it is known");
    let signed: BTreeMap<&str, Request> = ["stripe", "razorpay"]
        .map(|library| (library, Signed::by(language, of(library)).good.remove(0)))
        .into();
    PROVIDERS
        .iter()
        .map(|p| (p.library, signed[foreign(p.library)].clone()))
        .collect()
}

/// Events that the library's provider sends, or that its user does.
fn bodies(library: &str) -> Vec<String> {
    let sample = |file: &str| std::fs::read_to_string(samples().join(file)).expect("a sample");
    let fixture = |file: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/actors/fixtures/providers");
        std::fs::read_to_string(format!("{folder}/{file}")).expect("a fixture")
    };
    let own = |id: &str, note: &str| {
        json!({ "type": "order.paid", "timestamp": "2026-03-04T10:00:00Z", "at": "2026-03-04T10:00:00Z", "id": id, "user": "u-1",
            "data": { "id": id, "user_id": "u-1", "amount": 1010, "currency": "eur", "status": "paid", "note": note } })
        .to_string()
    };
    let all: [String; BODIES] = match library {
        "stripe" => ["charge.dispute.created", "checkout.session.completed", "charge.refunded"]
            .map(|kind| sample(&format!("stripe-{kind}.json"))),
        "shopify" => ["create", "paid", "updated"].map(|topic| sample(&format!("shopify-orders-{topic}.json"))),
        "square" => ["order.created", "payment.updated", "dispute.created"].map(|kind| sample(&format!("square-{kind}.json"))),
        "razorpay" => ["order.paid", "payment.captured", "payment.dispute.created"]
            .map(|kind| sample(&format!("razorpay-{kind}.json"))),
        "paddle" => ["transaction.completed", "adjustment.updated", "adjustment.created-chargeback"]
            .map(|kind| fixture(&format!("paddle-{kind}.json"))),
        "adyen" => ["one", "größe", "a:b\\c"].map(|reference| {
            let item = |psp: &str, code: &str| {
                json!({ "NotificationRequestItem": { "pspReference": format!("{psp}{}", reference.len()), "eventCode": code,
                    "eventDate": "2026-03-04T10:00:00+01:00", "merchantAccountCode": "Shop", "merchantReference": reference,
                    "originalReference": "", "success": "true", "amount": { "value": 1130, "currency": "EUR" } } })
            };
            json!({ "live": "false", "notificationItems": [item("A", "AUTHORISATION"), item("B", "CHARGEBACK")] }).to_string()
        }),
        _ => [
            own("o-1", "plain"),
            own("o-2", "größer, 日本語, \u{1f600} and \u{0}"),
            format!("\n\t{}\r\n ", own("o-3", "white space around it")),
        ],
    };
    all.to_vec()
}

async fn post(instance: &Instance, provider: &Provider, request: &Request) -> (u16, String) {
    let path = format!("/webhooks/libraries-{}", provider.library);
    let response = instance.post(&path, &request.headers, &request.body).await;
    (response.status().as_u16(), response.text().await.expect("a text"))
}
