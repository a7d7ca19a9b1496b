//! A server process as a handle: kill, stop, freeze, thaw, restart. It dies with us, even when we are killed.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// How to start a process, again and again.
#[derive(Clone, Debug)]
pub struct Program {
    /// Names it in messages and in the file of pids.
    pub name: String,
    /// What to run.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables set for it.
    pub env: Vec<(String, String)>,
    /// Where its output is appended.
    pub log: PathBuf,
    /// Run as this user and group, where we may choose.
    pub user: Option<u32>,
    /// What asks it to stop in good order.
    pub stop_signal: Signal,
}

impl Program {
    /// A program with its output in `log`, stopped by SIGTERM.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: log.into(),
            user: None,
            stop_signal: Signal::SIGTERM,
        }
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// A process that was started, and can be started again.
#[derive(Clone, Debug)]
pub struct Process {
    program: Program,
    child: Arc<Mutex<Child>>,
}

impl Process {
    /// Starts it.
    pub fn spawn(program: Program) -> Result<Self> {
        let child = spawn_from_lasting_thread(&program)?;
        Ok(Self {
            program,
            child: Arc::new(Mutex::new(child)),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Its output.
    pub fn log(&self) -> &Path {
        &self.program.log
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its present process id.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// How it ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Whether it has not ended. A frozen process is running.
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// Sends a signal; nothing happens to one that has ended.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may end in between.
            let _ = kill(Pid::from_raw(i32::try_from(self.pid()).unwrap_or(i32::MAX)), signal);
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        // A killed process ends.
        let _ = self.child().wait();
    }

    /// Stops it from running without ending it.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen one run on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Sends a signal to it and to all that descend from it: a Postgres server is a process for each session.
    pub fn signal_all(&self, signal: Signal) {
        self.signal(signal);
        for pid in descendants(self.pid()) {
            // It may have ended in between.
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)), signal);
        }
    }

    /// Sends a signal to one process, if it descends from it.
    pub fn signal_descendant(&self, pid: u32, signal: Signal) {
        if descendants(self.pid()).contains(&pid) {
            // It may have ended in between.
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)), signal);
        }
    }

    /// The processes that descend from it.
    pub fn descendants(&self) -> Vec<u32> {
        descendants(self.pid())
    }

    /// Asks it to stop and waits; kills it if that takes longer than `patience`, and says so.
    pub async fn stop(&self, patience: Duration) -> Result<ExitStatus> {
        self.signal(self.program.stop_signal);
        match self.wait(patience).await {
            Some(status) => Ok(status),
            None => {
                self.kill();
                bail!(
                    "{} did not stop within {} s and was killed",
                    self.program.name,
                    patience.as_secs()
                )
            }
        }
    }

    /// Waits for its end.
    pub async fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it again, with the same arguments; kills it first if it still runs.
    pub fn restart(&self) -> Result<()> {
        self.kill();
        *self.child() = spawn_from_lasting_thread(&self.program)?;
        Ok(())
    }

    /// How it ended, in words.
    pub fn ending(&self) -> String {
        match self.exit_status() {
            Some(status) => status
                .signal()
                .map_or_else(|| status.to_string(), |signal| format!("killed by signal {signal}")),
            None => "still running".to_owned(),
        }
    }

    /// An error that tells how it ended and the last lines it said.
    pub fn obituary(&self) -> anyhow::Error {
        let ended = self.ending();
        let said = std::fs::read_to_string(&self.program.log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n  ");
        anyhow::anyhow!(
            "{} ({ended}); the end of {}:\n  {last}",
            self.program.name,
            self.program.log.display()
        )
    }
}

fn descendants(ancestor: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in parentheses that may hold anything.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<(u32, u32)> = pids
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let (mut found, mut next) = (Vec::new(), vec![ancestor]);
    while let Some(of) = next.pop() {
        let children = all.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        found.extend(&children);
        next.extend(children);
    }
    found
}

/// A child's "die with your parent" is tied to the *thread* that started it, and the threads of an async runtime come
/// and go. So all children are started from one thread that lasts as long as the process.
fn spawn_from_lasting_thread(program: &Program) -> Result<Child> {
    type Order = (Program, mpsc::Sender<std::io::Result<Child>>);
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            while let Ok((program, reply)) = inbox.recv() {
                // Whoever asked waits for the answer.
                let _ = reply.send(start(&program));
            }
        });
        sender
    });
    let (reply, answer) = mpsc::channel();
    orders
        .send((program.clone(), reply))
        .ok()
        .context("the thread that starts processes is gone")?;
    answer
        .recv()
        .context("the thread that starts processes is gone")?
        .with_context(|| format!("cannot start {}", program.path.display()))
}

fn start(program: &Program) -> std::io::Result<Child> {
    let log = File::options().create(true).append(true).open(&program.log)?;
    let mut command = Command::new(&program.path);
    command.args(&program.args).envs(program.env.iter().cloned());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // A Ctrl-C in the terminal is for us; we stop the servers in their order.
    command.process_group(0);
    if let Some(user) = program.user {
        command.uid(user).gid(user);
    }
    let parent = std::process::id();
    // SAFETY: only async-signal-safe calls between fork and exec. The closure runs after the change of user, which would
    // clear the setting.
    unsafe {
        command.pre_exec(move || {
            #[cfg(target_os = "linux")]
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid().as_raw().unsigned_abs() != parent {
                return Err(std::io::Error::other("the parent has ended"));
            }
            Ok(())
        });
    }
    command.spawn()
}
