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
