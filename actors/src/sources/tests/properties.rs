//! Whatever comes in, the verifier and the mapper answer; and they read a body as others do, or not at all.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::tree::Tree;
use super::super::*;

const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

/// Every preset, with secrets where it can do with one of ours.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let verifying = presets().filter(|(name, _)| *name != "paypal").map(|(name, _)| {
        let secret = match name {
            "chargebee" => "user:password",
            _ => KEY,
        };
        super::source(name, secret, Some("https://hooks.example.com/"))
    });
    let mapping = presets().map(|(name, _)| SourceConfig::of_preset(name).compile_unverified().expect("it compiles"));
    verifying.chain(mapping).collect()
});

/// The project's own fixtures.
static FIXTURES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/providers");
    let entries = std::fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path());
    let files = entries.filter(|path| path.extension().is_some_and(|e| e == "json"));
    files
        .map(|path| std::fs::read_to_string(path).expect("a fixture"))
        .collect()
});

const HEADERS: &[&str] = &[
    "stripe-signature",
    "x-shopify-hmac-sha256",
    "x-shopify-topic",
    "x-shopify-event-id",
    "x-shopify-shop-domain",
    "x-shopify-triggered-at",
    "x-shopify-test",
    "x-square-hmacsha256-signature",
    "x-razorpay-signature",
    "x-razorpay-event-id",
    "x-wc-webhook-signature",
    "x-wc-webhook-topic",
    "x-hub-signature-256",
    "x-github-event",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "paddle-signature",
    "cko-signature",
    "klarna-signature",
    "authorization",
    "content-type",
    "paypal-transmission-id",
    "paypal-transmission-time",
    "paypal-transmission-sig",
    "paypal-cert-url",
    "paypal-auth-algo",
];

fn header_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        "[tv0-9a-f=,;: ]{0,120}".prop_map(String::into_bytes),
        "(t|ts)=-?[0-9]{0,25}[,;](v1|h1)=[0-9a-f]{0,70}".prop_map(String::into_bytes),
        "(v1a?,[A-Za-z0-9+/]{0,90}=? ?){0,20}".prop_map(String::into_bytes),
        "(orders|refunds|disputes)/[a-z]{0,9}".prop_map(String::into_bytes),
        "(Basic|Bearer|basic) [A-Za-z0-9+/]{0,40}={0,2}".prop_map(String::into_bytes),
        Just(b"application/x-www-form-urlencoded".to_vec()),
        Just(b"2026-01-02T03:04:05Z".to_vec()),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    proptest::collection::vec((0..HEADERS.len(), header_value()), 0..12)
}

/// A fixture with some of its bytes changed, cut out or doubled.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4_usize, 0..40_usize);
    let changes = proptest::collection::vec(change, 0..6);
    (any::<prop::sample::Index>(), changes).prop_map(|(which, changes)| {
        let mut bytes = which.get(&FIXTURES).clone().into_bytes();
        for (at, byte, how, many) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            let end = (at + many).min(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => bytes.insert(
                    at,
                    [b'"', b'{', b'}', b'[', b']', b',', b'\\', b'9'][usize::from(byte % 8)],
                ),
            }
        }
        bytes
    })
}

/// JSON, or nearly.
fn nearly_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?[0-9]{0,25}(\\.[0-9]{0,5})?([eE][-+]?[0-9]{0,4})?",
        "\"[a-c\\\\u0-9\u{e9}\u{1f600}/]{0,8}\"",
        "\"\\PC{0,8}\"",
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|all| format!("[{}]", all.join(" ,"))),
            proptest::collection::vec(("[a-d]{1,2}", inner), 0..5).prop_map(|all| {
                let members: Vec<String> = all
                    .into_iter()
                    .map(|(key, value)| format!("\"{key}\": {value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

struct Headers<'a>(&'a [(usize, Vec<u8>)]);

impl HeaderLookup for Headers<'_> {
    fn lookup(&self, name: &str) -> Lookup<'_> {
        let mut found = self.0.iter().filter(|(i, _)| HEADERS[*i] == name);
        match (found.next(), found.next()) {
            (None, _) => Lookup::Missing,
            (Some((_, value)), None) => Lookup::One(value),
            (Some(_), Some(_)) => Lookup::Many,
        }
    }
}

/// Whether any object has a key twice, by a reader that keeps all of them.
fn has_twice(text: &str) -> bool {
    struct All(bool);
    impl<'de> serde::Deserialize<'de> for All {
        fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
            struct V;
            impl<'de> serde::de::Visitor<'de> for V {
                type Value = All;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("JSON")
                }
                fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<All, M::Error> {
                    let (mut keys, mut twice) = (std::collections::BTreeSet::new(), false);
                    while let Some((key, All(below))) = map.next_entry::<String, All>()? {
                        twice |= below | !keys.insert(key);
                    }
                    Ok(All(twice))
                }
                fn visit_seq<S: serde::de::SeqAccess<'de>>(self, mut seq: S) -> Result<All, S::Error> {
                    let mut twice = false;
                    while let Some(All(below)) = seq.next_element()? {
                        twice |= below;
                    }
                    Ok(All(twice))
                }
                fn visit_bool<E>(self, _: bool) -> Result<All, E> {
                    Ok(All(false))
                }
                fn visit_i64<E>(self, _: i64) -> Result<All, E> {
                    Ok(All(false))
                }
                fn visit_u64<E>(self, _: u64) -> Result<All, E> {
                    Ok(All(false))
                }
                fn visit_f64<E>(self, _: f64) -> Result<All, E> {
                    Ok(All(false))
                }
                fn visit_str<E>(self, _: &str) -> Result<All, E> {
                    Ok(All(false))
                }
                fn visit_unit<E>(self) -> Result<All, E> {
                    Ok(All(false))
                }
            }
            input.deserialize_any(V)
        }
    }
    serde_json::from_str::<All>(text).is_ok_and(|All(twice)| twice)
}

fn ask(body: &[u8], headers: &[(usize, Vec<u8>)], query: &str, get: bool) {
    let headers = Headers(headers);
    for source in SOURCES.iter() {
        let request = Incoming {
            method: if get { Method::Get } else { Method::Post },
            query,
            ..Incoming::post(&headers, body, Utc::now())
        };
        // What they say is not asked, only that they do.
        let _ = source.receive(&request);
        let _ = source.verify(&request);
        let _ = source.map(&request);
        let _ = source.trace(&request);
        let _ = source.item_signatures(&request);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_panic_nobody(body in proptest::collection::vec(any::<u8>(), 0..400), headers in headers(), query in "\\PC{0,40}", get in any::<bool>()) {
        ask(&body, &headers, &query, get);
    }

    #[test]
    fn changed_events_panic_nobody(body in mutated(), headers in headers()) {
        ask(&body, &headers, "", false);
    }

    #[test]
    fn json_panics_nobody(body in nearly_json(), headers in headers()) {
        ask(body.as_bytes(), &headers, "", false);
    }

    /// What is signed is believed, and with one bit changed it is not.
    #[test]
    fn what_is_signed_is_believed_and_nothing_else(body in proptest::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let now = Utc::now();
        for source in SOURCES.iter().filter(|s| !s.takes_from_anybody() && !["adyen", "chargebee"].contains(&s.preset().unwrap_or_default())) {
            let signed = source.sign(&Incoming::post(&[][..], &body, now)).expect("an HMAC can be made");
            let headers: Vec<(&str, &str)> = signed.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            prop_assert_eq!(source.verify(&Incoming::post(&headers[..], &body, now)), Ok(()));
            let mut changed = body.clone();
            changed[at.index(body.len())] ^= 1 << bit;
            prop_assert_eq!(source.verify(&Incoming::post(&headers[..], &changed, now)), Err(Refusal::Unauthorized(AuthError::Wrong)));
        }
    }

    /// A body is taken exactly if serde_json takes it and no key stands twice; a place then has the same text for both.
    #[test]
    fn bodies_are_read_as_others_read_them(text in prop_oneof![nearly_json(), mutated().prop_map(|b| String::from_utf8_lossy(&b).into_owned())]) {
        let mut tree = Tree::default();
        let slot = tree.slot("/a").expect("a pointer");
        let ours = tree.read(&text);
        match serde_json::from_str::<Value>(&text) {
            Ok(theirs) => {
                prop_assert_eq!(ours.is_err(), has_twice(&text), "{:?} {}", ours.as_ref().err(), text);
                if let Ok(ours) = ours {
                    let theirs = match &theirs["a"] {
                        Value::String(text) if !text.is_empty() => Some(text.clone()),
                        Value::Bool(truth) => Some(truth.to_string()),
                        Value::Number(number) => Some(number.to_string()),
                        _ => None,
                    };
                    let ours = ours.scalar(slot);
                    // Numbers keep their own text here.
                    let number = |text: &str| text.parse::<f64>().ok();
                    let same = match (&ours, &theirs) {
                        (Some(ours), Some(theirs)) if ours == theirs => true,
                        // serde_json reads the last bits of a number in its own way.
                        (Some(ours), Some(theirs)) => match (number(ours), number(theirs)) {
                            (Some(ours), Some(theirs)) => (ours - theirs).abs() <= ours.abs() * 1e-14,
                            _ => false,
                        },
                        (None, None) => true,
                        _ => false,
                    };
                    prop_assert!(same, "{:?} and {:?}", ours, theirs);
                }
            }
            // Only half a surrogate pair in a text that nobody reads is let through.
            Err(theirs) => prop_assert!(ours.is_err() || text.contains("\\u") || text.contains("\\U"), "{theirs}: {text}"),
        }
    }

    /// Amounts convert exactly or not at all.
    #[test]
    fn amounts_are_exact(units in -9_000_000_000_000_i64..9_000_000_000_000, cents in 0..100_u8) {
        let scale = money::Scale::compile(config::MoneyUnit::Major, &std::collections::BTreeMap::new()).expect("it compiles");
        let text = format!("{units}.{cents:02}");
        let sign = if units < 0 { -1 } else { 1 };
        prop_assert_eq!(scale.minor(&text, "USD"), Ok(units * 100 + sign * i64::from(cents)));
        let (longer, padded) = (format!("{text}1"), format!("{text}0"));
        prop_assert!(scale.minor(&longer, "USD").is_err());
        prop_assert_eq!(scale.minor(&padded, "KWD"), Ok((units * 100 + sign * i64::from(cents)) * 10));
    }
}
