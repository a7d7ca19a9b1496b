//! The model's shard and the product's SQL on a real Postgres, side by side: random claims, reclaims and writes of several
//! connections, with stale epochs and offsets among them, are answered alike and leave the same behind. That claims and
//! statements wait for each other is shown by the schema's own tests.

use chrono::{DateTime, Utc};
use dev::stack::{Options, Stack};
use hookmill_schema::shard::{self, Connection};
use hookmill_schema::{
    ConnectSettings, ErrorClass, Kind, NewEvent, Part, Row, Status, Table, migrations, offsets, partitions, write,
};
use model::Record;
use model::shard::{Answer, OffsetRow, Shard, Sql, Stage, Statement};
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom as _, IndexedRandom as _};
use rand::{Rng, SeedableRng};

const TOPIC: &str = "orders.webhooks";
const ROWS: i64 = 24;
const STEPS: usize = 400;

/// Every fifth record is bad, every seventh the redelivery of the one before.
fn records() -> Vec<Vec<Record>> {
    let record = |partition: u8, at: i64| match at {
        at if at % 5 == 4 => Record::Poison,
        at => {
            let at = if at % 7 == 6 { at - 1 } else { at };
            let number = 0x4e00 + u32::from(partition) * 100 + u32::try_from(at).expect("few");
            Record::Event(char::from_u32(number).expect("a letter"))
        }
    };
    (0..2).map(|p| (0..ROWS).map(|at| record(p, at)).collect()).collect()
}

fn row(record: Record, partition: u8, offset: i64, at: DateTime<Utc>) -> Row {
    let (id, user) = match record {
        Record::Event(identity) => (identity.to_string(), "u"),
        // No text of Postgres holds it.
        Record::Poison => ("x".to_owned(), "\0"),
    };
    // An order of its own for each partition: two that met in one statement would have to be written apart.
    let order = partition.to_string();
    let event = NewEvent {
        source: "s",
        event_id: &id,
        kind: Kind::Order,
        event_type: "order.paid",
        occurred_at: at,
        user_id: user,
        order_id: Some(&order),
        dispute_id: None,
        status: Status::Paid,
        provider_status: None,
        amount_minor: None,
        currency: None,
        entity_version: None,
        received_at: at,
        body: "{}",
    };
    let value = event.encode().expect("an event");
    let record = hookmill_schema::Record::new(offset, None, None, Some(&value), std::iter::empty());
    Row::decode(Table::Orders, record, TOPIC, i32::from(partition)).expect("it decodes")
}

/// A statement that somebody may send, in step or not.
fn any_statement(random: &mut StdRng, shard: &Shard) -> Sql {
    let row = |random: &mut StdRng, p: u8| -> OffsetRow {
        let mut row = *shard.row(p);
        if random.random_bool(0.2) {
            row.epoch += random.random_range(-1..=1);
        }
        if random.random_bool(0.2) {
            row.next = (row.next + random.random_range(-1..=1)).clamp(0, ROWS);
        }
        row
    };
    let some: &[&[u8]] = &[&[0], &[1], &[0, 1]];
    let chosen = some.choose(random).expect("one of three");
    match random.random_range(0..10) {
        0 => Sql::Claim(chosen[0]),
        1 | 2 => Sql::Reclaim(chosen.iter().map(|p| (*p, row(random, *p).epoch)).collect()),
        _ => {
            let parts = chosen.iter().map(|p| {
                let OffsetRow { next: from, epoch } = row(random, *p);
                let next = (from + random.random_range(1..=2)).min(ROWS);
                let poison = |at: &i64| at % 5 == 4;
                // As consumers do, bad ones are mostly stepped over.
                let skip = random.random_bool(0.7);
                let rows = (from..next)
                    .filter(|at| !(skip && poison(at)))
                    .map(model::shard::Row)
                    .collect();
                model::shard::Part {
                    partition: *p,
                    from,
                    next,
                    epoch,
                    rows,
                }
            });
            Sql::Write(parts.collect())
        }
    }
}

/// What the product's SQL answers.
async fn really(connection: &mut Connection, sql: &Sql, records: &[Vec<Record>], at: DateTime<Utc>) -> Answer {
    let row_of = |claimed: offsets::Claimed| OffsetRow {
        next: claimed.next_offset,
        epoch: claimed.epoch,
    };
    let number = |partition: i32| u8::try_from(partition).expect("one of two");
    match sql {
        Sql::Claim(p) => {
            let me = offsets::Claimant {
                owner: "me",
                ..offsets::Claimant::default()
            };
            let claimed = offsets::claim(connection, TOPIC, i32::from(*p), me).await;
            Answer::Claimed(row_of(claimed.expect("claimed").0))
        }
        Sql::Reclaim(held) => {
            let held: Vec<_> = held.iter().map(|(p, epoch)| (i32::from(*p), *epoch)).collect();
            let ours = offsets::reclaim(connection, TOPIC, &held, "me")
                .await
                .expect("an answer");
            let mut ours: Vec<_> = ours
                .into_iter()
                .map(|(p, claimed)| (number(p), row_of(claimed)))
                .collect();
            ours.sort_unstable();
            Answer::Reclaimed(ours)
        }
        Sql::Write(parts) => {
            let rows = |part: &model::shard::Part| {
                let of = &records[usize::from(part.partition)];
                let row = |r: &model::shard::Row| {
                    row(of[usize::try_from(r.0).expect("not negative")], part.partition, r.0, at)
                };
                part.rows.iter().map(row).collect::<Vec<_>>()
            };
            let rows: Vec<Vec<Row>> = parts.iter().map(rows).collect();
            let parts = parts.iter().zip(&rows).map(|(part, rows)| Part {
                partition: i32::from(part.partition),
                from: part.from,
                next: part.next,
                epoch: part.epoch,
                rows: rows.iter().collect(),
            });
            match write(connection, Table::Orders, TOPIC, &parts.collect::<Vec<_>>()).await {
                Ok(mut passed) => {
                    passed.sort_unstable();
                    Answer::Passed(passed.into_iter().map(number).collect())
                }
                Err(error) => {
                    assert_eq!(error.class, ErrorClass::Row, "{error}");
                    Answer::Refused
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_shard_does_what_the_sql_does() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("model-postgres");
    let _ = std::fs::remove_dir_all(&dir);
    let options = Options {
        brokers: 0,
        shards: 1,
        dir: Some(dir),
        ..Options::default()
    };
    let server = Stack::start(options).await.expect("Postgres starts");
    let records = records();
    let (mut refused, mut partly, mut fenced, mut lost) = (0, 0, 0, 0);
    for seed in 0..3 {
        println!("seed {seed}");
        let name = format!("model{seed}");
        let url = server.create_databases(&name).await.expect("a database").remove(0);
        let settings = ConnectSettings::default();
        migrations::run(&url, &settings).await.expect("migrated");
        let mut upkeep = shard::connect_upkeep(&url, &settings).await.expect("a connection");
        partitions::ensure_ahead(&mut upkeep, 0).await.expect("partitions");
        let mut connections = Vec::new();
        for _ in 0..3 {
            connections.push(shard::connect(&url, &settings).await.expect("a connection"));
        }
        let mut random = StdRng::seed_from_u64(seed);
        let (mut modelled, at) = (Shard::new(2), Utc::now());
        for step in 0..STEPS {
            // A partition has no row before its first claim.
            let sql = match step {
                0 | 1 => Sql::Claim(u8::try_from(step).expect("0 or 1")),
                _ => any_statement(&mut random, &modelled),
            };
            let mut statement = Statement::new(sql.clone());
            while !statement.is_done() {
                assert!(
                    modelled.advance(&mut statement, &[], &records, None),
                    "nothing to wait for"
                );
            }
            let connection = connections.choose_mut(&mut random).expect("one of three");
            let answer = really(connection, &sql, &records, at).await;
            assert_eq!(Stage::Done(answer.clone()), statement.stage, "step {step}: {sql:?}");
            match (&sql, &answer) {
                (_, Answer::Refused) => refused += 1,
                (Sql::Write(parts), Answer::Passed(passed)) if passed.is_empty() && !parts.is_empty() => fenced += 1,
                (Sql::Write(parts), Answer::Passed(passed)) if passed.len() < parts.len() => partly += 1,
                (Sql::Reclaim(held), Answer::Reclaimed(ours)) if ours.len() < held.len() => lost += 1,
                _ => {}
            }
        }
        let client = server.shard(0).connect(&name).await.expect("a connection");
        let text = "SELECT next_offset, epoch FROM consumer_offsets ORDER BY partition";
        let rows = client.query(text, &[]).await.expect("rows");
        let stands: Vec<_> = rows
            .iter()
            .map(|row| OffsetRow {
                next: row.get(0),
                epoch: row.get(1),
            })
            .collect();
        assert_eq!(stands, modelled.offsets);
        for (p, records) in (0..).zip(&records) {
            let text = format!("SELECT kafka_offset FROM order_events WHERE kafka_partition = {p} ORDER BY 1");
            let rows = client.query(&text, &[]).await.expect("rows");
            let written: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            // Of a redelivered event the table keeps the first.
            let first = |at: &i64| {
                let at = usize::try_from(*at).expect("not negative");
                records.iter().position(|record| *record == records[at]) == Some(at)
            };
            let expected: Vec<i64> = modelled.written[p].iter().copied().filter(first).collect();
            assert_eq!(written, expected, "partition {p}");
        }
    }
    assert!(
        refused > 0 && partly > 0 && fenced > 0 && lost > 0,
        "{refused} {partly} {fenced} {lost}"
    );
}
