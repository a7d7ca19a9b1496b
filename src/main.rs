//! The `hookmill` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    hookmill::commands::Cli::parse().run()
}
