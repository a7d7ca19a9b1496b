//! The protocol keeps its promises in every history within the bounds. Larger bounds: `cargo run --release -p model`.

use model::{Protocol, Record, check};

/// Tries every history. `rare` names situations that these bounds leave no room for.
fn holds(records: &[&str], faults: u8, rare: &[&str]) {
    let records: Vec<_> = records.iter().map(|text| Record::read(text)).collect();
    let report = check(Protocol::new(records.clone(), faults), 2);
    println!(
        "{records:?}, {faults} faults: {} states, {} steps, depth {}",
        report.states, report.steps, report.depth
    );
    for (promise, history) in &report.broken {
        println!("broken: {promise}\n{history:#?}");
    }
    assert!(report.broken.is_empty(), "a promise is broken");
    assert_eq!(report.never_seen, rare, "the promises may hold for want of trouble");
}

const BURIED: &str = "a bad record is buried";

/// Three processes, two partitions that share each process's writer, a bad record: statements of both partitions are
/// merged, refused, taken apart, and the bad row is stepped over, with a fault at any moment.
#[test]
fn three_processes_two_partitions_and_a_bad_record_with_a_fault_anywhere() {
    holds(&["ab", "cX"], 1, &[]);
}

/// A batch of two is refused while a third record is with the writer behind it.
#[test]
fn three_processes_and_a_refused_batch_with_one_behind_it() {
    holds(&["Xab"], 1, &[]);
}

/// Two faults, so that a zombie's connection breaks, a second owner dies, an unknown commit meets a third claim.
#[test]
fn three_processes_two_partitions_and_two_faults_anywhere() {
    holds(&["a", "b"], 2, &[BURIED]);
}

/// The same over several batches of one partition.
#[test]
fn three_processes_one_partition_and_two_faults_anywhere() {
    holds(&["ab"], 2, &[BURIED]);
}
