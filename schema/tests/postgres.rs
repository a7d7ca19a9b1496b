//! What the SQL promises, on a real Postgres.

#[path = "postgres/large_batches.rs"]
mod large_batches;
#[path = "postgres/migrating.rs"]
mod migrating;
#[path = "postgres/months.rs"]
mod months;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use dev::stack::{Options, Stack};
use hookmill_schema::offsets::{self, Claimant, Claimed};
use hookmill_schema::partitions::{self, Month};
use hookmill_schema::shard::{self, Connection, Identity};
use hookmill_schema::{
    ConnectSettings, ErrorClass, Kind, NewEvent, Part, Record, Row, Status, Table, migrations, write,
};
use tokio::sync::OnceCell;

const TOPIC: &str = "orders.webhooks";

/// One server for all tests; it ends with this process.
async fn server() -> Arc<Stack> {
    static SERVER: OnceCell<Arc<Stack>> = OnceCell::const_new();
    static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> =
        std::sync::LazyLock::new(|| tokio::runtime::Runtime::new().expect("a runtime"));
    SERVER
        .get_or_init(|| async {
            let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("schema-postgres");
            let _ = std::fs::remove_dir_all(&dir);
            let options = Options {
                brokers: 0,
                shards: 1,
                dir: Some(dir),
                ..Options::default()
            };
            // On a runtime that outlives the first test.
            let started = tokio::task::spawn_blocking(move || RUNTIME.block_on(Stack::start(options)));
            let started = started.await.expect("no panic");
            Arc::new(started.expect("Postgres starts"))
        })
        .await
        .clone()
}

struct Database {
    url: String,
    name: String,
    server: Arc<Stack>,
}

impl Database {
    /// A fresh one, with the tables and this month's partitions.
    async fn new() -> Self {
        let database = Self::empty().await;
        migrations::run(&database.url, &settings()).await.expect("migrated");
        let mut upkeep = shard::connect_upkeep(&database.url, &settings())
            .await
            .expect("a connection");
        partitions::ensure_ahead(&mut upkeep, 1).await.expect("partitions");
        database
    }

    async fn empty() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let server = server().await;
        let name = format!("schema{}", NUMBER.fetch_add(1, Relaxed));
        let url = server.create_databases(&name).await.expect("a database").remove(0);
        Self { url, name, server }
    }

    async fn connect(&self) -> Connection {
        shard::connect(&self.url, &settings()).await.expect("a connection")
    }

    async fn number(&self, sql: &str) -> i64 {
        self.server.shard(0).query_one(&self.name, sql).await.expect("a number")
    }

    async fn text(&self, sql: &str) -> String {
        let client = self.server.shard(0).connect(&self.name).await.expect("a connection");
        client.query_one(sql, &[]).await.expect("a row").get(0)
    }
}

fn settings() -> ConnectSettings {
    ConnectSettings {
        lock_timeout: Duration::from_secs(5),
        ..ConnectSettings::default()
    }
}

/// An order's event, with what the tests vary.
#[derive(Clone)]
struct Fact<'a> {
    id: &'a str,
    order: &'a str,
    status: Status,
    at: DateTime<Utc>,
    version: Option<i64>,
    body: &'a str,
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).expect("a time")
}

impl Fact<'_> {
    fn row(&self, partition: i32, offset: i64) -> Row {
        let event = NewEvent {
            source: "s",
            event_id: self.id,
            kind: Kind::Order,
            event_type: "order.paid",
            occurred_at: self.at,
            user_id: "u",
            order_id: Some(self.order),
            dispute_id: None,
            status: self.status,
            provider_status: None,
            amount_minor: Some(i64::MIN),
            currency: Some("EUR"),
            entity_version: self.version,
            received_at: now(),
            body: self.body,
        };
        let value = event.encode().expect("an event");
        let record = Record::new(offset, None, Some(b"u"), Some(&value), std::iter::empty());
        Row::decode(Table::Orders, record, TOPIC, partition).expect("it decodes")
    }
}

fn fact<'a>(id: &'a str, order: &'a str) -> Fact<'a> {
    Fact {
        id,
        order,
        status: Status::Paid,
        at: now(),
        version: None,
        body: "{}",
    }
}

fn part(partition: i32, from: i64, claimed: Claimed, rows: &[Row]) -> Part<'_> {
    Part {
        partition,
        from,
        next: from + i64::try_from(rows.len()).expect("few"),
        epoch: claimed.epoch,
        rows: rows.iter().collect(),
    }
}

fn claimant(owner: &str) -> Claimant<'_> {
    Claimant {
        owner,
        ..Claimant::default()
    }
}

async fn claim(connection: &mut Connection, partition: i32) -> Claimed {
    offsets::claim(connection, TOPIC, partition, claimant("me"))
        .await
        .expect("claimed")
        .0
}

#[tokio::test]
async fn only_partitions_that_pass_the_fence_are_written() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let first = claim(&mut connection, 0).await;
    let second = claim(&mut connection, 1).await;
    assert_eq!((first.epoch, first.next_offset), (1, 0));
    let rows = [fact("a", "1").row(0, 0)];
    let others = [fact("b", "2").row(1, 0)];
    // Partition 1 was claimed by somebody else meanwhile.
    let theirs = claim(&mut database.connect().await, 1).await;
    assert_eq!(theirs.epoch, 2);
    let parts = [part(0, 0, first, &rows), part(1, 0, second, &others)];
    let passed = write(&mut connection, Table::Orders, TOPIC, &parts)
        .await
        .expect("written");
    assert_eq!(passed, [0]);
    // The same again does not stand where the offset stands.
    let passed = write(&mut connection, Table::Orders, TOPIC, &parts)
        .await
        .expect("written");
    assert!(passed.is_empty());
    assert_eq!(database.number("SELECT count(*) FROM order_events").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM orders").await, 1);
    assert_eq!(
        database
            .number("SELECT next_offset FROM consumer_offsets WHERE partition = 0")
            .await,
        1
    );
    assert_eq!(
        database
            .number("SELECT next_offset FROM consumer_offsets WHERE partition = 1")
            .await,
        0
    );
}

/// The claim is under way when the zombie's statement comes: that waits, and finds its epoch gone.
#[tokio::test]
async fn a_statement_waits_for_a_claim_and_stays_out() {
    let database = Database::new().await;
    let mut zombie = database.connect().await;
    let (mine, lost) = (claim(&mut zombie, 0).await, claim(&mut zombie, 1).await);
    let claimer = database
        .server
        .shard(0)
        .connect(&database.name)
        .await
        .expect("a connection");
    claimer
        .batch_execute("BEGIN; UPDATE consumer_offsets SET epoch = epoch + 1 WHERE partition = 1")
        .await
        .expect("the claim is under way");
    let writing = tokio::spawn(async move {
        let (rows, others) = ([fact("a", "1").row(0, 0)], [fact("b", "2").row(1, 0)]);
        let parts = [part(0, 0, mine, &rows), part(1, 0, lost, &others)];
        write(&mut zombie, Table::Orders, TOPIC, &parts).await
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while database.number(waits).await == 0 {
        assert!(!writing.is_finished(), "it did not wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    claimer.batch_execute("COMMIT").await.expect("claimed");
    assert_eq!(writing.await.expect("no panic").expect("written"), [0]);
    assert_eq!(database.number("SELECT count(*) FROM order_events").await, 1);
}

/// The other way round: the claim waits for the statement, and reads what it did.
#[tokio::test]
async fn a_claim_waits_for_a_statement_and_reads_its_offset() {
    let database = Database::new().await;
    let mut owner = database.connect().await;
    claim(&mut owner, 0).await;
    let writer = database
        .server
        .shard(0)
        .connect(&database.name)
        .await
        .expect("a connection");
    writer
        .batch_execute("BEGIN; UPDATE consumer_offsets SET next_offset = 7 WHERE partition = 0")
        .await
        .expect("the statement is under way");
    let mut next = database.connect().await;
    let claiming = tokio::spawn(async move { claim(&mut next, 0).await });
    while database.number("SELECT count(*) FROM pg_locks WHERE NOT granted").await == 0 {
        assert!(!claiming.is_finished(), "it did not wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    writer.batch_execute("COMMIT").await.expect("written");
    assert_eq!(
        claiming.await.expect("no panic"),
        Claimed {
            next_offset: 7,
            epoch: 2
        }
    );
}

#[tokio::test]
async fn what_became_of_a_broken_statement_is_found_out_by_those_who_still_own() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let (mine, lost) = (claim(&mut connection, 0).await, claim(&mut connection, 1).await);
    let rows = [fact("a", "1").row(0, 0)];
    write(&mut connection, Table::Orders, TOPIC, &[part(0, 0, mine, &rows)])
        .await
        .expect("written");
    // The answer is lost with the connection; partition 1 is claimed by somebody else.
    drop(connection);
    claim(&mut database.connect().await, 1).await;
    let mut again = database.connect().await;
    let held = [(0, mine.epoch), (1, lost.epoch)];
    let ours = offsets::reclaim(&mut again, TOPIC, &held, "me")
        .await
        .expect("an answer");
    assert_eq!(
        ours,
        [(
            0,
            Claimed {
                next_offset: 1,
                epoch: mine.epoch + 1
            }
        )]
    );
}

#[tokio::test]
async fn redelivery_changes_nothing_and_a_late_event_never_regresses_the_state() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let claimed = claim(&mut connection, 0).await;
    let t = now() - TimeDelta::seconds(100);
    let later = |s| t + TimeDelta::seconds(s);
    let status = "SELECT status || ' by ' || last_event_id FROM orders WHERE order_id = 'o'";
    let mut offset = 0;
    // What comes, and what the state is after it.
    let steps = [
        (
            Fact {
                at: later(10),
                status: Status::Paid,
                ..fact("e10", "o")
            },
            "paid by e10",
        ),
        // The same again.
        (
            Fact {
                at: later(10),
                status: Status::Paid,
                ..fact("e10", "o")
            },
            "paid by e10",
        ),
        // Older.
        (
            Fact {
                at: later(5),
                status: Status::Pending,
                ..fact("e05", "o")
            },
            "paid by e10",
        ),
        // As old, of a lower and of a higher rank.
        (
            Fact {
                at: later(10),
                status: Status::Pending,
                ..fact("e99", "o")
            },
            "paid by e10",
        ),
        (
            Fact {
                at: later(10),
                status: Status::Refunded,
                ..fact("e00", "o")
            },
            "refunded by e00",
        ),
        // As old and of the same rank: the id decides.
        (
            Fact {
                at: later(10),
                status: Status::Refunded,
                ..fact("e01", "o")
            },
            "refunded by e01",
        ),
        // A version counts more than any time.
        (
            Fact {
                at: later(1),
                version: Some(2),
                status: Status::Paid,
                ..fact("v2", "o")
            },
            "paid by v2",
        ),
        (
            Fact {
                at: later(50),
                version: Some(1),
                status: Status::Failed,
                ..fact("v1", "o")
            },
            "paid by v2",
        ),
        (
            Fact {
                at: later(60),
                status: Status::Failed,
                ..fact("e60", "o")
            },
            "paid by v2",
        ),
    ];
    for (fact, expected) in &steps {
        let rows = [fact.row(0, offset)];
        write(
            &mut connection,
            Table::Orders,
            TOPIC,
            &[part(0, offset, claimed, &rows)],
        )
        .await
        .expect("written");
        offset += 1;
        assert_eq!(database.text(status).await, *expected, "after {}", fact.id);
    }
    assert_eq!(
        database.number("SELECT count(*) FROM order_events").await,
        8,
        "one came twice"
    );

    // The same in one statement, in any order.
    let mut rows: Vec<Row> = steps
        .iter()
        .map(|(f, _)| {
            Fact {
                order: "p",
                ..f.clone()
            }
            .row(0, 0)
        })
        .collect();
    rows.reverse();
    let all = Part {
        partition: 0,
        from: offset,
        next: offset + 9,
        epoch: claimed.epoch,
        rows: rows.iter().collect(),
    };
    write(&mut connection, Table::Orders, TOPIC, &[all])
        .await
        .expect("written");
    // Their events are known, so only the state is new.
    assert_eq!(
        database
            .text("SELECT last_event_id FROM orders WHERE order_id = 'p'")
            .await,
        "v2"
    );
}

/// An order whose user changed came by two partitions: one statement cannot update its row twice.
#[tokio::test]
async fn an_entity_in_two_parts_is_told_apart_from_a_bad_row() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let (a, b) = (claim(&mut connection, 0).await, claim(&mut connection, 1).await);
    let (rows, others) = ([fact("a", "same").row(0, 0)], [fact("b", "same").row(1, 0)]);
    let parts = [part(0, 0, a, &rows), part(1, 0, b, &others)];
    let error = write(&mut connection, Table::Orders, TOPIC, &parts)
        .await
        .expect_err("21000");
    assert_eq!(error.class, ErrorClass::Split, "{error}");
    for part in parts {
        write(&mut connection, Table::Orders, TOPIC, &[part])
            .await
            .expect("each for itself");
    }
    assert_eq!(database.number("SELECT count(*) FROM orders").await, 1);
}

#[tokio::test]
async fn a_row_at_fault_takes_its_statement_with_it_and_says_so() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let claimed = claim(&mut connection, 0).await;
    let rows = [fact("good", "1").row(0, 0), fact("bad\0id", "2").row(0, 1)];
    let error = write(&mut connection, Table::Orders, TOPIC, &[part(0, 0, claimed, &rows)])
        .await
        .expect_err("NUL");
    assert_eq!(
        (error.class, error.sqlstate.as_deref()),
        (ErrorClass::Row, Some("22021")),
        "{error}"
    );
    assert_eq!(database.number("SELECT count(*) FROM order_events").await, 0);
    assert_eq!(database.number("SELECT next_offset FROM consumer_offsets").await, 0);
    // The connection goes on.
    write(
        &mut connection,
        Table::Orders,
        TOPIC,
        &[part(0, 0, claimed, &rows[..1])],
    )
    .await
    .expect("written");
}

#[tokio::test]
async fn the_payload_is_the_providers_bytes() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let claimed = claim(&mut connection, 0).await;
    let body = "{ \"b\":1.10 ,\"a\": 123456789012345678901234567890, \"a\":2,\n\t\"s\":\"\\u0000 \\ud83d\\ude00 é\" }";
    let rows = [Fact { body, ..fact("a", "1") }.row(0, 0)];
    write(&mut connection, Table::Orders, TOPIC, &[part(0, 0, claimed, &rows)])
        .await
        .expect("written");
    assert_eq!(database.text("SELECT payload::text FROM order_events").await, body);
    assert_eq!(database.number("SELECT amount_minor FROM order_events").await, i64::MIN);
}

#[tokio::test]
async fn a_shard_knows_who_it_is() {
    let database = Database::new().await;
    let mut upkeep = shard::connect_upkeep(&database.url, &settings())
        .await
        .expect("a connection");
    let me = Identity {
        index: 0,
        shards: 2,
        cluster_id: "c".to_owned(),
        topics: vec![(TOPIC.to_owned(), 12)],
    };
    shard::check_or_record_identity(&mut upkeep, &me)
        .await
        .expect("recorded");
    shard::check_or_record_identity(&mut upkeep, &me)
        .await
        .expect("the same");
    let others = [
        Identity { index: 1, ..me.clone() },
        Identity {
            shards: 3,
            ..me.clone()
        },
        Identity {
            cluster_id: "d".to_owned(),
            ..me.clone()
        },
        Identity {
            topics: vec![(TOPIC.to_owned(), 6)],
            ..me.clone()
        },
    ];
    for other in others {
        let refused = shard::check_or_record_identity(&mut upkeep, &other).await;
        assert!(refused.is_err(), "{other:?}");
    }
}
