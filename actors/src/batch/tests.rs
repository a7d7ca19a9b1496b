use hookmill_schema::{Record, Table};

use super::*;

const LIMITS: BatchLimits = BatchLimits {
    rows: 1000,
    bytes: usize::MAX,
    in_flight: 2,
};

fn row(offset: i64) -> Row {
    let record = Record::new(offset, None, None, Some(b"x"), std::iter::empty());
    Row::decode(Table::DeadLetters, record, "t.DLQ", 0).expect("a dead letter is any record")
}

/// Plays a writer that refuses any batch holding a bad offset. Returns (written offsets, buried offsets, statements).
fn run(outbox: &mut Outbox, bad: &[i64], written: &mut Vec<i64>, buried: &mut Vec<i64>) -> usize {
    let (mut statements, mut stands) = (0, None);
    loop {
        let mut flight = Vec::new();
        while let Some(batch) = outbox.next_batch() {
            flight.push(batch);
        }
        if flight.is_empty() && outbox.poison().is_none() {
            return statements;
        }
        for batch in flight {
            if stands.is_some_and(|at| at != batch.from) {
                outbox.out_of_step(batch);
                continue;
            }
            statements += 1;
            if batch.rows.iter().any(|r| bad.contains(&r.record().offset)) {
                stands = Some(batch.from);
                outbox.rejected(batch);
            } else {
                stands = Some(batch.next);
                written.extend(batch.rows.iter().map(|r| r.record().offset));
                outbox.committed();
            }
        }
        if let Some(row) = outbox.poison() {
            buried.push(row.record().offset);
            outbox.step_over_poison();
        }
    }
}

fn filled(offsets: impl Iterator<Item = i64>) -> Outbox {
    let mut outbox = Outbox::new(0, LIMITS);
    offsets.for_each(|o| outbox.push(row(o)));
    outbox
}

#[test]
fn one_bad_row_costs_a_logarithm_of_statements_and_nothing_else() {
    let mut outbox = filled(0..1000);
    let (mut written, mut buried) = (Vec::new(), Vec::new());
    let statements = run(&mut outbox, &[777], &mut written, &mut buried);
    assert_eq!(buried, [777]);
    assert_eq!(written, (0..1000).filter(|o| *o != 777).collect::<Vec<_>>());
    assert!(
        statements <= 2 * 10 + 2,
        "{statements} statements for one bad row in 1000"
    );
}

#[test]
fn a_run_of_bad_rows_and_the_last_one_are_isolated_in_order() {
    let bad: Vec<i64> = (40..50).chain([99]).collect();
    let mut outbox = filled(0..100);
    let (mut written, mut buried) = (Vec::new(), Vec::new());
    run(&mut outbox, &bad, &mut written, &mut buried);
    assert_eq!(buried, bad);
    assert_eq!(written, (0..100).filter(|o| !bad.contains(o)).collect::<Vec<_>>());
    assert!(outbox.next_batch().is_none());
}

#[test]
fn the_offset_of_a_buried_last_row_is_passed_with_a_batch_of_no_rows() {
    let mut outbox = filled(0..1);
    let batch = outbox.next_batch().expect("one row waits");
    outbox.rejected(batch);
    assert!(outbox.poison().is_some());
    outbox.step_over_poison();
    let step = outbox.next_batch().expect("the offset must still be passed");
    assert_eq!((step.from, step.next, step.rows.len()), (0, 1, 0));
}

#[test]
fn a_batch_behind_a_refused_one_waits_for_it() {
    let mut outbox = filled(0..4);
    let first = outbox.next_batch().expect("four rows wait");
    outbox.push(row(4));
    let second = outbox.next_batch().expect("one more row waits");
    outbox.rejected(first);
    assert!(outbox.next_batch().is_none(), "the second is still out");
    outbox.out_of_step(second);
    let order: Vec<_> = std::iter::from_fn(|| {
        let batch = outbox.next_batch()?;
        outbox.committed();
        Some((batch.from, batch.next))
    })
    .collect();
    assert_eq!(order, [(0, 2), (2, 4), (4, 5)]);
}

#[test]
fn offsets_without_records_are_covered() {
    let mut outbox = Outbox::new(10, LIMITS);
    outbox.push(row(12));
    outbox.skip_to(20);
    let batch = outbox.next_batch().expect("rows wait");
    assert_eq!((batch.from, batch.next), (10, 20));
}

#[test]
fn a_full_batch_stops_the_reading_until_it_is_sent() {
    let mut outbox = Outbox::new(
        0,
        BatchLimits {
            rows: 2,
            bytes: usize::MAX,
            in_flight: 1,
        },
    );
    outbox.push(row(0));
    outbox.push(row(1));
    assert!(!outbox.has_room());
    assert!(outbox.next_batch().is_some());
    assert!(outbox.has_room());
    outbox.push(row(2));
    assert!(outbox.next_batch().is_none(), "one may be in flight");
}

#[test]
fn what_is_with_the_writer_is_no_more_than_a_full_batch() {
    let limits = BatchLimits {
        rows: 4,
        in_flight: 3,
        ..LIMITS
    };
    let mut outbox = Outbox::new(0, limits);
    let send = |outbox: &mut Outbox, rows: std::ops::Range<i64>| {
        rows.for_each(|offset| outbox.push(row(offset)));
        outbox.next_batch().map(|batch| batch.rows.len())
    };
    assert_eq!(send(&mut outbox, 0..1), Some(1));
    assert_eq!(send(&mut outbox, 1..4), Some(3), "four in all");
    assert_eq!(send(&mut outbox, 4..5), None, "the fifth waits");
    outbox.committed();
    assert_eq!(send(&mut outbox, 5..5), Some(1), "four again");
    outbox.committed();
    outbox.committed();
    assert_eq!(send(&mut outbox, 5..9), Some(4), "alone it may be full");

    let bytes = row(0).byte_len() * 3;
    let mut outbox = Outbox::new(0, BatchLimits { bytes, ..limits });
    assert_eq!(send(&mut outbox, 0..2), Some(2));
    assert_eq!(send(&mut outbox, 2..4), None, "four are too many bytes");
    outbox.committed();
    assert_eq!(send(&mut outbox, 4..4), Some(2));
    assert_eq!(send(&mut outbox, 4..5), Some(1), "three are not");
}

#[test]
fn bytes_fill_a_batch_too_and_are_counted_anew_for_the_next() {
    let each = row(0).byte_len();
    assert!(each > 0);
    let limits = BatchLimits {
        bytes: 3 * each,
        ..LIMITS
    };
    let mut outbox = Outbox::new(0, limits);
    for offset in 0..6 {
        assert!(outbox.has_room(), "at {offset}");
        outbox.push(row(offset));
        if offset % 3 == 2 {
            assert!(!outbox.has_room());
            assert_eq!(outbox.next_batch().expect("a full batch").rows.len(), 3);
            outbox.committed();
        }
    }
}

#[test]
fn nothing_is_read_while_something_came_back() {
    let mut outbox = filled(0..2);
    assert_eq!((outbox.waiting_rows(), outbox.expected()), (2, 2));
    let batch = outbox.next_batch().expect("two rows wait");
    assert_eq!(outbox.waiting_rows(), 0);
    outbox.push(row(2));
    outbox.rejected(batch);
    assert!(!outbox.has_room());
    assert_eq!(outbox.waiting_rows(), 3, "two came back, one is being gathered");
    let half = outbox.next_batch().expect("a half");
    assert!(outbox.next_batch().is_none(), "one at a time");
    outbox.rejected(half);
    assert_eq!(outbox.poison().map(BatchRow::offset), Some(0));
    assert!(!outbox.has_room() && outbox.next_batch().is_none());
    outbox.step_over_poison();
    let half = outbox.next_batch().expect("the other half");
    assert_eq!((half.from, half.next), (0, 2));
    outbox.committed();
    assert!(outbox.has_room());
}

#[test]
fn what_is_sent_is_remembered_until_its_answer() {
    let value = r#"{"specversion":"1.0","id":"e","source":"s","type":"t","time":"2026-01-01T00:00:00Z","receivedtime":"2026-01-02T00:00:00Z","kind":"order","userid":"u","orderid":"o","status":"paid","data":{}}"#;
    let event = |offset| {
        let record = Record::new(offset, None, None, Some(value.as_bytes()), std::iter::empty());
        Row::decode(Table::Orders, record, "t", 0).expect("an event")
    };
    assert!(event(5).byte_len() >= value.len());
    let mut outbox = Outbox::new(5, LIMITS);
    outbox.push(event(5));
    outbox.push(event(8));
    let two = event(5).byte_len() + event(8).byte_len();
    assert!(outbox.next_batch().is_some());
    outbox.push(row(9));
    assert!(outbox.next_batch().is_some());
    let sent = |next, rows, bytes, oldest_received_us| Sent {
        next,
        rows,
        bytes,
        oldest_received_us,
    };
    assert_eq!(outbox.committed(), Some(sent(9, 2, two, Some(1_767_312_000_000_000))));
    assert_eq!(outbox.committed(), Some(sent(10, 1, row(9).byte_len(), None)));
    assert_eq!(outbox.committed(), None);
}

#[test]
fn batches_out_of_step_come_back_in_the_order_of_their_offsets() {
    let limits = BatchLimits { in_flight: 3, ..LIMITS };
    let mut outbox = Outbox::new(0, limits);
    let flight: Vec<_> = (0..3)
        .map(|offset| {
            outbox.push(row(offset));
            outbox.next_batch().expect("one row waits")
        })
        .collect();
    for batch in flight.into_iter().rev() {
        outbox.out_of_step(batch);
    }
    for offset in 0..3 {
        assert_eq!(outbox.next_batch().map(|batch| batch.from), Some(offset));
        outbox.committed();
    }
}

#[test]
fn rows_count_as_held_until_they_are_committed_or_buried() {
    let mut outbox = filled(0..3);
    let batch = outbox.next_batch().expect("three wait");
    outbox.push(row(3));
    assert_eq!(outbox.rows(), 4, "three with the writer, one that waits");
    outbox.rejected(batch);
    assert_eq!(outbox.rows(), 4, "cut in two");
    let first = outbox.next_batch().expect("the first half");
    assert_eq!((first.rows.len(), outbox.rows()), (1, 4));
    outbox.rejected(first);
    assert_eq!(outbox.rows(), 4, "the one at fault, too");
    outbox.step_over_poison();
    assert_eq!(outbox.rows(), 3);
    while outbox.next_batch().is_some() {
        outbox.committed();
    }
    assert_eq!(outbox.rows(), 0);
}
