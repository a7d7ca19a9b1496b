//! Fetching the servers: jars named in `stack/pom.xml`, by Maven, once, into a cache beside it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;

/// Where the servers' programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// What to give `java -cp`.
    pub class_path: String,
    /// Holds `bin/postgres` and `bin/initdb`.
    pub postgres: PathBuf,
}

fn stack_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("stack")
}

/// The user that Postgres runs as when we are root, which it refuses: nobody.
pub const UNPRIVILEGED: u32 = 65534;

/// Fetches what is missing. Processes that try at once wait for each other.
pub fn programs() -> Result<Programs> {
    let cache = stack_dir().join("cache");
    fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .context("cannot lock the cache of the stack")?;
    let jars = cache.join("jars");
    let complete = cache.join("complete");
    if !complete.exists() {
        fetch_jars(&jars)?;
        File::create(&complete)?;
    }
    let postgres = unpack_postgres(&cache, &jars)?;
    Ok(Programs {
        class_path: format!("{}/*", jars.display()),
        postgres,
    })
}

fn platform() -> Result<&'static str> {
    Ok(match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-amd64",
        ("linux", "aarch64") => "linux-arm64v8",
        ("macos", "x86_64") => "darwin-amd64",
        ("macos", "aarch64") => "darwin-arm64v8",
        (os, arch) => bail!(
            "there are no Postgres binaries for {os} on {arch}: give brokers and shards of your own, see ./dev/run --help"
        ),
    })
}

fn fetch_jars(jars: &Path) -> Result<()> {
    eprintln!("fetching Kafka and Postgres (about 70 MB, once) …");
    let status = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(stack_dir().join("pom.xml"))
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .arg(format!("-Dpostgres.platform={}", platform()?))
        .status()
        .context("mvn cannot be started: install Maven (Debian: apt-get install maven)")?;
    if !status.success() {
        bail!("mvn could not fetch what dev/stack/pom.xml names ({status}); its own message is above");
    }
    Ok(())
}

/// Unpacks Postgres where the user that it will run as can reach it.
fn unpack_postgres(cache: &Path, jars: &Path) -> Result<PathBuf> {
    let name = fs::read_dir(jars)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with("embedded-postgres-binaries-"))
        .with_context(|| format!("no Postgres in {}: delete the folder to fetch it again", jars.display()))?;
    let home = if reachable_by_others(cache) {
        cache.to_owned()
    } else {
        std::env::temp_dir().join("hookmill-dev")
    };
    let target = home.join(name.trim_end_matches(".jar"));
    if target.join("bin/postgres").exists() {
        return Ok(target);
    }
    let unpacking = target.with_extension("unpacking");
    let _ = fs::remove_dir_all(&unpacking);
    fs::create_dir_all(&unpacking)?;
    run(
        Command::new("jar")
            .arg("xf")
            .arg(jars.join(&name))
            .current_dir(&unpacking),
        "the JDK's jar",
    )?;
    let archive = fs::read_dir(&unpacking)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "txz"))
        .with_context(|| format!("{name} holds no .txz"))?;
    run(
        Command::new("tar").arg("xJf").arg(&archive).current_dir(&unpacking),
        "tar with xz (Debian: apt-get install tar xz-utils)",
    )?;
    fs::remove_file(archive)?;
    fs::rename(&unpacking, &target)?;
    Ok(target)
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{what} cannot be started"))?;
    if !status.success() {
        bail!("{what} failed: {status}");
    }
    Ok(())
}

/// Whether another user could come to this folder. Matters only to root, whose Postgres runs as somebody else.
pub fn reachable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let Ok(path) = path.canonicalize() else { return false };
    !Uid::effective().is_root()
        || path
            .ancestors()
            .all(|p| fs::metadata(p).is_ok_and(|m| m.permissions().mode() & 0o001 != 0))
}
