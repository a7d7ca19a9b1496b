//! `cargo run --release -p chaos -- --seed S --events N --faults F --minutes M`: breaks Hookmill, from a seed, and checks
//! every promise from outside. What is broken and what is checked stands in docs/RELIABILITY.md.

mod campaign;
mod check;
mod clock;
mod deployment;
mod fault;
mod garbage;
mod history;
mod instance;
mod kafka;
mod pace;
mod plan;
mod provider;
mod quiet;
mod recovery;
mod report;
mod watch;
mod world;

use std::process::ExitCode;

use clap::Parser;

use campaign::CampaignArgs;

/// Breaks a deployment of Hookmill (instances, brokers, shards, the wires between them) while signed webhooks come, and
/// checks every promise from outside: on Kafka, on every shard, in the dead letters, in /stats.
///
/// Progress goes to standard error, a table and the report to standard output; the last line is JSON. Exit code 0 if
/// every promise was kept, 1 if not or if the campaign itself failed.
#[derive(Parser)]
#[command(name = "chaos", version)]
struct Cli {
    #[command(flatten)]
    campaign: CampaignArgs,
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
            result = campaign::run(cli.campaign) => result,
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
