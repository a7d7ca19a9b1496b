//! What was measured, for people and as the last line's JSON.

use anyhow::Result;
use dev::stack::Stack;
use serde_json::{Value, json};

use crate::machine;

/// Of each limit, as much is to be reached.
pub const TARGET: f64 = 0.6;

/// One measurement of one side.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Events in the measured time.
    pub events: u64,
    /// The measured time.
    pub seconds: f64,
    /// CPU of the process, in seconds.
    pub cpu_s: f64,
    /// CPU of Kafka and Postgres, in seconds.
    pub stack_cpu_s: f64,
    /// Peak of the process' resident memory.
    pub peak_mb: f64,
}

impl Figures {
    /// Events a second.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    fn per_million(&self, cpu_s: f64) -> f64 {
        cpu_s / self.events as f64 * 1e6
    }

    /// One line for people.
    pub fn print(&self, bench: &str, round: usize, side: &str) {
        println!(
            "{bench} round {round} {side:>5}: {:>7.0}/s, {} events in {:.1} s; CPU s per million: {:.1}, \
             Kafka and Postgres {:.1}; peak {:.0} MB",
            self.rate(),
            self.events,
            self.seconds,
            self.per_million(self.cpu_s),
            self.per_million(self.stack_cpu_s),
            self.peak_mb
        );
    }
}

/// CPU of a process and of the stack, from a moment on.
pub struct Meter<'a> {
    pid: u32,
    stack: &'a Stack,
    began: std::time::Instant,
    cpu_s: f64,
    stack_cpu_s: f64,
}

impl<'a> Meter<'a> {
    /// Starts now.
    pub fn start(pid: u32, stack: &'a Stack) -> Result<Self> {
        Ok(Self {
            pid,
            stack,
            cpu_s: machine::cpu_seconds(pid)?,
            stack_cpu_s: stack_cpu_seconds(stack)?,
            began: std::time::Instant::now(),
        })
    }

    /// The figures up to now, for so many events.
    pub fn read(&self, events: u64) -> Result<Figures> {
        Ok(Figures {
            events,
            seconds: self.began.elapsed().as_secs_f64(),
            cpu_s: machine::cpu_seconds(self.pid)? - self.cpu_s,
            stack_cpu_s: stack_cpu_seconds(self.stack)? - self.stack_cpu_s,
            peak_mb: machine::memory_mb(self.pid, "VmHWM")?,
        })
    }
}

fn stack_cpu_seconds(stack: &Stack) -> Result<f64> {
    stack
        .processes()
        .into_iter()
        .map(|process| machine::family_cpu_seconds(process.pid()))
        .sum()
}

/// Prints the summary of all rounds of `events` events each; the last line is JSON. `more` is added to it.
pub fn summary(bench: &str, events: u64, ours: &[Figures], limit: &[Figures], more: Value) {
    let ratios: Vec<f64> = ours.iter().zip(limit).map(|(o, l)| o.rate() / l.rate()).collect();
    let of = |side: &[Figures], what: fn(&Figures) -> f64| median(side.iter().map(what).collect());
    let rate = (of(ours, Figures::rate), of(limit, Figures::rate));
    let cpu = |f: &Figures| f.per_million(f.cpu_s);
    let stack_cpu = |f: &Figures| f.per_million(f.stack_cpu_s);
    let cpu = (of(ours, cpu), of(limit, cpu));
    let stack_cpu = (of(ours, stack_cpu), of(limit, stack_cpu));
    let peak = |side: &[Figures]| side.iter().map(|f| f.peak_mb).fold(0.0, f64::max);
    let ratio = median(ratios.clone());
    println!(
        "{bench}: {:.0} events/s, the bare limit {:.0}: {ratio:.2} of it (median of {} rounds; wanted: {TARGET})",
        rate.0,
        rate.1,
        ours.len()
    );
    println!(
        "{bench}: {:.1} CPU s per million events, the bare limit {:.1}; with Kafka and Postgres {:.1} and {:.1}",
        cpu.0,
        cpu.1,
        cpu.0 + stack_cpu.0,
        cpu.1 + stack_cpu.1
    );
    let mut line = json!({
        "bench": bench,
        "events": events,
        "rounds": ours.len(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "ours": rate.0.round(),
        "limit": rate.1.round(),
        "ratio": hundredths(ratio),
        "ratios": ratios.into_iter().map(hundredths).collect::<Vec<f64>>(),
        "target": TARGET,
        "reached": ratio >= TARGET,
        "ours_cpu_s_per_million": hundredths(cpu.0),
        "limit_cpu_s_per_million": hundredths(cpu.1),
        "ours_stack_cpu_s_per_million": hundredths(stack_cpu.0),
        "limit_stack_cpu_s_per_million": hundredths(stack_cpu.1),
        "ours_peak_rss_mb": hundredths(peak(ours)),
        "limit_peak_rss_mb": hundredths(peak(limit)),
    });
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    println!("{line}");
}

/// Rounded to what the reader can use.
pub fn hundredths(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => 0.0,
        (middle, 0) => f64::midpoint(values[middle - 1], values[middle]),
        (middle, _) => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(
            [vec![], vec![3.0], vec![4.0, 1.0], vec![9.0, 1.0, 2.0]].map(median),
            [0.0, 3.0, 2.5, 2.0]
        );
    }
}
