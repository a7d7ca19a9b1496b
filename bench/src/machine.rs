//! What processes cost, by `/proc` (<https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>).

use anyhow::{Context, Result};

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
