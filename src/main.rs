//! The `hookmill` command.

mod commands;
mod config;
mod open_files;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    commands::Cli::parse().run()
}
