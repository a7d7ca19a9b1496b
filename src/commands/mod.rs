//! The subcommands. Each ends with one message on standard error and a non-zero exit when it fails.

mod check;
mod migrate;
mod parked;
mod serve;
mod sources;
mod topics;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::Config;
use crate::telemetry;
use parked::ParkedAction;
use sources::SourcesAction;

/// Signed order and dispute webhooks, landed exactly once in sharded Postgres.
///
/// Hookmill takes webhooks of payment and commerce providers, verifies and maps them, answers 202 once Kafka holds
/// them, and writes each event exactly once to its shard. Start with `hookmill check`, which says what is missing.
#[derive(Parser)]
#[command(name = "hookmill", version)]
pub struct Cli {
    /// The configuration. Every key can be overridden by the environment as HOOKMILL_<SECTION>__<KEY>.
    #[arg(short, long, global = true, default_value = "config.toml", env = "HOOKMILL_CONFIG")]
    config: PathBuf,
    /// What is printed on standard output.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Runs what [services] switches on, until SIGTERM or Ctrl-C; then finishes what is in flight.
    ///
    /// Start more instances with the same configuration to scale: they share the partitions.
    Serve,
    /// Proves that config, secrets, brokers, topics and shards fit together: one line a finding, each saying what to do.
    Check,
    /// Brings the tables of every shard up to date, under a lock, so that several may try at once.
    Migrate,
    /// Shows what sources are and what they make of a request, without Kafka or Postgres.
    Sources {
        #[command(subcommand)]
        action: SourcesAction,
    },
    /// Shows events that were verified and not understood, and brings them back once the mapping is mended.
    Parked {
        #[command(subcommand)]
        action: ParkedAction,
    },
    /// Shows the topics, or creates those that are missing.
    Topics {
        #[command(subcommand)]
        action: Option<TopicsAction>,
    },
}

#[derive(Clone, Copy, Subcommand)]
enum TopicsAction {
    /// Shows each topic and whether it is as configured (the default).
    List,
    /// Creates the topics that are missing, dead-letter topics among them.
    Create,
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let result = match &self.command {
            Command::Sources { action } if sources::needs_no_config(action) => {
                sources::run_without(action, self.output)
            }
            _ => self.run_with_config(),
        };
        match result {
            Ok(code) => code,
            Err(error) => {
                eprintln!("hookmill: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn run_with_config(self) -> anyhow::Result<ExitCode> {
        Config::load(&self.config).and_then(|config| match self.command {
            Command::Sources { action } => sources::run(&config, &action, self.output),
            Command::Parked { action } => blocking(parked::run(&config, action, self.output)),
            Command::Serve => serve::run(config),
            Command::Check => blocking(check::run(&config, self.output)),
            Command::Migrate => {
                // It may have to wait for others, and says for whom.
                telemetry::start(&config.log)?;
                blocking(migrate::run(&config, self.output))
            }
            Command::Topics { action } => match action.unwrap_or(TopicsAction::List) {
                TopicsAction::List => blocking(topics::list(&config, self.output)),
                TopicsAction::Create => blocking(topics::create(&config, self.output)),
            },
        })
    }
}

/// Runs a command that is no daemon.
fn blocking(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
