//! Migrations beside each other and beside writers.

use hookmill_schema::ShardError;

use super::*;

#[tokio::test]
async fn many_may_migrate_at_once_and_one_does() {
    let database = Database::empty().await;
    let pending = migrations::pending(&database.url, &settings())
        .await
        .expect("an answer");
    assert_eq!(
        database
            .number("SELECT count(*) FROM pg_class WHERE relname = 'orders'")
            .await,
        0,
        "only asked"
    );
    let settings = settings();
    let (a, b, c) = tokio::join!(
        migrations::run(&database.url, &settings),
        migrations::run(&database.url, &settings),
        migrations::run(&database.url, &settings)
    );
    let applied: Vec<String> = [a, b, c].into_iter().flat_map(|r| r.expect("migrated")).collect();
    assert_eq!(applied, pending);
    assert!(
        migrations::pending(&database.url, &settings)
            .await
            .expect("an answer")
            .is_empty()
    );
}

/// Somebody holds the lock of migrations and does not let go, as a process does whose host is gone: a start that finds
/// nothing to do does not wait for it.
#[tokio::test]
async fn nothing_to_migrate_waits_for_nobody() {
    let database = Database::new().await;
    let other = database.server.shard(0).connect(&database.name).await;
    let other = other.expect("a connection");
    other
        .batch_execute("SELECT pg_advisory_lock(hashtext('hookmill:migrations'))")
        .await
        .expect("the lock");
    let settings = settings();
    let run = migrations::run(&database.url, &settings);
    let applied = tokio::time::timeout(Duration::from_secs(5), run).await;
    assert!(applied.expect("in time").expect("an answer").is_empty());
}

/// Back to before a migration of both tables of events.
const FORGET: &str = "DELETE FROM __diesel_schema_migrations WHERE version = '20261127000000';
    ALTER TABLE order_events ALTER recorded_at SET DEFAULT clock_timestamp()";

/// A migration that has come to wait for a table.
async fn migration_waiting_for(
    database: &Database,
    table: &str,
) -> tokio::task::JoinHandle<Result<Vec<String>, ShardError>> {
    let url = database.url.clone();
    let run = tokio::spawn(async move { migrations::run(&url, &settings()).await });
    let waits = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass");
    while database.number(&waits).await == 0 {
        assert!(!run.is_finished(), "nothing is to be migrated");
        tokio::task::yield_now().await;
    }
    run
}

/// A report that reads for long must not make a migration that waits for it keep the writers out.
#[tokio::test]
async fn a_migration_that_waits_for_a_table_lets_writers_go_first() {
    let database = Database::new().await;
    let connect = async || {
        database
            .server
            .shard(0)
            .connect(&database.name)
            .await
            .expect("a connection")
    };
    let (reader, writer) = (connect().await, connect().await);
    writer.batch_execute(FORGET).await.expect("as before the migration");
    reader
        .batch_execute("BEGIN; LOCK TABLE order_events IN ACCESS SHARE MODE")
        .await
        .expect("locked");
    let run = migration_waiting_for(&database, "order_events").await;
    writer
        .batch_execute("SET lock_timeout = '4s'; BEGIN; LOCK TABLE order_events IN ROW EXCLUSIVE MODE; COMMIT")
        .await
        .expect("a writer's turn");
    assert!(!run.is_finished());
    reader.batch_execute("COMMIT").await.expect("the report is done");
    let applied = run.await.expect("no panic").expect("migrated");
    assert_eq!(applied.len(), 1, "{applied:?}");
    let default = "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'order_events'::regclass";
    assert_eq!(database.text(default).await, "now()");
}

/// A report reads disputes, and then orders; Postgres ends the migration, which has the orders and waits for the disputes.
#[tokio::test]
async fn a_migration_that_ends_in_a_deadlock_is_tried_again() {
    let database = Database::new().await;
    let reader = database.server.shard(0).connect(&database.name).await;
    let reader = reader.expect("a connection");
    reader.batch_execute(FORGET).await.expect("as before the migration");
    reader
        .batch_execute("BEGIN; LOCK TABLE dispute_events IN ACCESS SHARE MODE")
        .await
        .expect("locked");
    let run = migration_waiting_for(&database, "dispute_events").await;
    reader
        .batch_execute("LOCK TABLE order_events IN ACCESS SHARE MODE; COMMIT")
        .await
        .expect("its turn");
    let applied = run.await.expect("no panic").expect("migrated");
    assert_eq!(applied.len(), 1, "{applied:?}");
}

/// Of partitions that are made from then on. The server of these tests is built without lz4: pglz, which every server has, stands for it.
#[tokio::test]
async fn bodies_are_compressed_as_a_migration_says() {
    let up = include_str!("../../../migrations/2026-11-28-000000_payload_compression/up.sql").replace("lz4", "pglz");
    let down = include_str!("../../../migrations/2026-11-28-000000_payload_compression/down.sql");
    let database = Database::new().await;
    let mut upkeep = shard::connect_upkeep(&database.url, &settings())
        .await
        .expect("a connection");
    for (sql, at, made, expected) in [
        (up.as_str(), "2019-05-10T00:00:00Z", "order_events_y2019m05", "p"),
        (down, "2019-06-10T00:00:00Z", "order_events_y2019m06", ""),
    ] {
        let migration = format!("BEGIN; {sql} COMMIT");
        let done = database.server.shard(0).execute(&database.name, &migration).await;
        done.expect("migrated");
        let month = Month::of(at.parse::<DateTime<Utc>>().expect("a time"));
        let partition = partitions::ensure_month(&mut upkeep, Table::Orders, month).await;
        assert_eq!(partition.expect("made").as_deref(), Some(made));
        for table in ["order_events", made, "dispute_events"] {
            let compression = format!(
                "SELECT attcompression::text FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'payload'"
            );
            assert_eq!(database.text(&compression).await, expected, "{table}");
        }
    }
}
