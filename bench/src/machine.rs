//! The machine, and what processes cost on it, by `/proc` (<https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>).

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Clock ticks a second in `/proc`: Linux' USER_HZ, 100 on every architecture we run on.
const TICKS: f64 = 100.0;

/// The numbers of `/proc/<pid>/stat` from the third field, the state, on.
fn stat(pid: u32) -> Result<Vec<u64>> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{path}: the process has ended"))?;
    // The name, in parentheses, may hold anything.
    let after = text.rsplit_once(") ").map_or("", |(_, after)| after);
    Ok(after
        .split(' ')
        .map(|field| field.trim().parse().unwrap_or(0))
        .collect())
}

/// CPU seconds that a process has used by now, its children not counted.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let fields = stat(pid)?;
    Ok(fields[11..13].iter().sum::<u64>() as f64 / TICKS)
}

/// CPU seconds of a process and its children, ended ones included; Postgres is a process for each connection.
pub fn family_cpu_seconds(pid: u32) -> Result<f64> {
    let own: u64 = stat(pid)?[11..15].iter().sum();
    let mut ticks = own;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while we look; its parent counts it then.
        if let Ok(fields) = stat(other)
            && fields[1] == u64::from(pid)
        {
            ticks += fields[11..13].iter().sum::<u64>();
        }
    }
    Ok(ticks as f64 / TICKS)
}

/// Memory by `/proc/<pid>/status`, in MB of 10^6 bytes: `VmRSS` for now, `VmHWM` for the most so far.
pub fn memory_mb(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{path}: the process has ended"))?;
    let kib: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
        .with_context(|| format!("{path} has no {field}"))?;
    Ok(kib * 1024.0 / 1e6)
}

/// Where it was measured, and with what.
pub struct Machine {
    cpu: String,
    cores: usize,
    memory_gb: f64,
    kernel: String,
    kafka: &'static str,
    postgres: &'static str,
    librdkafka: String,
    commit: String,
}

/// Pins the servers' versions.
const POM: &str = include_str!("../../dev/stack/pom.xml");

impl Machine {
    /// This one, now.
    pub fn read() -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
        let (cpu, memory) = (read("/proc/cpuinfo")?, read("/proc/meminfo")?);
        let of = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let kib = of(&memory, "MemTotal").and_then(|kb| kb.split(' ').next()?.parse::<f64>().ok());
        let git = std::process::Command::new("git")
            .args(["describe", "--always", "--dirty"])
            .current_dir(crate::product::root())
            .output();
        let commit = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let pinned = |name: &str| {
            let (_, after) = POM.split_once(&format!("<{name}>"))?;
            after.split_once('<').map(|(version, _)| version)
        };
        Ok(Self {
            cpu: of(&cpu, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gb: kib.unwrap_or(f64::NAN) * 1024.0 / 1e9,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            kafka: pinned("kafka.version").context("the pom names no Kafka")?,
            postgres: pinned("postgres.version").context("the pom names no Postgres")?,
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            commit: commit.unwrap_or_default(),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let Self {
            cpu,
            cores,
            memory_gb,
            kernel,
            kafka,
            postgres,
            librdkafka,
            commit,
        } = self;
        format!(
            "Machine: {cpu}, {cores} cores, {memory_gb:.0} GB, Linux {kernel}. Kafka {kafka} (Java as its own scripts start it), PostgreSQL {postgres} (shared_buffers \
             128 MB), librdkafka {librdkafka}. Commit {commit}."
        )
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let Self {
            cpu,
            cores,
            memory_gb,
            kernel,
            kafka,
            postgres,
            librdkafka,
            commit,
        } = self;
        json!({
            "cpu": cpu, "cores": cores, "memory_gb": memory_gb.round(), "kernel": kernel, "kafka": kafka,
            "postgres": postgres, "librdkafka": librdkafka, "commit": commit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let pid = std::process::id();
        let before = cpu_seconds(pid).expect("we run");
        let mut x = 1_u64;
        while cpu_seconds(pid).expect("we run") < before + 0.05 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(family_cpu_seconds(pid).expect("we run") >= before + 0.05);
        let now = memory_mb(pid, "VmRSS").expect("we run");
        assert!(now > 0.5 && memory_mb(pid, "VmHWM").expect("we run") >= now * 0.99);
    }
}
