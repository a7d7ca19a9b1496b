//! A campaign in a process of its own, for those that run many.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

/// Runs a campaign with what `arguments` adds; what it says goes to `log`, its table beside it. Its report; one that
/// cannot be run proves nothing and is an error.
pub async fn campaign(log: &Path, arguments: impl FnOnce(&mut Command)) -> Result<Value> {
    let mut campaign = Command::new(std::env::current_exe()?);
    arguments(&mut campaign);
    campaign.stderr(Stdio::from(fs::File::create(log)?)).kill_on_drop(true);
    // Not output(): that takes standard error too.
    let output = campaign.stdout(Stdio::piped()).spawn()?.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    fs::write(log.with_extension("out"), said.as_bytes())?;
    report(&said).with_context(|| format!("the campaign failed: see {}", log.display()))
}

/// The report at the end of what a campaign printed.
pub fn report(said: &str) -> Option<Value> {
    serde_json::from_str(said.lines().last()?).ok()
}
