//! A run in the background, and the commands that speak to one.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::files::Dir;
use super::{DirArgs, RunArgs};

/// Starts the same run as a process of its own session and shows what it says until it is ready.
pub(super) async fn detach(dir: &Dir, args: &RunArgs) -> Result<()> {
    if dir.is_running() {
        bail!(
            "something runs in {} already: `dev/stop` stops it, or give another --dir",
            dir.path().display()
        );
    }
    dir.clear()?;
    let log_path = dir.logs().join("run.log");
    let log = File::create(&log_path)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg("--dir").arg(dir.path());
    command.args(["--instances", &args.instances.to_string()]);
    command.args([
        "--brokers",
        &args.servers.brokers.to_string(),
        "--shards",
        &args.servers.shards.to_string(),
    ]);
    for (wanted, flag) in [(args.no_samples, "--no-samples"), (args.servers_only, "--servers-only")] {
        if wanted {
            command.arg(flag);
        }
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: setsid is async-signal-safe. With a session of its own the run outlives this terminal.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(Into::into));
    }
    let mut child = command.spawn()?;
    let mut said = File::open(&log_path)?;
    loop {
        let ready = dir.ready_file().exists();
        let ended = child.try_wait()?;
        show(&mut said)?;
        if ready {
            println!(
                "it runs in the background; its log: {}; `dev/stop` stops it",
                log_path.display()
            );
            return Ok(());
        }
        if let Some(status) = ended {
            bail!("it did not start ({status}); its log: {}", log_path.display());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn show(said: &mut File) -> Result<()> {
    let mut text = Vec::new();
    // From where the last look ended.
    said.stream_position()?;
    said.read_to_end(&mut text)?;
    std::io::stdout().write_all(&text)?;
    Ok(std::io::stdout().flush()?)
}

/// Stops a run, whether in the background or not, and waits until it is gone.
pub async fn down(args: &DirArgs) -> Result<()> {
    let path = args.path();
    if !path.exists() {
        println!("nothing runs in {}", path.display());
        return Ok(());
    }
    let dir = args.open()?;
    if !dir.is_running() {
        println!("nothing runs in {}", dir.path().display());
        return Ok(());
    }
    let runner: i32 = std::fs::read_to_string(dir.runner_file())
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .with_context(|| format!("{} does not say who runs", dir.runner_file().display()))?;
    println!("stopping …");
    kill(Pid::from_raw(runner), Signal::SIGTERM).context("the run cannot be told to stop")?;
    let deadline = Instant::now() + Duration::from_secs(120);
    while dir.is_running() {
        if Instant::now() > deadline {
            // Its servers and instances die with it.
            kill(Pid::from_raw(runner), Signal::SIGKILL)?;
            bail!(
                "it did not stop within 120 s and was killed; its log: {}",
                dir.logs().join("run.log").display()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("stopped; what is in {} is kept", dir.path().display());
    Ok(())
}

/// Shows what runs.
pub fn status(args: &DirArgs) -> Result<()> {
    let dir = args.open()?;
    if !dir.is_running() {
        println!("nothing runs in {}; `dev/run` starts it", dir.path().display());
        return Ok(());
    }
    println!("{:<14}{:>9}  {:<9}log", "name", "pid", "state");
    for (name, pid) in dir.pids() {
        let log = dir.logs().join(format!("{name}.log"));
        println!("{name:<14}{pid:>9}  {:<9}{}", state(pid), log.display());
    }
    println!("addresses and secrets: {}", dir.env_file().display());
    Ok(())
}

fn state(pid: i32) -> &'static str {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('T') => "frozen",
        Some('Z' | 'X') => "ended",
        Some(_) => "running",
        None if kill(Pid::from_raw(pid), None).is_ok() => "running",
        None => "ended",
    }
}

/// Starts a process of a run again that has ended.
pub async fn start(args: &DirArgs, name: &str) -> Result<()> {
    let dir = args.open()?;
    if !dir.is_running() {
        bail!("nothing runs in {}; `dev/run` starts it", dir.path().display());
    }
    let answer = dir.request(name)?;
    let deadline = Instant::now() + Duration::from_secs(90);
    while !answer.exists() {
        if Instant::now() > deadline {
            bail!("no answer from the run: see {}", dir.logs().join("run.log").display());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let said = std::fs::read_to_string(&answer)?;
    std::fs::remove_file(&answer)?;
    if !said.is_empty() {
        bail!("{said}");
    }
    println!("{name} runs again");
    Ok(())
}
