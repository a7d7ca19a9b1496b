use std::collections::{HashMap, HashSet};

use super::*;

fn settings() -> GeneratorSettings {
    GeneratorSettings {
        sources: SOURCES.to_vec(),
        worker: 3,
        users: 5,
        disputes_percent: 20,
        old_one_in: 0,
        poison: 4,
        count: 1000,
        seed: 7,
        run_id: "t".into(),
    }
}

#[test]
fn the_same_settings_make_the_same_webhooks_and_every_id_is_new() {
    let ids = || {
        Generator::new(settings())
            .map(|w| w.expect.event_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(), ids());
    assert_eq!(ids().into_iter().collect::<HashSet<_>>().len(), 1000);
    assert_eq!(Generator::new(settings()).filter(|w| w.expect.poison).count(), 4);
    for source in SOURCES {
        assert!(
            Generator::new(settings()).filter(|w| w.source == source).count() > 100,
            "{source}"
        );
    }
}

#[test]
fn time_rises_over_an_entitys_life() {
    let mut last = HashMap::new();
    for webhook in Generator::new(settings()).filter(|w| !w.expect.poison) {
        let Expected {
            source,
            order_id,
            dispute_id,
            occurred_at,
            ..
        } = webhook.expect;
        if let Some(before) = last.insert((source, order_id, dispute_id), occurred_at) {
            assert!(before < occurred_at);
        }
    }
}

/// A value made elsewhere: the vectors that stand beside the repository.
#[test]
fn signatures_are_those_of_the_vectors() {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/providers/samples");
    let folder = std::env::var_os("HOOKMILL_PROVIDER_SAMPLES").map_or(beside, PathBuf::from);
    let text = std::fs::read_to_string(folder.join("vectors.json")).expect("vectors.json stands beside the repository");
    let vectors: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    for vector in vectors {
        let text = |key: &str| vector[key].as_str();
        let Some(source) = SOURCES.iter().copied().find(|s| Some(*s) == text("scheme")) else {
            continue;
        };
        let body = match text("body_file") {
            Some(file) => std::fs::read(folder.join(file)).expect("a body"),
            None => text("body").expect("a body").as_bytes().to_vec(),
        };
        let mut webhook = Generator::new(settings()).next().expect("a webhook");
        webhook.source = source;
        webhook.body = body;
        webhook.headers.clear();
        webhook.expect.event_id = vector["headers"]["webhook-id"].as_str().unwrap_or_default().to_owned();
        let now = chrono::DateTime::from_timestamp(vector["now"].as_i64().unwrap_or(0), 0).expect("a time");
        let headers = sign(
            &webhook,
            text("secret").expect("a secret"),
            text("url").unwrap_or_default(),
            now,
        )
        .expect("it signs");
        for (name, value) in vector["headers"].as_object().expect("headers") {
            let ours = headers
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.strip_suffix(",v0=00").unwrap_or(v));
            assert_eq!(ours, value.as_str(), "{source} {name}");
        }
    }
}
