//! More webhooks at once than the product takes: what it takes must not become fewer or slow, and the rest must hear so at
//! once.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::ingest::Bench;
use crate::load::Answered;
use crate::product::Product;
use crate::report::{Spread, hundredths};

/// How much is sent.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Webhooks in each round, each way.
    #[arg(long, default_value_t = 200_000)]
    pub events: u64,
    /// How often both are measured.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Connections that are many, and that the product can serve.
    #[arg(long, default_value_t = 2000)]
    pub many: usize,
    /// Connections that are too many: each asks again when it was told to, no sooner.
    #[arg(long, default_value_t = 4000)]
    pub too_many: usize,
    /// Use the release binary that is there, rather than have cargo bring it up to date.
    #[arg(long)]
    pub no_build: bool,
}

/// One round of one way.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Accepted a second.
    rate: f64,
    p99_ms: f64,
    refused: usize,
    refused_p99_ms: f64,
}

/// What came of it.
pub struct Overload {
    args: Args,
    many: Vec<Round>,
    too_many: Vec<Round>,
}

/// Runs the measurement and prints it.
pub async fn run(args: Args) -> Result<()> {
    let bench = Bench::start(Product::find(args.no_build).await?).await?;
    let overload = measure(&bench, args).await?;
    bench.stop().await;
    println!("{}", overload.json());
    Ok(())
}

/// Runs the measurement.
pub async fn measure(bench: &Bench, args: Args) -> Result<Overload> {
    let (mut many, mut too_many) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        for (connections, rounds) in [(args.many, &mut many), (args.too_many, &mut too_many)] {
            let answers = bench
                .press(&format!("press_{connections}_{round}"), connections, args.events)
                .await?;
            let measured = Round::of(&answers).context("nothing was accepted")?;
            println!(
                "{connections} connections, round {round}: {:.0} accepted a second, p99 {:.0} ms; {} refused, p99 {:.0} ms",
                measured.rate, measured.p99_ms, measured.refused, measured.refused_p99_ms
            );
            rounds.push(measured);
        }
    }
    Ok(Overload { args, many, too_many })
}

impl Round {
    fn of(answers: &[Answered]) -> Option<Self> {
        let (mut accepted, refused): (Vec<Answered>, Vec<Answered>) = answers.iter().partition(|a| a.is_accepted);
        accepted.sort_by_key(|answer| answer.at);
        // Without the start, and without the end, when most connections have nothing left to send.
        let (from, to) = (accepted.len() / 5, accepted.len() * 3 / 5);
        let seconds = (accepted.get(to)?.at - accepted.get(from)?.at).as_secs_f64();
        Some(Self {
            rate: (to - from) as f64 / seconds,
            p99_ms: p99_ms(&accepted),
            refused: refused.len(),
            refused_p99_ms: p99_ms(&refused),
        })
    }
}

fn p99_ms(answers: &[Answered]) -> f64 {
    let mut times: Vec<Duration> = answers.iter().map(|answer| answer.took).collect();
    times.sort_unstable();
    let at = times.len().saturating_sub(1) * 99 / 100;
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

impl Overload {
    fn medians(&self) -> [[f64; 4]; 2] {
        [&self.many, &self.too_many].map(|rounds| {
            let median = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of)).median;
            [
                median(|round| round.rate),
                median(|round| round.p99_ms),
                median(|round| round.refused as f64),
                median(|round| round.refused_p99_ms),
            ]
        })
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let [many, too_many] = self.medians();
        json!({
            "bench": "overload",
            "connections": [self.args.many, self.args.too_many],
            "accepted_per_s": [hundredths(many[0]), hundredths(too_many[0])],
            "accepted_p99_ms": [hundredths(many[1]), hundredths(too_many[1])],
            "refused": [many[2], too_many[2]],
            "refused_p99_ms": hundredths(too_many[3]),
            "rate_ratio": hundredths(too_many[0] / many[0]),
            "p99_ratio": hundredths(too_many[1] / many[1]),
        })
    }

    /// As a table.
    pub fn markdown(&self) -> String {
        let [many, too_many] = self.medians();
        let row = |connections: usize, [rate, p99, refused, refused_p99]: [f64; 4]| {
            format!("| {connections} | {rate:.0} | {p99:.0} | {refused:.0} | {refused_p99:.0} |\n")
        };
        format!(
            "\n| connections | accepted/s | p99 ms | refused | p99 ms of a refusal |\n|---|---|---|---|---|\n{}{}",
            row(self.args.many, many),
            row(self.args.too_many, too_many)
        )
    }
}
