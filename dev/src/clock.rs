//! A wall clock that can be set for one process: a small library, preloaded, adds an offset to what the kernel says.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The preloaded library, compiled for this run.
#[derive(Clone, Debug)]
pub struct Library(PathBuf);

impl Library {
    /// Compiles it into `dir`, with the C compiler that librdkafka needs too.
    pub fn compile(dir: &Path) -> Result<Self> {
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        fs::write(&source, include_str!("../clock/clock.c"))?;
        let output = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .output()
            .context("cc cannot be started: install a C compiler")?;
        if !output.status.success() {
            bail!(
                "the clock cannot be compiled: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(Self(library))
    }
}

/// The clock of one process.
#[derive(Debug)]
pub struct Clock {
    file: File,
    /// What the process must have in its environment.
    pub env: [(&'static str, String); 2],
}

impl Clock {
    /// A clock that tells the truth so far, with its file in `dir`.
    pub fn new(library: &Library, dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(format!("{name}.clock"));
        let file = File::options().create(true).truncate(true).write(true).open(&path)?;
        let clock = Self {
            file,
            env: [
                ("LD_PRELOAD", library.0.display().to_string()),
                ("CHAOS_CLOCK", path.display().to_string()),
            ],
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// From now on it is wrong by so many seconds.
    pub fn set(&self, seconds: i64) -> Result<()> {
        let ns = seconds.saturating_mul(1_000_000_000);
        Ok(self.file.write_all_at(&ns.to_ne_bytes(), 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_believes_it() {
        let dir = std::env::temp_dir().join(format!("hookmill-clock-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let clock = Clock::new(&Library::compile(&dir).expect("compiled"), &dir, "test").expect("a clock");
        clock.set(-86_400).expect("set");
        let told = Command::new("date")
            .arg("+%s")
            .envs(clock.env)
            .output()
            .expect("date runs");
        let told: u64 = String::from_utf8_lossy(&told.stdout).trim().parse().expect("a time");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        assert!((now - told).abs_diff(86_400) < 5, "{told} while it was {now}");
        fs::remove_dir_all(dir).expect("removed");
    }
}
