//! The listener for webhooks. Input: bytes of a connection; or, behind `S` and a byte that chooses the source, a body
//! that is signed and posted.
//!
//! - Any bytes are answered with a status that is meant, never with 500; nothing is accepted, as there is no Kafka here.
//! - A signed request is never answered 401.

use std::sync::{Arc, LazyLock};

use chrono::Utc;
use hookmill_actors::http::{IngestSettings, IngestState, IngestTopics, Site};
use hookmill_actors::metrics::Metrics;
use hookmill_actors::partition_table::PartitionTable;
use hookmill_actors::producer::Producers;
use hookmill_actors::sources::{Incoming, Sources};
use hookmill_actors::stats::Registry;

use crate::server::{exchange, statuses};
use crate::sources::all;

static SOURCES: LazyLock<Sources> = LazyLock::new(all);

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let settings = IngestSettings {
        body_limit: 16 << 10,
        ..IngestSettings::default()
    };
    let topics = IngestTopics {
        orders: "orders".into(),
        disputes: "disputes".into(),
        parked: "parked".into(),
    };
    let metrics = Metrics::new(Registry::default(), PartitionTable::default(), SOURCES.all());
    let state = IngestState::new(settings, &SOURCES, Producers::default(), topics, &metrics);
    Site::Ingest(Arc::new(state))
});

pub fn run(input: &[u8]) {
    match input {
        [b'S', which, body @ ..] => signed(*which, body),
        bytes => {
            let answer = exchange(&SITE, bytes);
            for status in statuses(&answer) {
                assert!(meant(status), "answered {status}: {}", String::from_utf8_lossy(&answer));
            }
        }
    }
}

/// What a stranger may hear. 503 is what an event hears that would have been accepted.
fn meant(status: u16) -> bool {
    matches!(
        status,
        100 | 200 | 400 | 401 | 404 | 405 | 408 | 413 | 415 | 422 | 429 | 503
    )
}

fn signed(which: u8, body: &[u8]) {
    let count = SOURCES.iter().count();
    let source = SOURCES.iter().nth(usize::from(which) % count).expect("one of them");
    let headers: &[(&str, &str)] = &[];
    let Some(headers) = source.sign(&Incoming::post(headers, body, Utc::now())) else {
        return;
    };
    if headers.is_empty() && source.name() != "open" {
        // Its signatures stand in the events.
        return;
    }
    let mut request = format!(
        "POST {} HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        source.path(),
        body.len()
    );
    for (name, value) in &headers {
        request += &format!("{name}: {value}\r\n");
    }
    let mut request = (request + "\r\n").into_bytes();
    request.extend_from_slice(body);
    let answer = exchange(&SITE, &request);
    let statuses = statuses(&answer);
    let fine = matches!(statuses[..], [200 | 400 | 422 | 503] | [413]);
    assert!(
        fine,
        "{} answers its own signature {statuses:?}: {}",
        source.name(),
        String::from_utf8_lossy(&answer)
    );
}
