//! What is known of the binary under test.

use std::path::Path;

use anyhow::{Context, Result};

use super::root;

/// Whether a binary is the one of the tests: the code that reads the failpoints to be set is in it.
pub(super) fn has_failpoints(binary: &Path) -> Result<bool> {
    let code = std::fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let name = b"FAILPOINTS";
    Ok(code.windows(name.len()).any(|part| part == name))
}

/// The revision of the tree.
pub(super) fn revision() -> String {
    let mut git = std::process::Command::new("git");
    let output = git
        .args(["describe", "--always", "--dirty"])
        .current_dir(root())
        .output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
