//! The operators' listener, as it is off loopback. Input: bytes of a connection.
//!
//! Nobody who does not know the token sees more than health, and no answer holds a secret.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use actix_web::web;
use hookmill_actors::health::Health;
use hookmill_actors::http::{AdminState, Site};
use hookmill_actors::metrics::Metrics;
use hookmill_actors::partition_table::PartitionTable;
use hookmill_actors::stats::Registry;
use secrecy::SecretString;

use crate::server::{exchange, statuses};
use crate::sources::all;

const TOKEN: &str = "a-token-that-no-input-holds-8b1f0c6d";

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let sources = all().all();
    let (actors, partitions) = (Registry::default(), PartitionTable::default());
    let metrics = Metrics::new(actors.clone(), partitions.clone(), sources.clone());
    Site::Admin(web::Data::new(AdminState {
        instance: "fuzz".to_owned(),
        started: Instant::now(),
        actors,
        partitions,
        sources,
        metrics: Arc::new(metrics),
        health: Health::default(),
        token: Some(SecretString::from(TOKEN)),
    }))
});

pub fn run(input: &[u8]) {
    if input.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()) {
        return;
    }
    let answer = exchange(&SITE, input);
    let text = String::from_utf8_lossy(&answer);
    for status in statuses(&answer) {
        assert!(
            matches!(status, 100 | 200 | 400 | 401 | 404 | 405 | 408 | 503),
            "answered {status}: {text}"
        );
    }
    for shut in ["uptime_seconds", "# HELP", "<html"] {
        assert!(!text.contains(shut), "answered without the token: {text}");
    }
    assert!(!text.contains(TOKEN), "the token is told");
}
