//! Signatures of every kind. Input: a byte that chooses the source, one that chooses what is done, headers and body.
//!
//! - Without the secret nothing is accepted, whatever the headers say; only the source that asks for nothing accepts.
//! - What the source's own signer signs is accepted, and refused once a bit of it, of the body or of a header, is another.

use std::sync::LazyLock;

use chrono::Utc;
use hookmill_actors::sources::{Incoming, Refusal, Source, Sources};

use crate::sources::{all, request};

static SOURCES: LazyLock<Sources> = LazyLock::new(all);

pub fn run(input: &[u8]) {
    let [which, what, rest @ ..] = input else { return };
    let count = SOURCES.iter().count();
    let source = SOURCES.iter().nth(usize::from(*which) % count).expect("one of them");
    let (headers, body) = request(rest);
    let now = Utc::now();
    let verified = source.verify(&Incoming::post(&headers[..], body, now));
    let open = source.name() == "open";
    // A request without a single event has nothing to sign.
    let empty = source.name() == "adyen";
    match &verified {
        Ok(()) => assert!(open || empty, "{} accepts what nobody signed", source.name()),
        Err(Refusal::Unauthorized(_) | Refusal::NotJson(_) | Refusal::Unmappable { .. }) => {}
        Err(other) => panic!("{}: verifying says {other:?}", source.name()),
    }
    if empty && verified.is_ok() {
        let events: Result<serde_json::Value, _> = serde_json::from_slice(body);
        let events = events.expect("what is verified is JSON");
        let items = events.pointer("/notificationItems").and_then(|items| items.as_array());
        assert!(items.is_none_or(Vec::is_empty), "an unsigned item is accepted");
    }
    if !open {
        signed(source, &headers, body, *what);
    }
}

fn signed(source: &Source, headers: &[(&str, &str)], body: &[u8], what: u8) {
    // The scheme's own headers of the input would stand there twice.
    let own = |name: &str| {
        !name.contains("signature") && !name.contains("hmac") && !name.eq_ignore_ascii_case("authorization")
    };
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .copied()
        .filter(|(name, _)| own(&name.to_ascii_lowercase()))
        .collect();
    let now = Utc::now();
    let Some(added) = source.sign(&Incoming::post(&headers[..], body, now)) else {
        return;
    };
    if added.is_empty() {
        // Its signatures stand in the events.
        return;
    }
    let given = |name: &str| added.iter().any(|(new, _)| new.eq_ignore_ascii_case(name));
    let mut all: Vec<(&str, &str)> = headers.iter().copied().filter(|(name, _)| !given(name)).collect();
    all.extend(added.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let verify = |headers: &[(&str, &str)], body: &[u8]| source.verify(&Incoming::post(headers, body, now));
    assert_eq!(
        verify(&all, body),
        Ok(()),
        "{} refuses its own signature of {all:?}",
        source.name()
    );
    let by_token = matches!(source.name(), "chargebee" | "bearer");
    if !by_token {
        let mut other = body.to_vec();
        let at = usize::from(what) % (body.len() + 1);
        match other.get_mut(at) {
            Some(byte) => *byte ^= 1,
            None => other.push(what),
        }
        assert!(verify(&all, &other).is_err(), "{} accepts another body", source.name());
    }
    let place = usize::from(what) % added.len().max(1);
    if let Some((name, value)) = added.get(place) {
        let changed = format!("{value}{}", char::from(b'0' + what % 10));
        let mut others = all.clone();
        for (n, v) in &mut others {
            if n == name {
                *v = &changed;
            }
        }
        // Behind a list of signatures anything may stand; the one that counts is still there.
        let list = changed.starts_with(value.as_str()) && (value.contains(',') || value.contains(' '));
        assert!(
            list || verify(&others, body).is_err(),
            "{} accepts {name}: {changed}",
            source.name()
        );
    }
}
