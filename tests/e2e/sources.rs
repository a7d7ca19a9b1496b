//! What providers send becomes exactly the expected rows. Samples of all five shipped sources are signed, posted over HTTP
//! and followed to the end: the record on the topic, read by the official CloudEvents SDK, then the row, then the state.

mod expected;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use cloudevents::event::{AttributesReader, Data, ExtensionValue};
use dev::place::{partition_of, shard_of};
use rdkafka::Message;
use rdkafka::message::{Headers, OwnedMessage};
use serde_json::Value;

use crate::harness::{Instance, World, light, samples, shared_stack, signed};
use expected::{Case, Row, STATES, cases, ignored, sample};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn samples_become_the_expected_records_rows_and_states() {
    light(async {
        // The oldest sample is of 2012.
        let world = World::new(&shared_stack().await, "sources")
            .await
            .set("HOOKMILL_EVENTS__WINDOW_PAST", "7300days");
        let instance = world.start("only").await;
        let cases = cases();
        let before = Utc::now();
        for case in &cases {
            deliver(&world, &instance, case).await;
        }
        let after = Utc::now();
        let records = records(&world).await;
        assert_eq!(records.len(), cases.len(), "a record for each webhook");
        for case in &cases {
            let record = records
                .iter()
                .find(|record| id_of(record) == (case.row.source.to_owned(), case.row.event_id.clone()))
                .unwrap_or_else(|| panic!("no record of {:?}", case.row));
            check_record(&world, case, record, before, after);
        }
        world.landed(Duration::from_secs(30)).await;
        check_rows(&world, &cases, &records).await;

        // Redelivered, everything is acknowledged again and nothing changes.
        for case in &cases {
            deliver(&world, &instance, case).await;
        }
        world.landed(Duration::from_secs(30)).await;
        check_rows(&world, &cases, &records).await;
        check_states(&world, &cases).await;
        world.nothing_buried().await;
        instance.stop().await;
    });
}

#[test]
fn events_that_no_mapping_wants_are_counted_and_one_without_an_id_is_refused() {
    light(async {
        let world = World::new(&shared_stack().await, "sources_ignored").await;
        let instance = world.start("only").await;
        for (source, body, event_type) in ignored() {
            let mut headers = signed(source, body.as_bytes(), "msg_ignored", Utc::now());
            headers.push(("x-shopify-topic".to_owned(), event_type.to_owned()));
            let response = instance
                .post(&format!("/webhooks/{source}"), &headers, body.as_bytes())
                .await;
            assert_eq!(response.status(), 200, "{source} {event_type}");
            let answer: Value = response.json().await.expect("JSON");
            assert_eq!(answer, serde_json::json!({ "ignored": event_type }));
        }
        let body = sample("stripe-old-charge.dispute.updated.json");
        let headers = signed("stripe", body.as_bytes(), "", Utc::now());
        let response = instance.post("/webhooks/stripe", &headers, body.as_bytes()).await;
        assert_eq!(response.status(), 422);
        let problem: Value = response.json().await.expect("JSON");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(
            detail.contains("dispute_id") && detail.contains("/data/object/id"),
            "{detail}"
        );

        let metrics = instance.client.get(format!("{}/metrics", instance.admin));
        let metrics = metrics.send().await.expect("metrics").text().await.expect("text");
        for (source, ignored) in [("stripe", 2), ("shopify", 3), ("standard", 1)] {
            let line = format!(r#"hookmill_webhooks_total{{source="{source}",outcome="ignored"}} {ignored}"#);
            assert!(metrics.lines().any(|l| l == line), "{line} is not in\n{metrics}");
        }
        assert!(records(&world).await.is_empty());
        instance.stop().await;
    });
}

/// A source for each vector, with its secret. Those that carry a time are years old: with the shipped tolerance their age
/// is what is wrong with them, which is said only of a right signature; with a great one they are accepted.
#[test]
fn every_vector_is_verified_over_http() {
    light(async {
        let text = std::fs::read_to_string(samples().join("vectors.json")).expect("vectors.json");
        let vectors: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        let vectors: Vec<&Value> = vectors.iter().filter(|v| v["scheme"] != "github").collect();
        assert_eq!(
            vectors.len(),
            6,
            "a vector for each scheme, and a second of Standard Webhooks"
        );
        let mut world = World::new(&shared_stack().await, "vectors").await;
        let mut sources = String::new();
        for (i, vector) in vectors.iter().enumerate() {
            let scheme = vector["scheme"].as_str().expect("a scheme");
            let url = vector["url"]
                .as_str()
                .map(|url| format!("url = {url:?}\n"))
                .unwrap_or_default();
            for (name, tolerance) in [("strict", ""), ("patient", "tolerance = \"36500days\"\n")] {
                sources.push_str(&format!(
                    "\n[[sources]]\nname = \"{name}-{i}\"\npreset = {scheme:?}\n\
                     secrets = [\"env:VECTOR_{i}\"]\n{url}{tolerance}"
                ));
            }
            world = world.set(&format!("VECTOR_{i}"), vector["secret"].as_str().expect("a secret"));
        }
        let world = world.configured(|text| text + &sources);
        let instance = world.start("only").await;
        for (i, vector) in vectors.iter().enumerate() {
            let body = match vector["body_file"].as_str() {
                Some(file) => sample(file),
                None => vector["body"].as_str().expect("a body").to_owned(),
            };
            let headers = vector["headers"].as_object().expect("headers");
            let headers: Vec<(String, String)> = headers
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
                .collect();
            let dated = vector["now"].is_i64();
            let (status, problem) = outcome(&instance, &format!("/webhooks/strict-{i}"), &headers, &body).await;
            let too_old = "urn:hookmill:problem:signature-too-old";
            let wanted = if dated { (401, too_old) } else { (200, "") };
            assert_eq!((status, problem.as_str()), wanted, "{vector}");
            // The event is of no type that these sources map: verified, and then ignored.
            let (status, problem) = outcome(&instance, &format!("/webhooks/patient-{i}"), &headers, &body).await;
            assert_eq!((status, problem.as_str()), (200, ""), "{vector}");
            let changed = format!("{body} ");
            let (status, problem) = outcome(&instance, &format!("/webhooks/patient-{i}"), &headers, &changed).await;
            let wrong = "urn:hookmill:problem:signature-wrong";
            assert_eq!((status, problem.as_str()), (401, wrong), "{vector}");
        }
        instance.stop().await;
    });
}

async fn outcome(instance: &Instance, path: &str, headers: &[(String, String)], body: &str) -> (u16, String) {
    let response = instance.post(path, headers, body.as_bytes()).await;
    let status = response.status().as_u16();
    let answer: Value = response.json().await.expect("JSON");
    (status, answer["type"].as_str().unwrap_or_default().to_owned())
}

/// Posts a case and checks the acknowledgement.
async fn deliver(world: &World, instance: &Instance, case: &Case) {
    let Case { headers, body, row } = case;
    let mut all = signed(row.source, body, &row.event_id, Utc::now());
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    all.push(("traceparent".to_owned(), TRACE.to_owned()));
    let response = instance.post(&format!("/webhooks/{}", row.source), &all, body).await;
    let status = response.status();
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(status, 202, "{row:?}: {answer}");
    let topic = if row.kind == "order" {
        world.orders()
    } else {
        world.disputes()
    };
    assert_eq!(
        answer,
        serde_json::json!({ "accepted": [{ "id": row.event_id, "kind": row.kind, "topic": topic }] })
    );
}

async fn records(world: &World) -> Vec<OwnedMessage> {
    let mut records = world.records(&world.orders(), world.partitions.0).await;
    records.extend(world.records(&world.disputes(), world.partitions.1).await);
    records
}

fn read(record: &OwnedMessage) -> cloudevents::Event {
    serde_json::from_slice(record.payload().expect("a value")).expect("the SDK reads it")
}

fn id_of(record: &OwnedMessage) -> (String, String) {
    let event = read(record);
    (event.source().clone(), event.id().to_owned())
}

fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).expect("RFC 3339").to_utc()
}

/// The record: key, headers, every attribute as the SDK reads it, and `data` to the byte.
fn check_record(world: &World, case: &Case, record: &OwnedMessage, before: DateTime<Utc>, after: DateTime<Utc>) {
    let Case { body, row, .. } = case;
    assert_eq!(
        record.topic(),
        if row.kind == "order" {
            world.orders()
        } else {
            world.disputes()
        }
    );
    assert_eq!(record.key(), Some(row.user_id.as_bytes()), "{row:?}");
    let headers = record.headers().expect("headers");
    let headers: BTreeMap<&str, &[u8]> = headers.iter().map(|h| (h.key, h.value.unwrap_or_default())).collect();
    assert_eq!(headers["content-type"], b"application/cloudevents+json");
    assert_eq!(headers["traceparent"], TRACE.as_bytes(), "the caller's trace goes on");

    let event = read(record);
    assert_eq!(event.specversion().as_str(), "1.0");
    assert_eq!(
        (event.source().as_str(), event.id(), event.ty()),
        (row.source, &*row.event_id, &*row.event_type)
    );
    assert_eq!(event.time(), Some(&time(&row.occurred_at)), "{row:?}");
    assert_eq!(event.datacontenttype(), Some("application/json"));
    assert_eq!(event.dataschema(), None);
    let subject = row.dispute_id.as_ref().or(row.order_id.as_ref());
    assert_eq!(event.subject(), subject.map(String::as_str), "{row:?}");
    let text = |value: &Option<String>| value.clone();
    let wanted: BTreeMap<&str, String> = [
        ("partitionkey", Some(row.user_id.clone())),
        ("kind", Some(row.kind.to_owned())),
        ("userid", Some(row.user_id.clone())),
        ("orderid", text(&row.order_id)),
        ("disputeid", text(&row.dispute_id)),
        ("status", Some(row.status.clone())),
        ("providerstatus", text(&row.provider_status)),
        ("amountminor", row.amount_minor.map(|n| n.to_string())),
        ("currency", text(&row.currency)),
        ("entityversion", row.entity_version.map(|n| n.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let mut found = BTreeMap::new();
    for (name, value) in event.iter_extensions() {
        let ExtensionValue::String(value) = value else {
            panic!("{name} is no text: {value:?}");
        };
        found.insert(name, value.clone());
    }
    let received = time(&found.remove("receivedtime").expect("a time of arrival"));
    assert!(before <= received && received <= after, "{received}");
    assert_eq!(found, wanted, "{row:?}");

    let data: Value = serde_json::from_slice(body).expect("JSON");
    assert!(
        matches!(event.data(), Some(Data::Json(value)) if *value == data),
        "{row:?}"
    );
    let raw = record.payload().expect("a value");
    let end = [b"\"data\":".as_slice(), body, b"}"].concat();
    assert!(
        raw.ends_with(&end),
        "the body is not there byte for byte: {}",
        String::from_utf8_lossy(raw)
    );
}

/// The event tables hold exactly the expected rows, each on its partition's shard.
async fn check_rows(world: &World, cases: &[Case], records: &[OwnedMessage]) {
    let places: HashMap<(String, String), (i32, i64)> = records
        .iter()
        .map(|record| (id_of(record), (record.partition(), record.offset())))
        .collect();
    let expected: HashMap<(&str, &str), &Case> = cases
        .iter()
        .map(|case| ((case.row.source, case.row.event_id.as_str()), case))
        .collect();
    assert_eq!(expected.len(), cases.len(), "an id of its own for each case");
    let mut seen = 0;
    for (index, shard) in world.stack.shards().iter().enumerate() {
        let client = shard.connect(&world.name).await.expect("a shard");
        for (kind, dispute_id) in [("order", "NULL::text"), ("dispute", "dispute_id")] {
            let sql = format!(
                "SELECT source, event_id, user_id, order_id, {dispute_id}, event_type, status, provider_status, \
                 amount_minor, currency, entity_version, occurred_at, payload::text, kafka_partition, kafka_offset, \
                 received_at, recorded_at FROM {kind}_events"
            );
            for row in client.query(&sql, &[]).await.expect("rows") {
                let id: (String, String) = (row.get(0), row.get(1));
                let case = expected
                    .get(&(id.0.as_str(), id.1.as_str()))
                    .unwrap_or_else(|| panic!("nobody sent {id:?}"));
                let found = Row {
                    kind,
                    source: case.row.source,
                    event_id: row.get(1),
                    user_id: row.get(2),
                    order_id: row.get(3),
                    dispute_id: row.get(4),
                    event_type: row.get(5),
                    status: row.get(6),
                    provider_status: row.get(7),
                    amount_minor: row.get(8),
                    currency: row.get(9),
                    entity_version: row.get(10),
                    occurred_at: case.row.occurred_at.clone(),
                };
                assert_eq!(found, case.row);
                assert_eq!(row.get::<_, DateTime<Utc>>(11), time(&case.row.occurred_at), "{id:?}");
                assert_eq!(
                    row.get::<_, String>(12).as_bytes(),
                    case.body,
                    "{id:?}: the payload to the byte"
                );
                let partitions = if kind == "order" {
                    world.partitions.0
                } else {
                    world.partitions.1
                };
                let partition = partition_of(case.row.user_id.as_bytes(), partitions);
                assert_eq!(
                    row.get::<_, i32>(13),
                    partition,
                    "{id:?}: the key decides the partition"
                );
                assert_eq!(
                    shard_of(partition, world.stack.shards().len()),
                    index,
                    "{id:?}: and that the shard"
                );
                assert_eq!((row.get::<_, i32>(13), row.get::<_, i64>(14)), places[&id], "{id:?}");
                let (received, recorded): (DateTime<Utc>, DateTime<Utc>) = (row.get(15), row.get(16));
                assert!(received <= recorded, "{id:?}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, cases.len(), "a row for each event");
}

/// Each entity's state is that of its latest event, and there are no others.
async fn check_states(world: &World, cases: &[Case]) {
    let mut seen = 0;
    for shard in world.stack.shards() {
        let client = shard.connect(&world.name).await.expect("a shard");
        for (kind, table, entity, dispute_id) in [
            ("order", "orders", "order_id", "NULL::text"),
            ("dispute", "disputes", "dispute_id", "dispute_id"),
        ] {
            let sql = format!(
                "SELECT source, {entity}, last_event_id, user_id, order_id, {dispute_id}, status, provider_status, \
                 amount_minor, currency, entity_version, occurred_at, kafka_partition FROM {table}"
            );
            for state in client.query(&sql, &[]).await.expect("states") {
                let (source, entity, last): (String, String, String) = (state.get(0), state.get(1), state.get(2));
                assert!(
                    STATES.contains(&(kind, source.as_str(), entity.as_str(), last.as_str())),
                    "{kind} {entity} of {source} has the state of {last}"
                );
                let row = cases
                    .iter()
                    .map(|case| &case.row)
                    .find(|row| row.source == source && row.event_id == last)
                    .expect("it was sent");
                let found = Row {
                    user_id: state.get(3),
                    order_id: state.get(4),
                    dispute_id: state.get(5),
                    status: state.get(6),
                    provider_status: state.get(7),
                    amount_minor: state.get(8),
                    currency: state.get(9),
                    entity_version: state.get(10),
                    ..row.clone()
                };
                assert_eq!(found, *row);
                assert_eq!(state.get::<_, DateTime<Utc>>(11), time(&row.occurred_at));
                seen += 1;
            }
        }
    }
    assert_eq!(seen, STATES.len(), "a state for each entity");
}
