//! The bare limits: what the libraries do with nothing around them. Each runs as a process of its own, so that what it
//! costs can be told from what the bench costs.

pub mod drain;
pub mod ingest;

use std::ffi::OsString;

use anyhow::Result;
use dev::process::{Process, Program};
use dev::stack::Stack;

/// This executable again, as one of the limits. Dropping it kills it.
pub struct Limit(pub Process);

impl Limit {
    /// Starts the hidden subcommand `args[0]`.
    pub fn start<S: Into<OsString>>(stack: &Stack, name: &str, args: impl IntoIterator<Item = S>) -> Result<Self> {
        let log = stack.dir().join("logs").join(format!("{name}.log"));
        let program = Program::new(name, std::env::current_exe()?, log).args(args);
        Ok(Self(Process::spawn(program)?))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.0.kill();
    }
}
