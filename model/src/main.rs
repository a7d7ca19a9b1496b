//! Checks the protocol within given bounds: `cargo run --release -p model -- --help`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use model::{Mutant, Protocol, Record, check};
use serde_json::json;

/// Tries every history of Hookmill's claim, fence, commit and rebalance protocol within the bounds.
///
/// Ends with one line of JSON; exit code 1 if a promise is broken.
#[derive(Parser)]
struct Bounds {
    /// Processes.
    #[arg(long, default_value_t = 3)]
    instances: usize,
    /// Each partition's records, with commas between: a letter is an event's identity, X a record that Postgres refuses.
    #[arg(long, default_value = "ab,c", value_delimiter = ',')]
    records: Vec<String>,
    /// Faults in one history. Each one more takes about 40 times as long.
    #[arg(long, default_value_t = 2)]
    faults: u8,
    /// Keeps a write's locks and its commit apart, which only a claim that does not wait could tell.
    #[arg(long)]
    locks: bool,
    /// Something to get wrong.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Threads of the checker.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

fn main() -> ExitCode {
    let bounds = Bounds::parse();
    let records = bounds.records.iter().map(|text| Record::read(text)).collect();
    let mut protocol = Protocol::new(records, bounds.faults);
    protocol.instances = bounds.instances;
    if let Some(mutant) = bounds.mutant {
        protocol = protocol.with(mutant);
    }
    protocol.locks |= bounds.locks;
    let started = Instant::now();
    let report = check(protocol, bounds.threads);
    for (promise, history) in &report.broken {
        println!("broken: {promise}");
        for (number, step) in history.iter().enumerate() {
            println!("{:4}  {step:?}", number + 1);
        }
    }
    for situation in &report.never_seen {
        println!("never seen: {situation}");
    }
    let mut line = report.json();
    line["seconds"] = json!(started.elapsed().as_secs_f64());
    println!("{line}");
    if report.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
