//! Promise 4: a bad record costs only itself. Of ten thousand, twenty can never be written, each for another reason,
//! scattered and in a run: exactly those are dead-lettered, untouched, and all others are in, in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use hookmill_schema::{Kind, NewEvent, Status};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Headers as _, Message as _};

use crate::harness::{RawRecord, World, light, shared_stack, until};

const SOON: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 12;

fn event(i: usize, occurred_at: DateTime<Utc>, event_id: &str, body: &str) -> Vec<u8> {
    let (user, order) = (format!("user-{}", i % 97), format!("order-{i}"));
    let event = NewEvent {
        source: "standard",
        event_id,
        kind: Kind::Order,
        event_type: "order.paid",
        occurred_at,
        user_id: &user,
        order_id: Some(&order),
        dispute_id: None,
        status: Status::Paid,
        provider_status: Some("paid"),
        amount_minor: Some(1010),
        currency: Some("EUR"),
        entity_version: Some(1),
        received_at: Utc::now(),
        body,
    };
    event.encode().expect("an event")
}

fn good(i: usize) -> Vec<u8> {
    event(i, Utc::now(), &format!("evt-{i}"), "{\"id\": 1}")
}

/// The event with a piece of its text changed.
fn changed(i: usize, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(good(i)).expect("UTF-8");
    assert!(text.contains(from), "{from} in {text}");
    text.replace(from, to).into_bytes()
}

/// Longer than a key may be, and random, so that compression does not make it fit into an index.
fn long_text() -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + u8::try_from(state % 26).expect("a byte"))
    };
    (0..9000).map(|_| letter()).collect()
}

/// Twenty values that can never be written, with the stage that finds out.
fn bad_values(i: usize) -> Vec<(Option<Vec<u8>>, &'static str)> {
    let now = Utc::now();
    let long = long_text();
    let at = |years: i64| now + TimeDelta::days(365 * years);
    vec![
        (Some(b"{{{".to_vec()), "decode"),
        (Some(b"{\"a\":1}".to_vec()), "decode"),
        (None, "decode"),
        (Some(Vec::new()), "decode"),
        (Some(vec![0xff, 0xfe, 0, 1]), "decode"),
        (Some(b"null".to_vec()), "decode"),
        (Some(changed(i, "\"orderid\":", "\"elsewhere\":")), "decode"),
        (Some(changed(i, "\"userid\":", "\"elsewhere\":")), "decode"),
        (
            Some(changed(i, "\"amountminor\":\"1010\"", "\"amountminor\":\"10.10\"")),
            "decode",
        ),
        (
            Some(changed(
                i,
                "\"amountminor\":\"1010\"",
                "\"amountminor\":\"99999999999999999999\"",
            )),
            "decode",
        ),
        (Some(changed(i, "\"kind\":\"order\"", "\"kind\":\"dispute\"")), "decode"),
        (
            Some(changed(i, "\"specversion\":\"1.0\"", "\"specversion\":\"9.9\"")),
            "decode",
        ),
        (Some(good(i)[..good(i).len() / 2].to_vec()), "decode"),
        // Postgres' text has no NUL.
        (Some(changed(i, &format!("order-{i}"), "nul\\u0000nul")), "write"),
        (Some(changed(i, "order.paid", "order\\u0000paid")), "write"),
        (Some(event(i, now, &long, "{}")), "write"),
        // No partition of events is made so far away.
        (Some(event(i, at(-60), &format!("old-{i}"), "{}")), "write"),
        (Some(event(i, at(30), &format!("new-{i}"), "{}")), "write"),
        (Some(event(i, at(7000), &format!("far-{i}"), "{}")), "write"),
        (
            Some(changed(i, "\"currency\":\"EUR\"", "\"currency\":\"E\\u0000R\"")),
            "write",
        ),
    ]
}

/// What was put where: by (partition, offset).
struct Laid {
    bad: BTreeMap<(i32, i64), (RawRecord, &'static str)>,
    ends: HashMap<i32, i64>,
    count: usize,
}

/// Puts the records on the orders topic: half of the bad ones far from each other, half one behind another.
async fn lay(world: &World, count: usize) -> Laid {
    let mut poison: Vec<(Option<Vec<u8>>, &'static str)> = bad_values(0);
    // Those that Postgres refuses are in both halves.
    poison.sort_by_key(|(value, _)| {
        value
            .as_ref()
            .map_or(0, |v| v.iter().map(|b| usize::from(*b)).sum::<usize>())
            % 7
    });
    let (mut records, mut bad, mut ends) = (Vec::new(), BTreeMap::new(), HashMap::new());
    let mut next = 0;
    while records.len() < count {
        let i = records.len();
        let scattered = i % (count / 11) == 7 && poison.len() > 10;
        let run = i >= count / 2 && poison.len() <= 10 && !poison.is_empty();
        let partition = if run {
            5
        } else {
            i32::try_from(i).expect("fits") % PARTITIONS
        };
        let offset = *ends.entry(partition).and_modify(|end| *end += 1).or_insert(0_i64);
        let taken = if scattered || run { poison.pop() } else { None };
        let headers = match next % 4 {
            0 => vec![(
                "content-type".to_owned(),
                Some(b"application/cloudevents+json".to_vec()),
            )],
            1 => vec![
                ("a".to_owned(), None),
                ("a".to_owned(), Some(vec![0xff, 0])),
                ("a".to_owned(), Some(b"twice".to_vec())),
            ],
            // Somebody's own header of a name that we use.
            2 => vec![
                ("dlq.stage".to_owned(), Some(b"theirs".to_vec())),
                ("\u{fc}".to_owned(), Some(Vec::new())),
            ],
            _ => Vec::new(),
        };
        let key = match next % 3 {
            0 => Some(format!("user-{}", i % 97).into_bytes()),
            1 => None,
            _ => Some(vec![0, 0xff, b'k']),
        };
        match taken {
            None => records.push(RawRecord {
                partition: Some(partition),
                key: Some(format!("user-{}", i % 97).into_bytes()),
                value: Some(good(i)),
                headers: Vec::new(),
            }),
            Some((value, stage)) => {
                next += 1;
                let record = RawRecord {
                    partition: Some(partition),
                    key,
                    value,
                    headers,
                };
                bad.insert((partition, offset), (record.clone(), stage));
                records.push(record);
            }
        }
    }
    assert_eq!(bad.len(), 20, "of all kinds");
    world.produce(&world.orders(), records).await;
    Laid { bad, ends, count }
}

/// Headers as the table holds them.
fn headers(json: &str) -> Vec<(String, Option<Vec<u8>>)> {
    let headers: Vec<serde_json::Value> = serde_json::from_str(json).expect("an array");
    let read = |header: &serde_json::Value| {
        let value = match header.get("base64") {
            Some(coded) => Some(STANDARD.decode(coded.as_str().expect("text")).expect("base64")),
            None => header["value"].as_str().map(|text| text.as_bytes().to_vec()),
        };
        (header["key"].as_str().expect("a name").to_owned(), value)
    };
    headers.iter().map(read).collect()
}

/// That exactly the bad ones are in the dead letters, as they were, and exactly the others in the tables, in order.
async fn check(world: &World, laid: &Laid) {
    let mut missing = laid.bad.clone();
    for (index, shard) in world.stack.shards().iter().enumerate() {
        let client = shard.connect(&world.name).await.expect("a shard");
        let sql = "SELECT topic, partition, \"offset\", key, value, headers::text, stage, sqlstate, reason, status FROM dead_letters";
        for row in client.query(sql, &[]).await.expect("dead letters") {
            let origin: (i32, i64) = (row.get(1), row.get(2));
            assert_eq!(row.get::<_, String>(0), world.orders());
            assert_eq!(
                origin.0.unsigned_abs() as usize % 2,
                index,
                "on the shard of its origin"
            );
            let (record, stage) = &missing
                .remove(&origin)
                .unwrap_or_else(|| panic!("{origin:?} is none of the bad ones, or twice"));
            assert_eq!(row.get::<_, Option<Vec<u8>>>(3), record.key, "{origin:?}");
            assert_eq!(row.get::<_, Option<Vec<u8>>>(4), record.value, "{origin:?}");
            assert_eq!(
                row.get::<_, String>(6),
                *stage,
                "{origin:?}: {}",
                row.get::<_, String>(8)
            );
            assert_eq!(
                row.get::<_, Option<String>>(7).is_some(),
                *stage == "write",
                "{origin:?}"
            );
            assert!(!row.get::<_, String>(8).is_empty());
            assert_eq!(row.get::<_, String>(9), "open");
            assert_eq!(headers(&row.get::<_, String>(5)), record.headers, "{origin:?}");
        }
    }
    let missing: Vec<String> = missing
        .values()
        .map(|(record, _)| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned())
        .map(|text| text.chars().take(300).collect())
        .collect();
    assert!(missing.is_empty(), "{missing:?} are no dead letters");

    let offsets = world.offsets().await;
    let mut there: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    for event in world.events().await {
        assert!(
            there.entry(event.partition).or_default().insert(event.offset),
            "twice: {event:?}"
        );
    }
    for (partition, end) in &laid.ends {
        let wanted: BTreeSet<i64> = (0..=*end)
            .filter(|offset| !laid.bad.contains_key(&(*partition, *offset)))
            .collect();
        assert_eq!(
            there.remove(partition).unwrap_or_default(),
            wanted,
            "partition {partition}"
        );
        assert_eq!(offsets[&(world.orders(), *partition)], end + 1, "partition {partition}");
    }
    assert!(there.is_empty());
    assert_eq!(
        world.sum("SELECT count(*) FROM order_events").await,
        i64::try_from(laid.count - 20).expect("fits")
    );
    // In order: a higher offset was never written by an earlier transaction.
    let disorder = "SELECT count(*) FROM (SELECT xmin::text::bigint AS written, lag(xmin::text::bigint) OVER
                    (PARTITION BY kafka_partition ORDER BY kafka_offset) AS before FROM order_events) o WHERE written < before";
    assert_eq!(world.sum(disorder).await, 0);
}

/// The dead-letter topic's records by origin: each is the original, and behind its headers stand ours.
async fn buried(world: &World, laid: &Laid) -> HashMap<(i32, i64), usize> {
    let mut times = HashMap::new();
    for letter in world.records(&format!("{}.DLQ", world.orders()), PARTITIONS).await {
        let headers: Vec<(String, Option<Vec<u8>>)> = letter
            .headers()
            .into_iter()
            .flat_map(|h| h.iter())
            .map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec)))
            .collect();
        let ours = |name: &str| {
            let value = headers
                .iter()
                .rev()
                .find(|(key, _)| key == name)
                .and_then(|(_, value)| value.clone());
            String::from_utf8(value.unwrap_or_else(|| panic!("{name} in {headers:?}"))).expect("text")
        };
        assert_eq!(ours("dlq.origin.topic"), world.orders());
        let origin = (
            ours("dlq.origin.partition").parse().expect("a number"),
            ours("dlq.origin.offset").parse().expect("a number"),
        );
        let (record, stage) = &laid.bad[&origin];
        assert_eq!(letter.partition(), origin.0, "it keeps its partition");
        assert_eq!(letter.key(), record.key.as_deref(), "{origin:?}");
        assert_eq!(letter.payload(), record.value.as_deref(), "{origin:?}");
        assert_eq!(headers[..record.headers.len()], record.headers[..], "{origin:?}");
        assert!(
            headers[record.headers.len()..]
                .iter()
                .all(|(key, _)| key.starts_with("dlq.")),
            "{headers:?}"
        );
        assert_eq!(ours("dlq.stage"), *stage);
        *times.entry(origin).or_default() += 1;
    }
    times
}

/// Statements that the writers tried.
async fn statements(instance: &crate::harness::Instance) -> i64 {
    let stats = instance.stats().await;
    let root = stats["actors"]["hookmill"]["children"]
        .as_object()
        .expect("actors")
        .clone();
    let writers = root.iter().filter(|(name, _)| name.starts_with("shard_writer."));
    writers.map(|(_, node)| node["statements"].as_i64().unwrap_or(0)).sum()
}

/// Lays 10,000 records, 20 of them bad, before an instance with batches of so many rows, and checks all that is promised.
async fn twenty_of_ten_thousand(rows: usize) {
    let world = World::new(&shared_stack().await, &format!("poison_{rows}"))
        .await
        .set("HOOKMILL_WRITERS__BATCH_ROWS", &rows.to_string());
    let (code, said) = world.run("topics", &["topics", "create"], &[]).await;
    assert_eq!(code, 0, "{said}");
    let laid = lay(&world, 10_000).await;
    let instance = world.start("only").await;
    world.landed(SOON).await;
    check(&world, &laid).await;
    let times = buried(&world, &laid).await;
    assert_eq!(times.len(), 20);
    assert!(times.values().all(|n| *n == 1), "{times:?}");

    // Cutting a batch down to one row takes two statements for each of log2(rows) halvings.
    let refused = laid.bad.values().filter(|(_, stage)| *stage == "write").count();
    let halvings = usize::try_from(rows.ilog2()).expect("few") + 1;
    let bound = i64::try_from(refused * 2 * (halvings + 1) + 150).expect("fits");
    let tried = statements(&instance).await;
    println!(
        "batches of {rows}: {tried} statements for 10,000 records, {refused} of them refused by Postgres; bound {bound}"
    );
    assert!(tried < bound, "{tried} statements, bound {bound}");
    instance.stop().await;
}

#[test]
fn twenty_of_ten_thousand_in_large_batches() {
    light(twenty_of_ten_thousand(1000));
}

#[test]
fn twenty_of_ten_thousand_in_small_batches() {
    light(twenty_of_ten_thousand(64));
}

/// Killed in the middle of it, twice: a dead letter may be on its topic twice, and is one in the table.
#[test]
fn killed_while_burying() {
    light(async {
        let world = World::new(&shared_stack().await, "poison_killed").await;
        let (code, said) = world.run("topics", &["topics", "create"], &[]).await;
        assert_eq!(code, 0, "{said}");
        let laid = lay(&world, 10_000).await;
        let dead = format!("{}.DLQ", world.orders());
        let instance = world.spawn("only", &[]);
        for graves in [1, 4] {
            until("some are buried", SOON, async || {
                let marks = world.watermarks(&dead, PARTITIONS).await;
                marks.iter().map(|(_, high)| high).sum::<i64>() >= graves
            })
            .await;
            instance.process.kill();
            instance.process.restart().expect("it starts again");
        }
        instance.ready().await;
        world.landed(SOON).await;
        check(&world, &laid).await;
        assert_eq!(buried(&world, &laid).await.len(), 20);
        instance.stop().await;
    });
}

/// A record that somebody put on a dead-letter topic without our headers is kept as its own origin, and stops nothing,
/// whatever it is like.
#[test]
fn a_stranger_among_the_dead_letters() {
    light(async {
        let world = World::with_partitions(&shared_stack().await, "poison_stranger", (2, 2)).await;
        let (code, said) = world.run("topics", &["topics", "create"], &[]).await;
        assert_eq!(code, 0, "{said}");
        let stranger = |value: Option<&[u8]>, headers: &[(&str, &str)]| RawRecord {
            partition: Some(1),
            value: value.map(<[u8]>::to_vec),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())))
                .collect(),
            ..RawRecord::default()
        };
        let huge = "99999999999999999999\0";
        let long = long_text();
        let origin = |topic| {
            let place = [("dlq.origin.partition", "1"), ("dlq.origin.offset", "77")];
            [
                ("dlq.stage", "forged\0"),
                ("dlq.origin.topic", topic),
                place[0],
                place[1],
            ]
        };
        let forged = |more: &[(&'static str, &'static str)]| [&origin("nul\0nul")[..], more].concat();
        let numbers = [
            "dlq.origin.topic",
            "dlq.origin.partition",
            "dlq.origin.offset",
            "dlq.attempts",
        ];
        let records = vec![
            stranger(None, &[]),
            stranger(Some(&[0xff]), &[("dlq.stage", "alone")]),
            stranger(Some(b"\0"), &numbers.map(|name| (name, huge))),
            stranger(None, &origin(&long)),
            stranger(
                None,
                &forged(&[
                    ("dlq.error.class", "\0"),
                    ("dlq.error.message", "\0"),
                    ("dlq.error.sqlstate", "\0"),
                    ("dlq.origin.timestamp", "9223372036854775"),
                    ("dlq.first_failed_at", "+262000-01-01T00:00:00Z"),
                    ("dlq.redrive_count", huge),
                ]),
            ),
        ];
        world.produce(&format!("{}.DLQ", world.orders()), records).await;
        let instance = world.start("only").await;
        world.landed(SOON).await;
        let foreign = format!(
            "SELECT count(*) FROM dead_letters WHERE stage = 'foreign' AND topic = '{}.DLQ' AND \"offset\" IN (0, 1, 2, 3)",
            world.orders()
        );
        assert_eq!(world.sum(&foreign).await, 4);
        let forged =
            "SELECT count(*) FROM dead_letters WHERE topic = 'nul\u{fffd}nul' AND partition = 1 AND \"offset\" = 77";
        assert_eq!(world.sum(forged).await, 1);
        assert_eq!(world.sum("SELECT count(*) FROM dead_letters").await, 5);
        instance.stop().await;
    });
}

/// Sets the size up to which a topic takes records.
async fn takes_up_to(world: &World, topic: &str, bytes: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", world.stack.brokers())
        .create()
        .expect("a client");
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", bytes);
    for altered in admin
        .alter_configs(&[change], &AdminOptions::new())
        .await
        .expect("an answer")
    {
        altered.expect("altered");
    }
}

/// Kafka refuses the dead letter, and then is away altogether: its partition waits before the bad record, the others go
/// on, and once Kafka is back all is as if nothing had been.
#[test]
fn no_grave_to_be_had() {
    light(async {
        let world = World::with_partitions(&shared_stack().await, "poison_waits", (2, 2))
            .await
            .through_proxies();
        let (code, said) = world.run("topics", &["topics", "create"], &[]).await;
        assert_eq!(code, 0, "{said}");
        let (orders, dead) = (world.orders(), format!("{}.DLQ", world.orders()));
        let instance = world.start("only").await;
        takes_up_to(&world, &dead, "1").await;
        let records = (0..30).map(|i| RawRecord {
            partition: Some(i32::from(i >= 20)),
            value: Some(if i == 7 { b"{{{".to_vec() } else { good(i) }),
            ..RawRecord::default()
        });
        world.produce(&orders, records.collect()).await;
        let trouble = async || {
            let error = instance.actor(&["dead_letters"]).await["last_error"]["message"].clone();
            error.as_str().unwrap_or_default().to_owned()
        };
        until("the dead letter was refused", SOON, async || {
            !trouble().await.is_empty()
        })
        .await;
        let refused = trouble().await;
        until("the good ones before it, and the other partition", SOON, async || {
            let offsets = world.offsets().await;
            [0, 1].map(|p| offsets.get(&(orders.clone(), p)).copied()) == [Some(7), Some(10)]
        })
        .await;

        world.stack.kafka(0).proxy().cut();
        until("it fails for another reason", SOON, async || trouble().await != refused).await;
        takes_up_to(&world, &dead, "1048576").await;
        assert_eq!(world.offsets().await[&(orders.clone(), 0)], 7, "{}", trouble().await);
        assert_eq!(world.watermarks(&dead, 2).await, [(0, 0), (0, 0)]);
        assert_eq!(world.sum("SELECT count(*) FROM order_events").await, 17);

        world.stack.kafka(0).proxy().restore();
        until("it is buried", SOON, async || {
            world
                .sum("SELECT count(*) FROM dead_letters WHERE \"offset\" = 7")
                .await
                == 1
        })
        .await;
        world.landed(SOON).await;
        assert_eq!(world.sum("SELECT count(*) FROM order_events").await, 29);
        assert_eq!(world.sum("SELECT count(*) FROM dead_letters").await, 1);
        instance.stop().await;
    });
}
