//! The checker finds what is wrong with each way to get the protocol wrong; so that it finds nothing means something.

use model::promises::{NO_LOSS, NO_SPIN, ONCE_IN_ORDER, ONLY_POISON, PROGRESS, TRUTH};
use model::{Mutant, Protocol, Record, Report, check};

/// Two processes, one partition, one fault: enough for each. One thread, so that the histories are shortest ones.
fn bounds(records: &str) -> Protocol {
    let mut protocol = Protocol::new(vec![Record::read(records)], 1);
    protocol.instances = 2;
    protocol
}

fn with(mutant: Mutant, records: &str) -> Report {
    let report = check(bounds(records).with(mutant), 1);
    for (promise, history) in &report.broken {
        println!("{mutant:?} breaks {promise:?}:\n{history:#?}");
    }
    report
}

fn breaks(mutant: Mutant, records: &str, promises: &[&str]) {
    assert_eq!(check(bounds(records), 1).broken, [], "without the mutant");
    let report = with(mutant, records);
    let broken: Vec<&str> = report.broken.iter().map(|(promise, _)| *promise).collect();
    assert_eq!(broken, promises, "{mutant:?}");
}

#[test]
fn a_fence_without_the_epoch_lets_a_late_statement_move_the_offset_under_a_batch() {
    breaks(Mutant::NoEpoch, "ab", &[NO_SPIN, PROGRESS]);
}

#[test]
fn an_offset_in_a_statement_of_its_own_repeats_rows() {
    breaks(Mutant::OffsetApart, "ab", &[ONCE_IN_ORDER]);
}

#[test]
fn a_plain_select_in_the_claim_reads_a_stale_offset() {
    breaks(Mutant::PlainSelect, "ab", &[NO_SPIN, PROGRESS]);
}

#[test]
fn a_zombie_that_re_reads_shares_its_successors_epoch() {
    breaks(Mutant::ReRead, "ab", &[NO_SPIN, PROGRESS]);
}

#[test]
fn a_zombie_that_claims_instead_of_reclaiming_goes_on() {
    breaks(Mutant::BlindReclaim, "ab", &[NO_SPIN, PROGRESS]);
}

#[test]
fn a_statement_whose_answer_is_lost_was_not_always_committed() {
    breaks(Mutant::AssumeCommitted, "ab", &[TRUTH, NO_SPIN, PROGRESS]);
}

#[test]
fn an_outage_makes_no_record_bad() {
    breaks(Mutant::BuryOnOutage, "ab", &[NO_LOSS, ONLY_POISON]);
}

#[test]
fn a_dead_letter_is_acknowledged_before_its_offset_is_passed() {
    breaks(Mutant::StepBeforeBuried, "Xa", &[NO_LOSS]);
}

#[test]
fn a_redelivery_without_on_conflict_is_taken_for_a_bad_record() {
    breaks(Mutant::NoConflictClause, "aa", &[NO_LOSS, ONLY_POISON]);
}

#[test]
fn a_connection_left_inside_a_transaction_answers_and_writes_nothing() {
    breaks(Mutant::InsideTransaction, "ab", &[TRUTH, PROGRESS]);
}

/// Not a mutant that escapes, but a second lock on the same door: whoever holds the epoch writes in step. The
/// comparison of the offset stays for what is outside of the model, an offset row changed by hand.
#[test]
fn the_epoch_alone_would_do() {
    assert_eq!(with(Mutant::NoOffset, "ab").broken, []);
}
