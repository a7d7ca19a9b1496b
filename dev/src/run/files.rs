//! The folder of a run: `env`, `pids`, `logs/`, secrets that are kept, and how commands talk to a run in the background.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::{Flock, FlockArg};

use super::product::Address;
use crate::process::Process;

/// An existing folder.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path.join("logs")).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path.canonicalize()?))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(super) fn env_file(&self) -> PathBuf {
        self.0.join("env")
    }

    pub(super) fn pids_file(&self) -> PathBuf {
        self.0.join("pids")
    }

    fn requests_dir(&self) -> PathBuf {
        self.0.join("requests")
    }

    pub(super) fn ready_file(&self) -> PathBuf {
        self.0.join("ready")
    }

    /// The runner's own process id, kept apart from `pids`: stopping it stops all.
    pub(super) fn runner_file(&self) -> PathBuf {
        self.0.join("runner")
    }

    /// Held for as long as a run lasts.
    pub(super) fn lock(&self) -> Result<Flock<fs::File>> {
        let file = fs::File::create(self.0.join("lock"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                fs::write(self.runner_file(), std::process::id().to_string())?;
                Ok(lock)
            }
            Err(_) => bail!(
                "something runs in {} already: `dev/stop` stops it, or give another --dir",
                self.0.display()
            ),
        }
    }

    /// Whether a run holds the folder.
    pub(super) fn is_running(&self) -> bool {
        fs::File::create(self.0.join("lock"))
            .is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err())
    }

    /// Removes what tells of a run that is over.
    pub(super) fn clear(&self) -> Result<()> {
        for file in [self.pids_file(), self.ready_file()] {
            if file.exists() {
                fs::remove_file(file)?;
            }
        }
        let _ = fs::remove_dir_all(self.requests_dir());
        Ok(fs::create_dir_all(self.requests_dir())?)
    }

    pub(super) fn mark_ready(&self) -> Result<()> {
        Ok(fs::write(self.ready_file(), "")?)
    }

    /// Secrets of the shipped sources and the admin token: made once, kept, and readable by their owner only.
    pub(super) fn secrets(&self) -> Result<Vec<(String, String)>> {
        let path = self.0.join("secrets");
        if !path.exists() {
            let bytes = rand::random::<[u8; 24]>;
            let secrets = [
                ("HOOKMILL_ADMIN_TOKEN", hex::encode(bytes())),
                ("HOOKMILL_SECRET_STRIPE", format!("whsec_{}", hex::encode(bytes()))),
                ("HOOKMILL_SECRET_SHOPIFY", hex::encode(bytes())),
                ("HOOKMILL_SECRET_SQUARE", STANDARD.encode(bytes())),
                ("HOOKMILL_SECRET_RAZORPAY", hex::encode(bytes())),
                (
                    "HOOKMILL_SECRET_STANDARD",
                    format!("whsec_{}", STANDARD.encode(bytes())),
                ),
            ];
            let lines: String = secrets
                .iter()
                .map(|(name, value)| format!("{name}={value}\n"))
                .collect();
            write_private(&path, &lines)?;
        }
        let text = fs::read_to_string(&path)?;
        Ok(parse(&text))
    }

    /// `env`: plain lines, to be loaded by a shell or anything else.
    pub(super) fn write_env(&self, env: &[(String, String)], first: &Address, binary: Option<&Path>) -> Result<()> {
        let mut lines = String::new();
        if let Some(binary) = binary {
            lines += &format!(
                "HOOKMILL_URL={}\nHOOKMILL_ADMIN_URL={}\n",
                first.url(),
                first.admin_url()
            );
            lines += &format!("HOOKMILL_BIN={}\n", binary.display());
        }
        for (name, value) in env {
            lines += &format!("{name}={value}\n");
        }
        write_private(&self.env_file(), &lines)
    }

    /// `pids`: what runs now, as `name pid`.
    pub(super) fn write_pids(&self, processes: &[Process]) -> Result<()> {
        let running = processes.iter().filter(|p| p.is_running());
        let lines: String = running.map(|p| format!("{} {}\n", p.name(), p.pid())).collect();
        // Replaced as a whole, so that a reader never finds half of it.
        let fresh = self.0.join("pids.new");
        fs::write(&fresh, lines)?;
        Ok(fs::rename(fresh, self.pids_file())?)
    }

    /// What runs, as `pids` says.
    pub(super) fn pids(&self) -> Vec<(String, i32)> {
        let text = fs::read_to_string(self.pids_file()).unwrap_or_default();
        let pair = |line: &str| {
            let (name, pid) = line.split_once(' ')?;
            Some((name.to_owned(), pid.parse().ok()?))
        };
        text.lines().filter_map(pair).collect()
    }

    /// A hard link where possible: cargo replaces its file and leaves this one.
    pub(super) fn keep_binary(&self, built: &Path) -> Result<PathBuf> {
        let folder = self.0.join("bin");
        fs::create_dir_all(&folder)?;
        let kept = folder.join("hookmill");
        let _ = fs::remove_file(&kept);
        if fs::hard_link(built, &kept).is_err() {
            fs::copy(built, &kept).with_context(|| format!("cannot copy {}", built.display()))?;
        }
        Ok(kept)
    }

    /// Asks the run to start a process again.
    pub(super) fn request(&self, name: &str) -> Result<PathBuf> {
        let answer = self.requests_dir().join(format!("{name}.answer"));
        let _ = fs::remove_file(&answer);
        fs::write(self.requests_dir().join(name), "")?;
        Ok(answer)
    }

    /// What was asked for since the last time.
    pub(super) fn requests(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.requests_dir())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.contains('.') {
                fs::remove_file(entry.path())?;
                names.push(name);
            }
        }
        Ok(names)
    }

    pub(super) fn answer(&self, name: &str, error: Option<&anyhow::Error>) -> Result<()> {
        let text = error.map(|error| format!("{error:#}")).unwrap_or_default();
        let fresh = self.requests_dir().join(format!("{name}.new"));
        fs::write(&fresh, text)?;
        Ok(fs::rename(fresh, self.requests_dir().join(format!("{name}.answer")))?)
    }
}

fn parse(text: &str) -> Vec<(String, String)> {
    let pair = |line: &str| {
        line.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let _ = fs::remove_file(path);
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
