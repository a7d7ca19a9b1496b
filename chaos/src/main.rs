//! `cargo run --release -p chaos -- --seed S --events N --faults F --minutes M`: breaks Hookmill, from a seed, and checks
//! every promise from outside. What is broken and what is checked stands in docs/RELIABILITY.md.

mod campaign;
mod check;
mod child;
mod deployment;
mod fault;
mod garbage;
mod history;
mod instance;
mod kafka;
mod mutants;
mod pace;
mod plan;
mod provider;
mod quiet;
mod recovery;
mod report;
mod sweep;
mod watch;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use campaign::CampaignArgs;
use mutants::MutantsArgs;
use sweep::SweepArgs;

/// Breaks a deployment of Hookmill (instances, brokers, shards, the wires between them) while signed webhooks come, and
/// checks every promise from outside: on Kafka, on every shard, in the dead letters, in /stats.
///
/// Progress goes to standard error, a table and the report to standard output; the last line is JSON. Exit code 0 if
/// every promise was kept, 1 if not or if the campaign itself failed.
#[derive(Parser)]
#[command(name = "chaos", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    campaign: CampaignArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Breaks the product itself, one patch of chaos/mutants/ at a time, and has a campaign find out.
    ///
    /// Each patch is applied to a copy of the tree and built there. Exit code 0 if each mutant was caught; a patch that
    /// no longer applies is an error.
    Mutants(MutantsArgs),
    /// Runs campaigns of one seed after another.
    ///
    /// Logs go to target/chaos/sweep/. Exit code 0 if every promise was kept in each of them.
    Sweep(SweepArgs),
}

async fn run(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Some(Command::Mutants(args)) => mutants::run(args).await,
        Some(Command::Sweep(args)) => sweep::run(args).await,
        None => campaign::run(cli.campaign).await,
    }
}

fn main() -> ExitCode {
    // Before there are threads; without root there is nothing to mount either.
    dev::disk::keep_mounts_private();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chaos: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            result = run(cli) => result,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
