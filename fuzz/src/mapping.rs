//! Mapping with each preset. Input: a byte that chooses the preset, headers and body.
//!
//! - What was verified is what is mapped: an event's `data` is the body, byte for byte, or a part of it where a request has
//!   several events.
//! - An event that is accepted can be read by the writing side, and says the same there.
//! - The same request means the same again, and the tools' trace agrees.

use std::sync::LazyLock;

use chrono::DateTime;
use hookmill_actors::sources::{Accepted, Incoming, Received, Source, SourceConfig, presets};
use hookmill_schema::{Event, Record};

use crate::sources::request;

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let source = |(name, _)| {
        SourceConfig::of_preset(name)
            .compile_unverified()
            .expect("the preset compiles")
    };
    presets().map(source).collect()
});

pub fn run(input: &[u8]) {
    let [which, rest @ ..] = input else { return };
    let source = &SOURCES[usize::from(*which) % SOURCES.len()];
    let (headers, body) = request(rest);
    let now = DateTime::from_timestamp(1_767_323_045, 0).expect("a time");
    let incoming = Incoming::post(&headers[..], body, now);
    let received = source.map(&incoming);
    assert_eq!(received, source.map(&incoming), "the same request means something else");
    let Ok(Received::Events { accepted, .. }) = received else {
        return;
    };
    for event in &accepted {
        check(source, event, body);
    }
    let traces = source.trace(&incoming).expect("what maps has a trace");
    let taken = traces.iter().flatten().count();
    assert!(taken >= accepted.len(), "{taken} traces for {} events", accepted.len());
}

fn check(source: &Source, accepted: &Accepted, body: &[u8]) {
    let record = Record::new(
        0,
        None,
        Some(accepted.user_id.as_bytes()),
        Some(&accepted.value),
        std::iter::empty(),
    );
    let event = match Event::decode(record, accepted.kind) {
        Ok(event) => event,
        Err((_, error)) => panic!("{}: an accepted event cannot be read: {error}", source.name()),
    };
    assert_eq!(event.source(), source.name());
    assert_eq!(event.event_id(), accepted.id);
    assert_eq!(event.user_id(), accepted.user_id);
    assert_eq!(event.kind(), accepted.kind);
    if source.name() == "adyen" {
        assert!(
            body.windows(event.payload().len()).any(|part| part == event.payload()),
            "data is no part of the body"
        );
    } else {
        assert_eq!(event.payload(), body, "data is not the body");
    }
}
