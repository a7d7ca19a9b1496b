//! What was measured, for people and as JSON.

use anyhow::Result;
use dev::stack::Stack;
use serde_json::{Map, Value, json};

use crate::machine;

/// One measurement of one side.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Events in the measured time.
    pub events: u64,
    /// The measured time.
    pub seconds: f64,
    /// CPU of the process, in seconds.
    pub cpu_s: f64,
    /// CPU of Kafka, in seconds.
    pub kafka_cpu_s: f64,
    /// CPU of all shards' Postgres, in seconds.
    pub postgres_cpu_s: f64,
    /// Peak of the process' resident memory, in MB of 10^6 bytes.
    pub peak_mb: f64,
    /// Median and 99th percentile of what one event takes, in ms, where it is asked.
    pub latency_ms: Option<(f64, f64)>,
}

impl Figures {
    /// Events a second.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    fn per_million(&self, cpu_s: f64) -> f64 {
        cpu_s / self.events as f64 * 1e6
    }
}

/// CPU of a process and of the stack, from a moment on.
pub struct Meter<'a> {
    pid: u32,
    stack: &'a Stack,
    began: std::time::Instant,
    cpu_s: f64,
    stack_cpu_s: (f64, f64),
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
        let (kafka, postgres) = stack_cpu_seconds(self.stack)?;
        Ok(Figures {
            events,
            seconds: self.began.elapsed().as_secs_f64(),
            cpu_s: machine::cpu_seconds(self.pid)? - self.cpu_s,
            kafka_cpu_s: kafka - self.stack_cpu_s.0,
            postgres_cpu_s: postgres - self.stack_cpu_s.1,
            peak_mb: machine::memory_mb(self.pid, "VmHWM")?,
            latency_ms: None,
        })
    }
}

/// Kafka's and Postgres'.
fn stack_cpu_seconds(stack: &Stack) -> Result<(f64, f64)> {
    let shards = stack.shards().len();
    let seconds: Vec<f64> = stack
        .processes()
        .into_iter()
        .map(|process| machine::family_cpu_seconds(process.pid()))
        .collect::<Result<_>>()?;
    let (kafka, postgres) = seconds.split_at(seconds.len() - shards);
    Ok((kafka.iter().sum(), postgres.iter().sum()))
}

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        let half = values.len() / 2;
        let median = if values.len().is_multiple_of(2) && half > 0 {
            f64::midpoint(at(half - 1), at(half))
        } else {
            at(half)
        };
        Self {
            median,
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }

    /// `median (min–max)` with so many digits after the point; a dash for a ratio to nothing.
    pub fn text(&self, digits: usize) -> String {
        let Self { median, min, max } = self;
        if ![median, min, max].iter().all(|figure| figure.is_finite()) {
            return "–".to_owned();
        }
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

/// What both sides did in the same rounds.
pub struct Comparison {
    /// What was measured, as a title.
    pub name: String,
    /// The settings, for JSON.
    pub settings: Value,
    /// The product, by round.
    pub ours: Vec<Figures>,
    /// The bare limit, by round.
    pub limit: Vec<Figures>,
}

/// A figure's name and where it stands, with the digits to show.
type Column = (&'static str, fn(&Figures) -> f64, usize);

const RATE: Column = ("events/s", Figures::rate, 0);
const COLUMNS: [Column; 5] = [
    RATE,
    ("own CPU s per million", |f| f.per_million(f.cpu_s), 1),
    ("Kafka CPU s per million", |f| f.per_million(f.kafka_cpu_s), 1),
    ("Postgres CPU s per million", |f| f.per_million(f.postgres_cpu_s), 1),
    ("peak RSS MB", |f| f.peak_mb, 0),
];
const LATENCIES: [Column; 2] = [
    ("p50 ms", |f| f.latency_ms.map_or(f64::NAN, |l| l.0), 2),
    ("p99 ms", |f| f.latency_ms.map_or(f64::NAN, |l| l.1), 2),
];

impl Comparison {
    /// One with nothing measured yet.
    pub fn new(name: impl Into<String>, settings: Value) -> Self {
        Self {
            name: name.into(),
            settings,
            ours: Vec::new(),
            limit: Vec::new(),
        }
    }

    /// Takes a measurement and prints it.
    pub fn add(&mut self, round: usize, is_ours: bool, figures: Figures) {
        let side = if is_ours { "ours" } else { "limit" };
        let texts = self.columns_of(&figures).map(|(name, of, digits)| {
            let value = of(&figures);
            format!("{name} {value:.digits$}")
        });
        let texts: Vec<String> = texts.collect();
        println!("{}, round {round}, {side:>5}: {}", self.name, texts.join(", "));
        if is_ours { &mut self.ours } else { &mut self.limit }.push(figures);
    }

    fn columns_of(&self, figures: &Figures) -> impl Iterator<Item = Column> + use<> {
        let more = LATENCIES
            .into_iter()
            .take(if figures.latency_ms.is_some() { 2 } else { 0 });
        COLUMNS.into_iter().chain(more)
    }

    /// Ours by the limit's, round by round.
    pub fn ratio(&self, of: fn(&Figures) -> f64) -> Spread {
        Spread::of(self.ours.iter().zip(&self.limit).map(|(o, l)| of(o) / of(l)))
    }

    /// The limit's median rate, events a second.
    pub fn limit_rate(&self) -> f64 {
        Spread::of(self.limit.iter().map(Figures::rate)).median
    }

    /// Of the rates.
    pub fn rate_ratio(&self) -> Spread {
        self.ratio(Figures::rate)
    }

    /// The table's two lines.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let side = |name: &str, figures: &[Figures]| {
            let mut row = vec![self.name.clone(), name.to_owned()];
            for (_, of, digits) in figures.first().into_iter().flat_map(|f| self.columns_of(f)) {
                row.push(Spread::of(figures.iter().map(of)).text(digits));
            }
            row
        };
        let mut ratio = vec![self.name.clone(), "**ratio**".to_owned()];
        for (_, of, _) in self.ours.first().into_iter().flat_map(|f| self.columns_of(f)) {
            ratio.push(format!("**{}**", self.ratio(of).text(2)));
        }
        vec![side("ours", &self.ours), side("bare limit", &self.limit), ratio]
    }

    /// The names of [`rows`](Self::rows)' columns.
    pub fn heads(&self) -> Vec<&'static str> {
        let figures = self.ours.first().into_iter().flat_map(|f| self.columns_of(f));
        ["", "side"].into_iter().chain(figures.map(|(name, ..)| name)).collect()
    }

    /// All of it.
    pub fn json(&self, bench: &str) -> Value {
        let mut line = Map::new();
        line.insert("bench".into(), bench.into());
        line.insert("name".into(), self.name.clone().into());
        let rate = |figures: &[Figures]| Spread::of(figures.iter().map(Figures::rate)).median.round();
        line.insert("ours".into(), json!(rate(&self.ours)));
        line.insert("limit".into(), json!(rate(&self.limit)));
        let ratio = self.rate_ratio();
        line.insert("ratio".into(), hundredths(ratio.median).into());
        line.insert("ratio_min".into(), hundredths(ratio.min).into());
        line.insert("ratio_max".into(), hundredths(ratio.max).into());
        line.insert("rounds".into(), self.ours.len().into());
        for (name, of, _) in self.ours.first().into_iter().flat_map(|f| self.columns_of(f)).skip(1) {
            let key = name.to_lowercase().replace(' ', "_");
            for (side, figures) in [("ours", &self.ours), ("limit", &self.limit)] {
                let median = Spread::of(figures.iter().map(of)).median;
                line.insert(format!("{side}_{key}"), hundredths(median).into());
            }
        }
        if let Value::Object(settings) = &self.settings {
            line.extend(settings.clone());
        }
        line.into()
    }
}

/// Rounded to what the reader can use.
pub fn hundredths(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[3.0]).median, 3.0);
        assert_eq!(of(&[4.0, 1.0]).median, 2.5);
        let spread = of(&[9.0, 1.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 9.0));
        assert_eq!(spread.text(1), "2.0 (1.0–9.0)");
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let figures = |seconds| Figures {
            events: 1000,
            seconds,
            cpu_s: 1.0,
            kafka_cpu_s: 1.0,
            postgres_cpu_s: 1.0,
            peak_mb: 1.0,
            latency_ms: None,
        };
        let mut comparison = Comparison::new("x", json!({}));
        comparison.ours = vec![figures(1.0), figures(4.0)];
        comparison.limit = vec![figures(2.0), figures(4.0)];
        assert_eq!(comparison.rate_ratio().median, 1.5);
        assert_eq!(comparison.json("drain")["ratio"], 1.5);
    }
}
