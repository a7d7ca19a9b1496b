//! Migrations beside each other and beside writers.

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
    writer
        .batch_execute(
            "DELETE FROM __diesel_schema_migrations WHERE version = '20261127000000';
             ALTER TABLE order_events ALTER recorded_at SET DEFAULT clock_timestamp()",
        )
        .await
        .expect("as before the migration");
    reader
        .batch_execute("BEGIN; LOCK TABLE order_events IN ACCESS SHARE MODE")
        .await
        .expect("locked");
    let url = database.url.clone();
    let run = tokio::spawn(async move { migrations::run(&url, &settings()).await });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'order_events'::regclass";
    while database.number(waits).await == 0 {
        assert!(!run.is_finished(), "nothing is to be migrated");
        tokio::task::yield_now().await;
    }
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

/// Also in partitions that were there before. What a server was built with, it tells by the values that a setting of its own may have.
#[tokio::test]
async fn bodies_are_compressed_by_lz4_where_the_server_has_it() {
    let database = Database::new().await;
    let mut upkeep = shard::connect_upkeep(&database.url, &settings())
        .await
        .expect("a connection");
    let may = Month::of("2019-05-10T00:00:00Z".parse::<DateTime<Utc>>().expect("a time"));
    let made = partitions::ensure_month(&mut upkeep, Table::Orders, may).await;
    made.expect("made");
    let forget = "DELETE FROM __diesel_schema_migrations WHERE version = '20261128000000';
                  ALTER TABLE order_events_y2019m05 ALTER payload SET COMPRESSION default";
    let shard = database.server.shard(0);
    shard.execute(&database.name, forget).await.expect("as before");
    let applied = migrations::run(&database.url, &settings()).await.expect("migrated");
    assert_eq!(applied.len(), 1, "{applied:?}");
    let has_lz4 =
        "SELECT count(*) FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)";
    let expected = if database.number(has_lz4).await == 1 { "l" } else { "" };
    for table in ["order_events", "order_events_y2019m05", "dispute_events"] {
        let compression = format!(
            "SELECT attcompression::text FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attname = 'payload'"
        );
        assert_eq!(database.text(&compression).await, expected, "{table}");
    }
}
