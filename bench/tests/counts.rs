//! What an event costs, counted and not timed, so that it holds on any machine: instructions by valgrind
//! (<https://valgrind.org/docs/manual/cl-manual.html>), allocations by a counting allocator. More than a tenth above the
//! budget fails; so does as much below, because then the budget is out of date.
//!
//! The figures are those of the development profile. After a change that is meant, or with another compiler:
//! `HOOKMILL_COUNTS=write cargo test --workspace --test counts` writes the budget anew.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

const PIECES: [&str; 8] = [
    "receive.stripe",
    "receive.shopify",
    "receive.square",
    "receive.razorpay",
    "receive.standard",
    "encode",
    "decode",
    "batch",
];

/// Events of the shorter run; what one costs is the difference to a run with twice as many.
const EVENTS: u64 = 1000;

fn budget() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("counts.json")
}

/// Instructions and allocations of a run.
fn run(piece: &str, events: u64) -> (f64, f64) {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            env!("CARGO_BIN_EXE_paths"),
            piece,
        ])
        .arg(events.to_string())
        .output()
        .expect("valgrind cannot be started: install it (Debian: apt-get install valgrind)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{piece}: {said}");
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse().ok())
        .expect("callgrind tells what it collected");
    let allocations = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a count");
    (collected, allocations)
}

#[test]
fn no_piece_costs_a_tenth_more_than_it_did() {
    let mut counted: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for piece in PIECES {
        let ((once, first), (twice, second)) = (run(piece, EVENTS), run(piece, 2 * EVENTS));
        let each = |more: f64| more / EVENTS as f64;
        counted.insert(
            piece,
            (
                each(twice - once).round(),
                (each(second - first) * 100.0).round() / 100.0,
            ),
        );
    }
    let table: serde_json::Map<String, Value> = counted
        .iter()
        .map(|(piece, (instructions, allocations))| {
            (
                (*piece).to_owned(),
                json!({ "instructions": instructions, "allocations": allocations }),
            )
        })
        .collect();
    let text = serde_json::to_string_pretty(&Value::from(table)).expect("JSON") + "\n";
    if std::env::var("HOOKMILL_COUNTS").is_ok_and(|value| value == "write") {
        std::fs::write(budget(), &text).expect("the budget can be written");
        return;
    }
    let known = std::fs::read_to_string(budget()).expect("bench/counts.json is there");
    let known: Value = serde_json::from_str(&known).expect("it is JSON");
    let mut wrong = Vec::new();
    for (piece, (instructions, allocations)) in &counted {
        for (what, now) in [("instructions", *instructions), ("allocations", *allocations)] {
            let was = known[*piece][what].as_f64().unwrap_or(f64::NAN);
            if !(was * 0.9..=was * 1.1 + 0.01).contains(&now) {
                wrong.push(format!("{piece}: {now} {what} for an event, the budget is {was}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nIf that is meant, HOOKMILL_COUNTS=write writes the budget anew. Counted:\n{text}",
        wrong.join("\n")
    );
}
