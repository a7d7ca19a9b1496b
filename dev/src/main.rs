//! The `dev` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dev::run::{self, DirArgs, RunArgs, ServerArgs};
use dev::send::{self, SendArgs};

/// The product and what it needs, on this machine, without containers: real Kafka, real Postgres shards, signed webhooks.
#[derive(Parser)]
#[command(name = "dev", bin_name = dev::COMMAND)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(RunArgs),
    Up(ServerArgs),
    /// Stops what `run` or `up` started, in good order; data is kept.
    Down(DirArgs),
    /// Shows what runs: names, process ids, logs.
    Status(DirArgs),
    /// Starts a process again that was killed, with its data: kafka-0, shard-1, hookmill-0 …
    Start {
        /// Its name, as `status` shows it.
        name: String,
        #[command(flatten)]
        dir: DirArgs,
    },
    Send(SendArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("dev: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args).await,
            Command::Up(servers) => {
                let args = RunArgs {
                    servers,
                    instances: 1,
                    no_samples: true,
                    detach: true,
                    servers_only: true,
                };
                run::run(args).await
            }
            Command::Down(dir) => run::down(&dir).await,
            Command::Status(dir) => run::status(&dir),
            Command::Start { name, dir } => run::start(&dir, &name).await,
            Command::Send(args) => send::run(args).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dev: {error:#}");
            ExitCode::FAILURE
        }
    }
}
