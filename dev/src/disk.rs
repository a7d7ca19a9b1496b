//! A file system of a few bytes, in memory, that a server has for itself and that can be filled to the brim.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// From now on what this process mounts is seen only by itself and its children, and goes with the last of them however
/// they end. Call it before there are threads; false if this user may not.
pub fn keep_mounts_private() -> bool {
    let mine = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    unshare(CloneFlags::CLONE_NEWNS).is_ok() && mount(None::<&str>, "/", None::<&str>, mine, None::<&str>).is_ok()
}

/// A mounted file system; it is unmounted when dropped.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts an empty one of so many bytes at `at`. Needs root.
    pub fn mount(at: &Path, bytes: u64) -> Result<Self> {
        fs::create_dir_all(at)?;
        let size = format!("size={bytes}");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .with_context(|| format!("a file system cannot be mounted at {} (that needs root)", at.display()))?;
        Ok(Self(at.to_owned()))
    }

    /// Whether this user may mount at all.
    pub fn is_possible() -> bool {
        let at = std::env::temp_dir().join(format!("hookmill-disk-{}", std::process::id()));
        let possible = Self::mount(&at, 1 << 20).is_ok();
        // A folder that stays in the temporary folder harms nobody.
        let _ = fs::remove_dir(at);
        possible
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes all the space that is left.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.filler())?;
        let piece = vec![0; 1 << 20];
        for size in [piece.len(), 4096] {
            // Ends with "no space left".
            while file.write_all(&piece[..size]).is_ok() {}
        }
        Ok(())
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Detached: who still has a file open keeps it for so long.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_filled_and_freed() {
        if !Disk::is_possible() {
            eprintln!("this user may not mount: nothing to fill");
            return;
        }
        let at = std::env::temp_dir().join(format!("hookmill-disk-test-{}", std::process::id()));
        let disk = Disk::mount(&at, 1 << 20).expect("it mounts");
        disk.fill().expect("filled");
        assert!(
            fs::write(at.join("more"), "x".repeat(8192)).is_err(),
            "there is no space"
        );
        disk.free().expect("freed");
        fs::write(at.join("more"), "x".repeat(8192)).expect("there is space");
        drop(disk);
        assert!(!at.join("more").exists(), "it is gone");
        fs::remove_dir(at).expect("removed");
    }
}
