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
        let library = dir.join("clock.so");
        cc(
            dir,
            "clock.c",
            include_str!("../clock/clock.c"),
            &library,
            &["-shared", "-fPIC"],
        )?;
        Ok(Self(library))
    }
}

fn cc(dir: &Path, name: &str, code: &str, product: &Path, flags: &[&str]) -> Result<()> {
    let source = dir.join(name);
    fs::write(&source, code)?;
    let output = Command::new("cc")
        .args(["-O2", "-pthread", "-o"])
        .args([product, &source])
        .args(flags)
        .output()
        .context("cc cannot be started: install a C compiler")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} cannot be compiled: {said}");
    }
    Ok(())
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

    /// Who waits with a long time-out hears a signal at once, whenever it comes: with slices of 20 us, thousands come just
    /// as one ends.
    #[test]
    fn no_signal_is_lost() {
        let dir = std::env::temp_dir().join(format!("hookmill-signals-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let (library, program) = (dir.join("clock.so"), dir.join("signals"));
        let flags = ["-shared", "-fPIC", "-DSLICE=20000LL"];
        cc(&dir, "clock.c", include_str!("../clock/clock.c"), &library, &flags).expect("compiled");
        cc(&dir, "signals.c", include_str!("../clock/signals.c"), &program, &[]).expect("compiled");
        let clock = Clock::new(&Library(library), &dir, "test").expect("a clock");
        let told = Command::new(program).envs(clock.env).output().expect("it runs");
        let longest: u64 = String::from_utf8_lossy(&told.stdout).trim().parse().expect("ms");
        assert!(longest < 1000, "a waiter was not woken for {longest} ms");
        fs::remove_dir_all(dir).expect("removed");
    }
}
