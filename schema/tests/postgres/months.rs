//! The tables of a month, made by whoever needs one.

use super::*;

#[tokio::test]
async fn a_missing_partition_is_made_once_by_all_who_need_it() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let claimed = claim(&mut connection, 0).await;
    // The first moment of a month, in UTC, whatever the server's time zone.
    database
        .server
        .shard(0)
        .execute(
            &database.name,
            &format!("ALTER DATABASE {} SET timezone = 'Pacific/Auckland'", database.name),
        )
        .await
        .expect("another time zone");
    let at: DateTime<Utc> = "2019-03-01T00:00:00Z".parse().expect("a time");
    let before = at - TimeDelta::microseconds(1);
    let rows = [
        Fact {
            at,
            ..fact("first", "1")
        }
        .row(0, 0),
        Fact {
            at: before,
            ..fact("last", "2")
        }
        .row(0, 1),
    ];
    let error = write(&mut connection, Table::Orders, TOPIC, &[part(0, 0, claimed, &rows)])
        .await
        .expect_err("23514");
    assert_eq!(error.class, ErrorClass::MissingPartition, "{error}");

    let make = |month: Month| {
        let url = database.url.clone();
        async move {
            let mut upkeep = shard::connect_upkeep(&url, &settings()).await.expect("a connection");
            partitions::ensure_month(&mut upkeep, Table::Orders, month)
                .await
                .expect("it is there")
        }
    };
    let (march, february) = (Month::of(at), Month::of(before));
    assert_ne!(march, february);
    let made = tokio::join!(make(march), make(march), make(february), make(february));
    assert!(
        made.0.or(made.1).is_some() && made.2.or(made.3).is_some(),
        "they were missing"
    );
    write(&mut connection, Table::Orders, TOPIC, &[part(0, 0, claimed, &rows)])
        .await
        .expect("written");
    assert_eq!(database.number("SELECT count(*) FROM order_events_y2019m03").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM order_events_y2019m02").await, 1);
}

/// While somebody reads for long, the partition is made all the same; while somebody locks the table, the attempt is given
/// up soon as the shard's trouble, leaves nothing behind, and succeeds later.
#[tokio::test]
async fn making_a_partition_never_queues_behind_a_lock_for_long() {
    let database = Database::new().await;
    let mut upkeep = shard::connect_upkeep(&database.url, &settings())
        .await
        .expect("a connection");
    let month = |at: &str| Month::of(at.parse::<DateTime<Utc>>().expect("a time"));
    let (may, june) = (month("2019-05-10T00:00:00Z"), month("2019-06-10T00:00:00Z"));
    let other = database
        .server
        .shard(0)
        .connect(&database.name)
        .await
        .expect("a connection");
    other
        .batch_execute("BEGIN; SELECT count(*) FROM order_events; LOCK TABLE order_events IN ROW EXCLUSIVE MODE")
        .await
        .expect("it reads and writes");
    partitions::ensure_month(&mut upkeep, Table::Orders, may)
        .await
        .expect("made beside those who read and write")
        .expect("it was missing");
    other
        .batch_execute("LOCK TABLE order_events IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("locked");
    let error = partitions::ensure_month(&mut upkeep, Table::Orders, june)
        .await
        .expect_err("given up");
    assert_eq!(error.class, ErrorClass::Retry);
    assert!(error.message.contains("lock timeout"), "{error}");
    let half_made = "SELECT count(*) FROM pg_class WHERE relname = 'order_events_y2019m06'";
    assert_eq!(database.number(half_made).await, 0);
    other.batch_execute("COMMIT").await.expect("released");
    partitions::ensure_month(&mut upkeep, Table::Orders, june)
        .await
        .expect("made")
        .expect("it was missing");
    assert_eq!(database.number(half_made).await, 1);

    other
        .batch_execute("ALTER TABLE order_events DETACH PARTITION order_events_y2019m06")
        .await
        .expect("detached");
    for wanted in [Some("order_events_y2019m06"), None] {
        let attached = partitions::ensure_month(&mut upkeep, Table::Orders, june).await;
        assert_eq!(attached.expect("attached again").as_deref(), wanted);
    }
}
