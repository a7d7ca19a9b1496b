//! What the `hookmill` command is made of: configuration, commands, wiring.

pub mod commands;
pub mod config;
mod open_files;
pub mod telemetry;
