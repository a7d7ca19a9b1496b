//! Changes of a request, each of which breaks its signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Provider, Request, Signed};

type Forgery = (String, Request);

/// All that can be done to what a library signed. `foreign` is another provider's request.
pub fn all(provider: &Provider, signed: &Signed, foreign: &Request) -> Vec<Forgery> {
    if provider.header.is_empty() {
        return in_the_body(signed, foreign);
    }
    let good = &signed.good[0];
    let mut forgeries = of_the_body(good);
    forgeries.extend(of_the_header(provider, good));
    let mut add = |what: &str, request: Request| forgeries.push((what.to_owned(), request));
    add("another secret", signed.wrong_secret.clone());
    add(
        "the signature of another body",
        Request {
            headers: signed.other_body.headers.clone(),
            body: good.body.clone(),
        },
    );
    add("another provider's headers", foreign.clone());
    add(
        "another provider's signature in this one's header",
        with(provider, good, &foreign.headers[0].1),
    );
    if provider.timed {
        add("signed an hour ago", signed.old.clone());
        add("signed in an hour", signed.ahead.clone());
        forgeries.extend(of_the_time(provider, signed));
    }
    forgeries
}

fn of_the_body(good: &Request) -> Vec<Forgery> {
    let body = |what: &str, body: Vec<u8>| {
        let headers = good.headers.clone();
        (what.to_owned(), Request { headers, body })
    };
    let flipped = |at: usize| {
        let mut bytes = good.body.clone();
        bytes[at] ^= 1;
        bytes
    };
    let value: Value = serde_json::from_slice(&good.body).expect("JSON");
    let text = String::from_utf8_lossy(&good.body).into_owned();
    let forgeries = vec![
        body("a bit flipped at the beginning", flipped(0)),
        body("a bit flipped in the middle", flipped(good.body.len() / 2)),
        body("a bit flipped at the end", flipped(good.body.len() - 1)),
        body("cut by a byte", good.body[..good.body.len() - 1].to_vec()),
        body("cut in half", good.body[..good.body.len() / 2].to_vec()),
        body("a byte more", [&good.body[..], b" "].concat()),
        body("twice", [&good.body[..], &good.body[..]].concat()),
        body("nothing", Vec::new()),
        body("written anew, compact", value.to_string().into_bytes()),
        body("written anew, pretty", format!("{value:#}\n\n").into_bytes()),
        body("a mark before it", format!("\u{feff}{text}").into_bytes()),
        body("in UTF-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        body(
            "other line ends",
            format!("\r\n{}", text.replace('\n', "\r\n")).into_bytes(),
        ),
    ];
    forgeries
        .into_iter()
        .filter(|(_, forgery)| forgery.body != good.body)
        .collect()
}

/// The request with `value` in the header of the signature.
fn with(provider: &Provider, request: &Request, value: &str) -> Request {
    let mut request = request.clone();
    let header = request.headers.iter_mut().find(|(name, _)| name == provider.header);
    value.clone_into(&mut header.expect("it is signed").1);
    request
}

fn of_the_header(provider: &Provider, good: &Request) -> Vec<Forgery> {
    let (_, line) = good
        .headers
        .iter()
        .find(|(name, _)| name == provider.header)
        .expect("it is signed");
    let at = match provider.prefix {
        "" => 0,
        prefix => line.rfind(prefix).expect("it has its prefix") + prefix.len(),
    };
    let (before, signature) = line.split_at(at);
    let changed = |at: usize, change: &dyn Fn(u8) -> u8| {
        let mut bytes = signature.as_bytes().to_vec();
        bytes[at] = change(bytes[at]);
        format!("{before}{}", String::from_utf8(bytes).expect("ASCII"))
    };
    let last = signature.trim_end_matches('=').len() - 1;
    let letter = signature
        .bytes()
        .position(|b| b.is_ascii_alphabetic())
        .expect("a letter");
    let bytes = match hex(signature) {
        Some(bytes) => STANDARD.encode(bytes),
        None => to_hex(&STANDARD.decode(signature).expect("base64")),
    };
    let half = signature.len() / 2;
    let lines = [
        ("a bit of the signature flipped", changed(0, &|b| b ^ 1)),
        ("a bit of its end flipped", changed(last, &|b| b ^ 1)),
        ("a letter of it in the other case", changed(letter, &|b| b ^ 0x20)),
        (
            "its end another",
            changed(last, &|b| if b == b'A' { b'B' } else { b'A' }),
        ),
        (
            "cut by a character",
            format!("{before}{}", &signature[..signature.len() - 1]),
        ),
        ("cut in half", format!("{before}{}", &signature[..half])),
        ("a character more", format!("{line}0")),
        (
            "all of it in the other case",
            format!("{before}{}", other_case(signature)),
        ),
        ("written the other way", format!("{before}{bytes}")),
        (
            "a space in it",
            format!("{before}{} {}", &signature[..half], &signature[half..]),
        ),
        ("quoted", format!("{before}\"{signature}\"")),
        ("only the prefix", before.to_owned()),
        ("a word", format!("{before}undefined")),
        ("empty", String::new()),
        ("very long", format!("{before}{}", "0".repeat(6000))),
        ("zeros", format!("{before}{}", "0".repeat(signature.len()))),
    ];
    let mut forgeries: Vec<Forgery> = lines
        .into_iter()
        .map(|(what, line)| (format!("the signature: {what}"), with(provider, good, &line)))
        .collect();
    if !provider.prefix.is_empty() {
        let bare = line.replacen(provider.prefix, "", 1);
        forgeries.push(("without its prefix".to_owned(), with(provider, good, &bare)));
        let other = line.replacen(provider.prefix, "v0=", 1);
        forgeries.push(("under another prefix".to_owned(), with(provider, good, &other)));
    }
    let mut missing = good.clone();
    missing.headers.retain(|(name, _)| name != provider.header);
    forgeries.push(("without the header".to_owned(), missing));
    for (what, second) in [
        ("doubled", line.clone()),
        ("doubled with another", changed(0, &|b| b ^ 1)),
    ] {
        let mut doubled = good.clone();
        doubled.headers.push((provider.header.to_owned(), second));
        forgeries.push((format!("the header {what}"), doubled));
    }
    forgeries
}

/// Changes of what is signed besides the body.
fn of_the_time(provider: &Provider, signed: &Signed) -> Vec<Forgery> {
    let good = &signed.good[0];
    let now = chrono::Utc::now().timestamp();
    let mut forgeries = Vec::new();
    // A fresh time on an old signature.
    let mut fresh = signed.old.clone();
    for (name, value) in &mut fresh.headers {
        if name.ends_with("-timestamp") {
            *value = now.to_string();
        }
        if let Some((begin, end)) = value.split_once([',', ';']).filter(|_| name == provider.header) {
            let mark = begin.split('=').next().unwrap_or_default();
            if ["t", "ts"].contains(&mark) {
                let separator = if mark == "t" { ',' } else { ';' };
                *value = format!("{mark}={now}{separator}{end}");
            }
        }
    }
    forgeries.push(("an old signature with a fresh time".to_owned(), fresh));
    for beside in ["-timestamp", "-id"] {
        let signed_header = |(name, _): &(String, String)| name.ends_with(beside) && !name.starts_with("x-");
        let Some(at) = good.headers.iter().position(signed_header) else {
            continue;
        };
        let name = good.headers[at].0.clone();
        let mut missing = good.clone();
        missing.headers.remove(at);
        forgeries.push((format!("without {name}"), missing));
        let mut other = good.clone();
        other.headers[at].1.push('0');
        forgeries.push((format!("another {name}"), other));
        let mut doubled = good.clone();
        doubled.headers.push(good.headers[at].clone());
        forgeries.push((format!("{name} twice"), doubled));
        let mut empty = good.clone();
        empty.headers[at].1.clear();
        forgeries.push((format!("{name} empty"), empty));
    }
    forgeries
}

/// Where each event carries its own signature: all of what that covers, and the signature itself.
fn in_the_body(signed: &Signed, foreign: &Request) -> Vec<Forgery> {
    let good: Value = serde_json::from_slice(&signed.good[0].body).expect("JSON");
    let mut forgeries = Vec::new();
    let mut add = |what: &str, body: Value| {
        let (headers, body) = (Vec::new(), body.to_string().into_bytes());
        forgeries.push((what.to_owned(), Request { headers, body }));
    };
    const ITEM: &str = "/notificationItems/1/NotificationRequestItem";
    const SIGNATURE: &str = "/additionalData/hmacSignature";
    let signature = good
        .pointer(&format!("{ITEM}{SIGNATURE}"))
        .and_then(Value::as_str)
        .expect("signed")
        .to_owned();
    let first = good
        .pointer("/notificationItems/0/NotificationRequestItem/additionalData/hmacSignature")
        .cloned();
    let set = |field: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(&format!("{ITEM}{field}")).expect("a field") = value;
        changed
    };
    for (field, value) in [
        ("/pspReference", json!("B4")),
        ("/originalReference", json!("x")),
        ("/merchantAccountCode", json!("shop")),
        ("/merchantReference", json!("two")),
        ("/amount/value", json!(1131)),
        ("/amount/currency", json!("USD")),
        ("/eventCode", json!("CHARGEBACK_REVERSED")),
        ("/success", json!("false")),
        ("/success", json!(null)),
    ] {
        add(&format!("another {field}"), set(field, value));
    }
    let mut bytes = signature.clone().into_bytes();
    bytes[0] ^= 1;
    let flipped = String::from_utf8(bytes).expect("ASCII");
    for (what, value) in [
        ("a bit flipped", json!(flipped)),
        ("cut", json!(signature[..signature.len() - 1])),
        ("a character more", json!(format!("{signature}="))),
        ("in the other case", json!(other_case(&signature))),
        ("in hex", json!(to_hex(&STANDARD.decode(&signature).expect("base64")))),
        ("empty", json!("")),
        ("null", json!(null)),
        ("a number", json!(0)),
        ("that of the other event", first.expect("signed")),
        ("another provider's", json!(foreign.headers[0].1)),
        ("a list of it", json!([signature])),
    ] {
        add(&format!("the signature: {what}"), set(SIGNATURE, value));
    }
    let mut missing = good.clone();
    missing
        .pointer_mut(ITEM)
        .and_then(Value::as_object_mut)
        .expect("an item")
        .remove("additionalData");
    add("without a signature", missing);
    add(
        "another secret",
        serde_json::from_slice(&signed.wrong_secret.body).expect("JSON"),
    );
    forgeries
}

fn other_case(text: &str) -> String {
    let change = |c: char| {
        if c.is_ascii_lowercase() {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        }
    };
    text.chars().map(change).collect()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let plain = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    plain.then(|| (0..64).step_by(2).map(byte).collect()).flatten()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
