//! Large batches, whose log is copied: the same promises, and what happens when a COPY is refused or broken off.

use std::time::Instant;

use futures_util::SinkExt;
use hookmill_schema::Writer;

use super::*;

/// Rows of `partition` from offset `from` on, each of an order of its own.
fn rows(partition: i32, from: i64, ids: std::ops::Range<usize>) -> Vec<Row> {
    let at = now();
    let ids = ids.map(|id| format!("{partition}-{id}"));
    (from..)
        .zip(ids)
        .map(|(offset, id)| Fact { at, ..fact(&id, &id) }.row(partition, offset))
        .collect()
}

async fn put(writer: &mut Writer, connection: &mut Connection, parts: &[Part<'_>]) -> Vec<i32> {
    let passed = writer.write(connection, Table::Orders, TOPIC, parts).await;
    passed.expect("written")
}

async fn written(database: &Database) -> (i64, i64, i64) {
    (
        database.number("SELECT count(*) FROM order_events").await,
        database.number("SELECT count(*) FROM orders").await,
        database
            .number("SELECT sum(next_offset)::int8 FROM consumer_offsets")
            .await,
    )
}

#[tokio::test]
async fn rows_of_a_fenced_partition_stay_out_of_the_copy() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let (mine, lost) = (claim(&mut connection, 0).await, claim(&mut connection, 1).await);
    claim(&mut database.connect().await, 1).await;
    let (ours, theirs) = (rows(0, 0, 0..800), rows(1, 0, 0..800));
    let parts = [part(0, 0, mine, &ours), part(1, 0, lost, &theirs)];
    let mut writer = Writer::default();
    for (expected, wrote) in [(vec![0], (1, 0)), (vec![], (1, 0))] {
        let passed = writer.write(&mut connection, Table::Orders, TOPIC, &parts).await;
        assert_eq!(passed.expect("written"), expected);
        assert_eq!(writer.copies(), wrote);
        assert_eq!(written(&database).await, (800, 800, 800));
    }
    let of_theirs = "SELECT count(*) FROM order_events WHERE kafka_partition = 1";
    assert_eq!(database.number(of_theirs).await, 0);
    // The transaction is over: the next one is written.
    let next = rows(0, 800, 800..1600);
    assert_eq!(
        put(&mut writer, &mut connection, &[part(0, 800, mine, &next)]).await,
        [0]
    );
    assert_eq!(
        (writer.copies(), written(&database).await),
        ((2, 0), (1600, 1600, 1600))
    );
}

/// The writer remembers what it wrote, and keeps that out of the COPY. A writer that does not know is told by the primary
/// key, and writes the batch by the statement.
#[tokio::test]
async fn redeliveries_change_nothing_whether_foreseen_or_not() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let claimed = claim(&mut connection, 0).await;
    let first = rows(0, 0, 0..1000);
    let mut writer = Writer::default();
    assert_eq!(
        put(&mut writer, &mut connection, &[part(0, 0, claimed, &first)]).await,
        [0]
    );
    let redelivered = |from: i64, new: std::ops::Range<usize>| {
        let mut batch = rows(0, from, new);
        for (old, row) in batch.iter_mut().step_by(30).enumerate() {
            let id = format!("0-{old}");
            let Row::Event(event) = &first[old] else {
                panic!("an event")
            };
            let at = DateTime::from_timestamp_micros(event.occurred_at_us()).expect("a time");
            *row = Fact { at, ..fact(&id, &id) }.row(0, row.record().offset);
        }
        batch
    };
    let second = redelivered(1000, 1000..2000);
    assert_eq!(
        put(&mut writer, &mut connection, &[part(0, 1000, claimed, &second)]).await,
        [0]
    );
    assert_eq!(writer.copies(), (2, 0));
    assert_eq!(written(&database).await, (1966, 1966, 2000));

    let third = redelivered(2000, 2000..3000);
    let mut stranger = Writer::default();
    assert_eq!(
        put(&mut stranger, &mut connection, &[part(0, 2000, claimed, &third)]).await,
        [0]
    );
    assert_eq!(stranger.copies(), (0, 1));
    assert_eq!(written(&database).await, (2932, 2932, 3000));

    // After a refusal some batches go without; then COPY is tried again.
    let mut at = 3000;
    while stranger.copies().0 == 0 {
        let from = usize::try_from(at).expect("small");
        let next = rows(0, at, from..from + 600);
        assert_eq!(
            put(&mut stranger, &mut connection, &[part(0, at, claimed, &next)]).await,
            [0]
        );
        at += 600;
        assert!(at < 30_000, "COPY is never tried again");
    }
    assert_eq!(stranger.copies(), (1, 1));
    assert_eq!(written(&database).await, (at - 68, at - 68, at));
}

#[tokio::test]
async fn a_bad_row_and_a_missing_month_are_told_as_by_the_statement() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let claimed = claim(&mut connection, 0).await;
    let mut writer = Writer::default();
    let mut batch = rows(0, 0, 0..1000);
    batch[700] = fact("bad\0id", "x").row(0, 700);
    let error = writer
        .write(&mut connection, Table::Orders, TOPIC, &[part(0, 0, claimed, &batch)])
        .await
        .expect_err("NUL");
    assert_eq!(
        (error.class, error.sqlstate.as_deref()),
        (ErrorClass::Row, Some("22021")),
        "{error}"
    );
    assert_eq!(written(&database).await, (0, 0, 0));
    assert_eq!(
        put(&mut writer, &mut connection, &[part(0, 0, claimed, &batch[..700])]).await,
        [0]
    );
    assert_eq!(written(&database).await, (700, 700, 700));

    let mut writer = Writer::default();
    let at: DateTime<Utc> = "2019-03-01T00:00:00Z".parse().expect("a time");
    let mut batch = rows(0, 700, 700..1700);
    let old = Fact {
        at,
        ..fact("old", "old")
    };
    // The one was received long after it happened, so it is not copied; the other is.
    for missing in [old.row(0, 1200), received_then(&old, 1200)] {
        batch[500] = missing;
        let error = Writer::default()
            .write(&mut connection, Table::Orders, TOPIC, &[part(0, 700, claimed, &batch)])
            .await
            .expect_err("23514");
        assert_eq!(error.class, ErrorClass::MissingPartition, "{error}");
        assert_eq!(written(&database).await, (700, 700, 700));
    }
    let mut upkeep = shard::connect_upkeep(&database.url, &settings())
        .await
        .expect("a connection");
    let made = partitions::ensure_month(&mut upkeep, Table::Orders, Month::of(at)).await;
    made.expect("made").expect("it was missing");
    assert_eq!(
        put(&mut writer, &mut connection, &[part(0, 700, claimed, &batch)]).await,
        [0]
    );
    assert_eq!(
        (writer.copies(), written(&database).await),
        ((1, 0), (1700, 1700, 1700))
    );
}

/// The same event, received when it happened.
fn received_then(fact: &Fact<'_>, offset: i64) -> Row {
    let text = String::from_utf8(fact.row(0, offset).record().value().expect("a value").to_vec()).expect("text");
    let (before, after) = text.split_once("\"receivedtime\":\"").expect("it says when");
    let (_, after) = after.split_once('"').expect("a string");
    let value = format!("{before}\"receivedtime\":\"{}\"{after}", fact.at.to_rfc3339());
    let record = Record::new(offset, None, Some(b"u"), Some(value.as_bytes()), std::iter::empty());
    Row::decode(Table::Orders, record, TOPIC, 0).expect("it decodes")
}

/// Two parts that meet on one state row, in the statement at the transaction's end.
#[tokio::test]
async fn an_entity_in_two_parts_undoes_the_copy() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let (a, b) = (claim(&mut connection, 0).await, claim(&mut connection, 1).await);
    let (mut ours, mut others) = (rows(0, 0, 0..600), rows(1, 0, 0..600));
    ours[5] = fact("here", "same").row(0, 5);
    others[7] = fact("there", "same").row(1, 7);
    let parts = [part(0, 0, a, &ours), part(1, 0, b, &others)];
    let mut writer = Writer::default();
    let error = writer
        .write(&mut connection, Table::Orders, TOPIC, &parts)
        .await
        .expect_err("21000");
    assert_eq!(error.class, ErrorClass::Split, "{error}");
    assert_eq!(written(&database).await, (0, 0, 0));
    for part in parts {
        let passed = writer.write(&mut connection, Table::Orders, TOPIC, &[part]).await;
        assert_eq!(passed.expect("each for itself").len(), 1);
    }
    assert_eq!(written(&database).await, (1200, 1199, 1200));
}

/// A connection that breaks in the middle of a COPY: nothing is written, and the next connection finds that out.
#[tokio::test]
async fn a_copy_that_is_cut_off_leaves_nothing() {
    let database = Database::new().await;
    let shard = database.server.shard(0);
    let url = shard.proxied_url_of(0, &database.name);
    let mut connection = shard::connect(&url, &settings()).await.expect("a connection");
    let claimed = claim(&mut connection, 0).await;
    let batch = std::sync::Arc::new(rows(0, 0, 0..60_000));
    let shared = batch.clone();
    let writing = tokio::spawn(async move {
        let mut writer = Writer::default();
        let parts = [part(0, 0, claimed, &shared)];
        writer.write(&mut connection, Table::Orders, TOPIC, &parts).await
    });
    let copying = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY order_events%'";
    while database.number(copying).await == 0 {
        assert!(!writing.is_finished(), "it was over before it could be cut off");
        tokio::task::yield_now().await;
    }
    shard.proxy().cut();
    let error = writing.await.expect("no panic").expect_err("cut off");
    assert_eq!(error.class, ErrorClass::Connection, "{error}");
    shard.proxy().restore();
    let mut again = database.connect().await;
    let ours = offsets::reclaim(&mut again, TOPIC, &[(0, claimed.epoch)], "me").await;
    let (_, claimed) = ours.expect("an answer")[0];
    assert_eq!((claimed.next_offset, written(&database).await), (0, (0, 0, 0)));
    let passed = Writer::default()
        .write(&mut again, Table::Orders, TOPIC, &[part(0, 0, claimed, &batch[..1000])])
        .await;
    assert_eq!(passed.expect("written"), [0]);
    assert_eq!(written(&database).await, (1000, 1000, 1000));
}

/// A process that is frozen in the middle of its COPY holds the partition's offset row, and no time-out of the server's
/// counts there. Resolves once its session has ended.
async fn frozen_in_its_copy(database: &Database) -> impl Future<Output = ()> + use<> {
    let (frozen, connection) = tokio_postgres::connect(
        &format!("{}?application_name=hookmill", database.url),
        tokio_postgres::NoTls,
    )
    .await
    .expect("a connection");
    let ended = tokio::spawn(connection);
    frozen
        .batch_execute("BEGIN; UPDATE consumer_offsets SET next_offset = 7")
        .await
        .expect("fenced");
    let copy = frozen
        .copy_in("COPY order_events (event_id) FROM STDIN")
        .await
        .expect("copying");
    let mut copy = Box::pin(copy);
    copy.send(bytes::Bytes::from_static(b"half a ro")).await.expect("sent");
    async move {
        assert!(ended.await.expect("no panic").is_err(), "its session was ended");
        drop((frozen, copy));
    }
}

#[tokio::test]
async fn a_claim_ends_a_writer_that_is_frozen_in_its_copy() {
    let database = Database::new().await;
    let first = claim(&mut database.connect().await, 0).await;
    let ended = frozen_in_its_copy(&database).await;
    let began = Instant::now();
    let mut next = database.connect().await;
    let claimed = loop {
        match offsets::claim(&mut next, TOPIC, 0, claimant("other")).await {
            Ok((claimed, _)) => break claimed,
            Err(error) => assert_eq!(error.class, ErrorClass::Retry, "{error}"),
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it waits for ever");
    };
    assert_eq!((claimed.next_offset, claimed.epoch), (0, first.epoch + 1));
    ended.await;
}

/// As a lane's own former session is, whose connection was cut without the server's hearing of it.
#[tokio::test]
async fn a_reclaim_ends_a_writer_that_is_frozen_in_its_copy() {
    let database = Database::new().await;
    let first = claim(&mut database.connect().await, 0).await;
    let ended = frozen_in_its_copy(&database).await;
    let began = Instant::now();
    let mut again = database.connect().await;
    let ours = loop {
        match offsets::reclaim(&mut again, TOPIC, &[(0, first.epoch)], "me").await {
            Ok(ours) => break ours,
            Err(error) => assert_eq!(error.class, ErrorClass::Retry, "{error}"),
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it waits for ever");
    };
    assert_eq!(ours.len(), 1);
    assert_eq!((ours[0].1.next_offset, ours[0].1.epoch), (0, first.epoch + 1));
    ended.await;
}

/// The COPY's start was sent along with a fence that failed: over that connection nothing can be asked any more.
#[tokio::test]
async fn a_fence_that_fails_gives_up_the_connection() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let claimed = claim(&mut connection, 0).await;
    let other = database.server.shard(0).connect(&database.name).await;
    let other = other.expect("a connection");
    other
        .batch_execute("BEGIN; SELECT 1 FROM consumer_offsets FOR UPDATE")
        .await
        .expect("locked");
    let batch = rows(0, 0, 0..800);
    let parts = [part(0, 0, claimed, &batch)];
    let refused = Writer::default()
        .write(&mut connection, Table::Orders, TOPIC, &parts)
        .await;
    let error = refused.expect_err("it waits for the row, and gives up");
    assert_eq!(
        (error.class, error.sqlstate.as_deref()),
        (ErrorClass::Retry, Some("55P03"))
    );
    assert!(connection.is_given_up());
    other.batch_execute("COMMIT").await.expect("unlocked");
    let mut again = database.connect().await;
    let ours = offsets::reclaim(&mut again, TOPIC, &[(0, claimed.epoch)], "me").await;
    let (_, claimed) = ours.expect("an answer")[0];
    assert_eq!((claimed.next_offset, written(&database).await), (0, (0, 0, 0)));
    let mut writer = Writer::default();
    assert_eq!(put(&mut writer, &mut again, &[part(0, 0, claimed, &batch)]).await, [0]);
    assert!(!again.is_given_up());
    assert_eq!((writer.copies(), written(&database).await), ((1, 0), (800, 800, 800)));
}

/// Disputes have a column more, and an order only where the provider says one.
#[tokio::test]
async fn disputes_are_copied_as_orders_are() {
    const DISPUTES: &str = "disputes.webhooks";
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let (claimed, _) = offsets::claim(&mut connection, DISPUTES, 0, claimant("me"))
        .await
        .expect("claimed");
    let event = |i: i64, order: Option<&str>| {
        let (id, dispute) = (format!("e{i}"), format!("d{}", i / 2));
        let event = NewEvent {
            source: "s",
            event_id: &id,
            kind: Kind::Dispute,
            event_type: "dispute.updated",
            occurred_at: now(),
            user_id: "u",
            order_id: order,
            dispute_id: Some(&dispute),
            status: Status::UnderReview,
            provider_status: Some("review"),
            amount_minor: Some(i),
            currency: None,
            entity_version: Some(i),
            received_at: now(),
            body: "{}",
        };
        let value = event.encode().expect("an event");
        let record = Record::new(i, None, None, Some(&value), std::iter::empty());
        Row::decode(Table::Disputes, record, DISPUTES, 0).expect("it decodes")
    };
    let batch: Vec<Row> = (0..600).map(|i| event(i, (i % 3 == 0).then_some("o"))).collect();
    let mut writer = Writer::default();
    let parts = [part(0, 0, claimed, &batch)];
    let passed = writer.write(&mut connection, Table::Disputes, DISPUTES, &parts).await;
    assert_eq!((passed.expect("written"), writer.copies()), (vec![0], (1, 0)));
    let same = "SELECT count(*) FROM dispute_events e JOIN disputes d USING (source, dispute_id)
        WHERE e.kafka_offset::text = substr(e.event_id, 2) AND e.amount_minor = e.kafka_offset
            AND (e.order_id = 'o') IS NOT DISTINCT FROM nullif(e.kafka_offset % 3 = 0, false) AND d.amount_minor % 2 = 1";
    assert_eq!(database.number(same).await, 600);
    assert_eq!(database.number("SELECT count(*) FROM disputes").await, 300);
}
