//! `cargo run --release -p bench -- drain | ingest | fresh | flat | idle | all`: what the product does, and beside it, in the same run on
//! the same machine, what the bare libraries do.

mod all;
mod distance;
mod drain;
mod flat;
mod fresh;
mod idle;
mod ingest;
mod limit;
mod load;
mod machine;
mod overload;
mod plot;
mod product;
mod report;
mod workload;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

/// Measures Hookmill beside the bare limit of its libraries, on a Kafka and Postgres shards started for the run.
///
/// The servers are warmed up; then each round measures the product's binary and the limit (the next round in another
/// order), so that what else the machine does meets both; ratios are of the same round, figures medians over the rounds. Progress goes to
/// standard error, results to standard output, the last line is JSON. Events per second compare only within a run: load
/// generator, brokers and shards share the machine. CPU seconds per million events compare between runs too.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything, in half an hour to an hour; writes docs/BENCHMARKS.md and its pictures.
    All(all::Args),
    /// From full topics to the shards: `hookmill serve` against a loop that reads with rdkafka and runs the statement
    /// with tokio-postgres, without actors, groups, supervision or dead letters.
    ///
    /// Counted from the first movement of an offset to the last, so start-up is left out; at the end every event must
    /// be in its table exactly once. Example: cargo run --release -p bench -- drain --events 1000000 --mode uniform
    Drain {
        #[command(flatten)]
        amount: Amount,
        #[command(flatten)]
        case: drain::Case,
    },
    /// From received to committed, at steady rates.
    Fresh(fresh::Args),
    /// What must not grow: CPU with partitions and instances, the time to the first write, the silence of a hand-over.
    Flat {
        #[command(flatten)]
        amount: Amount,
    },
    /// From signed webhooks to Kafka's acknowledgement: `hookmill serve` against an actix-web handler that verifies the
    /// signature and produces the body, with 2, 3 and 5 requests in flight to the broker: the limit is that of the highest rate.
    ///
    /// At the end the topics must hold every acknowledged event.
    /// Example: cargo run --release -p bench -- ingest --connections 512
    Ingest {
        #[command(flatten)]
        amount: Amount,
        /// Connections that send at once, each one webhook after another.
        #[arg(long, default_value_t = 64)]
        connections: usize,
    },
    /// More webhooks at once than are taken (`ingest.max_in_flight`): accepted ones must stay as many and nearly as quick, the
    /// others hear 503 at once.
    Overload(overload::Args),
    /// Webhooks to a broker that is farther away, by how many requests may be in flight to it.
    Distance(distance::Args),
    /// Memory and CPU of an instance that owns the shipped 18 partitions and has nothing to do.
    Idle {
        /// Use the release binary that is there, rather than have cargo bring it up to date.
        #[arg(long)]
        no_build: bool,
    },
    #[command(hide = true)]
    LimitDrain(limit::drain::Settings),
    #[command(hide = true)]
    LimitIngest(limit::ingest::Settings),
}

#[derive(Args, Clone, Copy)]
struct Amount {
    /// Events for each side in each round.
    #[arg(long, default_value_t = 300_000)]
    events: u64,
    /// How often both sides are measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Use the release binary that is there, rather than have cargo bring it up to date.
    #[arg(long)]
    no_build: bool,
}

impl Amount {
    fn check(self) -> Result<Self> {
        if self.events < 1000 || self.rounds == 0 {
            bail!("--events must be at least 1000 and --rounds at least 1");
        }
        Ok(self)
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!("this is a debug build, whose figures mean nothing: cargo run --release -p bench -- …");
    }
    match command {
        Command::LimitDrain(settings) => limit::drain::run(settings),
        Command::LimitIngest(settings) => limit::ingest::run(settings),
        Command::All(args) => interruptible(all::run(args)),
        Command::Drain { amount, case } => interruptible(drain::run(amount.check()?, case)),
        Command::Fresh(args) => interruptible(fresh::run(args)),
        Command::Flat { amount } => interruptible(flat::run(amount.check()?)),
        Command::Ingest { amount, connections } => interruptible(ingest::run(amount.check()?, connections.max(1))),
        Command::Overload(args) => interruptible(overload::run(args)),
        Command::Distance(args) => interruptible(distance::run(args)),
        Command::Idle { no_build } => interruptible(idle::run(no_build)),
    }
}

/// A Ctrl-C still stops what was started.
fn interruptible(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    })
}
