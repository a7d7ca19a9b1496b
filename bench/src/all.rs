//! Everything, written down: docs/BENCHMARKS.md and its pictures.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::drain::{self, Case};
use crate::flat::{self, Flat};
use crate::fresh::{self, Beside, Fresh};
use crate::idle::{self, Idle};
use crate::ingest;
use crate::machine::Machine;
use crate::overload::{self, Overload};
use crate::product::Product;
use crate::report::{Comparison, Figures, Spread, hundredths};
use crate::workload::Mode;
use crate::{plot, product};

/// How much is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// A tenth of it, to see that everything works; the figures then mean little.
    #[arg(long)]
    quick: bool,
    /// Use the release binary that is there, rather than have cargo bring it up to date.
    #[arg(long)]
    no_build: bool,
}

/// Shards and lanes that are drained over.
const SHAPES: [(u8, usize); 4] = [(2, 2), (1, 1), (1, 2), (1, 4)];

/// Connections that webhooks come by.
const CONNECTIONS: [(usize, u64); 3] = [(8, 80_000), (64, 200_000), (512, 200_000)];

struct Everything {
    machine: Machine,
    drains: Vec<Comparison>,
    ingests: Vec<Comparison>,
    overload: Overload,
    fresh: Fresh,
    flat: Flat,
    idle: Idle,
    minutes: f64,
}

/// Measures everything and writes it down.
pub async fn run(args: Args) -> Result<()> {
    let began = Instant::now();
    let product = Product::find(args.no_build).await?;
    let less = |n: u64| if args.quick { n / 10 } else { n };
    let rounds = |n: usize| if args.quick { 1 } else { n };
    let machine = Machine::read()?;

    let mut drains = Vec::new();
    let modes = [Mode::Realistic, Mode::Uniform];
    let mut bench = drain::Bench::start(product.clone(), &modes, less(200_000)).await?;
    for (shards, lanes) in SHAPES {
        // Each shape with real work; what can be gained at most is seen with one.
        for mode in modes
            .into_iter()
            .take(if (shards, lanes) == (1, 2) || shards == 2 { 2 } else { 1 })
        {
            drains.push(bench.compare(Case { mode, shards, lanes }, rounds(5)).await?);
        }
    }
    bench.stop().await;

    let mut ingests = Vec::new();
    let bench = ingest::Bench::start(product.clone()).await?;
    for (connections, events) in CONNECTIONS {
        ingests.push(bench.compare(connections, less(events), rounds(5)).await?);
    }
    let pressed = overload::Args {
        events: less(200_000).max(50_000),
        rounds: rounds(3),
        many: 2000,
        too_many: 4000,
        no_build: true,
    };
    let overload = overload::measure(&bench, pressed).await?;
    bench.stop().await;

    let fresh = fresh::Args {
        rates: vec![500, 2000, 5000],
        seconds: if args.quick { 3 } else { 10 },
        rounds: rounds(5),
        no_build: true,
    };
    let fresh = fresh::compare(&product, &fresh).await?;
    let flat = flat::measure(&product, less(600_000).max(400_000), rounds(3)).await?;
    let idle = idle::measure(&product).await?;
    let everything = Everything {
        machine,
        drains,
        ingests,
        overload,
        fresh,
        flat,
        idle,
        minutes: began.elapsed().as_secs_f64() / 60.0,
    };
    let docs = product::root().join("docs");
    everything.draw(&docs.join("benchmarks"))?;
    let path = docs.join("BENCHMARKS.md");
    std::fs::write(&path, everything.markdown()).with_context(|| path.display().to_string())?;
    eprintln!("written: {}", path.display());
    println!("{}", everything.json());
    Ok(())
}

impl Everything {
    fn draw(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        for (file, title, figures, of) in self.pictures() {
            let groups: Vec<(String, [Spread; 2])> = figures
                .iter()
                .map(|comparison| {
                    let name = comparison.name.split_once(", ").map_or("", |(_, name)| name);
                    let spread = |figures: &[Figures]| Spread::of(figures.iter().map(of));
                    (short(name), [spread(&comparison.ours), spread(&comparison.limit)])
                })
                .collect();
            plot::bars(&dir.join(file), title, &groups)?;
        }
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn pictures(&self) -> [(PathBuf, &'static str, &[Comparison], fn(&Figures) -> f64); 6] {
        let p99: fn(&Figures) -> f64 = |f| f.latency_ms.map_or(f64::NAN, |l| l.1);
        let postgres: fn(&Figures) -> f64 = |f| f.postgres_cpu_s / f.events as f64 * 1e6;
        let own: fn(&Figures) -> f64 = |f| f.cpu_s / f.events as f64 * 1e6;
        [
            (
                "drain-rate.svg".into(),
                "From Kafka to the shards: events/s",
                &self.drains,
                Figures::rate,
            ),
            (
                "drain-postgres-cpu.svg".into(),
                "Postgres: CPU s per million events",
                &self.drains,
                postgres,
            ),
            (
                "drain-own-cpu.svg".into(),
                "The process itself: CPU s per million events",
                &self.drains,
                own,
            ),
            (
                "ingest-rate.svg".into(),
                "From webhooks to Kafka: requests/s",
                &self.ingests,
                Figures::rate,
            ),
            (
                "ingest-p99.svg".into(),
                "From webhooks to Kafka: p99 in ms",
                &self.ingests,
                p99,
            ),
            (
                "fresh-p99.svg".into(),
                "Received to committed: p99 in ms",
                &self.fresh.comparisons,
                p99,
            ),
        ]
    }

    fn json(&self) -> Value {
        let all = |bench: &str, comparisons: &[Comparison]| -> Vec<Value> {
            comparisons.iter().map(|c| c.json(bench)).collect()
        };
        json!({
            "bench": "all",
            "minutes": hundredths(self.minutes),
            "machine": self.machine.json(),
            "drain": all("drain", &self.drains),
            "ingest": all("ingest", &self.ingests),
            "overload": self.overload.json(),
            "fresh": all("fresh", &self.fresh.comparisons),
            "one_shard_dead": self.fresh.beside.json(),
            "flat": self.flat.json(),
            "idle": self.idle.json(),
        })
    }

    fn markdown(&self) -> String {
        let mut out = String::from(HEAD);
        let _ = writeln!(
            out,
            "\n{}\nThe run took {:.0} minutes.",
            self.machine.text(),
            self.minutes
        );
        section(
            &mut out,
            DRAIN,
            &self.drains,
            &["drain-rate", "drain-postgres-cpu", "drain-own-cpu"],
        );
        section(&mut out, INGEST, &self.ingests, &["ingest-rate", "ingest-p99"]);
        let limits = self.ingests.iter().map(|c| {
            let linger_ms = c.settings["limit_linger_ms"].as_str().unwrap_or_default();
            let (in_flight, connections) = (&c.settings["limit_in_flight"], &c.settings["connections"]);
            format!("{in_flight} and {linger_ms} ms at {connections}")
        });
        let limits: Vec<String> = limits.collect();
        let _ = writeln!(
            out,
            "\nRequests in flight and linger of the limit, by connections: {}.",
            limits.join(", ")
        );
        out.push_str(OVERLOAD);
        out.push_str(&self.overload.markdown());
        section(&mut out, FRESH, &self.fresh.comparisons, &["fresh-p99"]);
        let [living, dead, ratio] = self.fresh.beside.p99();
        let _ = writeln!(
            out,
            "\nOne of two shards is killed, at {} events/s for both together: p99 of the other one's events is {} ms before, and {} ms from
then on, {} times as much. Postgres then has half of its work, on the same two cores.",
            Beside::RATE,
            living.text(2),
            dead.text(2),
            ratio.text(2)
        );
        self.flat_text(&mut out);
        let _ = writeln!(
            out,
            "\n## Idle\n\nAn instance with 18 partitions and nothing to do: {:.0} MB resident, {:.1} % of a core.",
            self.idle.rss_mb, self.idle.cpu_percent
        );
        // Measured by a bench of its own, and kept beside this text by hand.
        out.push_str(include_str!("mapping.md"));
        out.push_str(include_str!("tried.md"));
        out
    }

    fn flat_text(&self, out: &mut String) {
        out.push_str(FLAT);
        out.push_str("\n| partitions of orders | instances | own CPU s per million events, together | ratio to the first line | peak RSS of one, MB |\n");
        out.push_str("|---|---|---|---|---|\n");
        for case in &self.flat.cases {
            let flat::Case {
                partitions,
                instances,
                cpu_s,
                peak_rss_mb,
            } = case;
            let (cpu, ratio) = (Spread::of(cpu_s.iter().copied()), self.flat.cpu_ratio(case));
            let _ = writeln!(
                out,
                "| {partitions} | {instances} | {} | {} | {peak_rss_mb:.0} |",
                cpu.text(1),
                ratio.text(2)
            );
        }
        let first = Spread::of(self.flat.first_write_s.iter().copied());
        let _ = writeln!(
            out,
            "\nFrom the start of a process to its first commit: {} s.\n",
            first.text(2)
        );
        out.push_str("| group protocol | | longest silence of a partition, s |\n|---|---|---|\n");
        for (protocol, event, silence) in &self.flat.hand_overs {
            let _ = writeln!(out, "| {protocol} | an instance {event} | {silence:.2} |");
        }
    }
}

/// A group's name under its bars.
fn short(name: &str) -> String {
    name.replace("shards ", "")
        .replace(", lanes ", "×")
        .replace("connections ", "")
}

fn section(out: &mut String, text: &str, comparisons: &[Comparison], pictures: &[&str]) {
    let _ = writeln!(out, "\n{text}");
    for picture in pictures {
        let _ = writeln!(out, "![{picture}](benchmarks/{picture}.svg)");
    }
    if let Some(first) = comparisons.first() {
        let heads = first.heads();
        let _ = writeln!(out, "\n| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()));
    }
    for row in comparisons.iter().flat_map(Comparison::rows) {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
}

const HEAD: &str = "\
# Benchmarks

The product beside the bare limit of its libraries, in one run on one machine, alternating; medians over the rounds with the least and
the most in parentheses. Load generator, Kafka, Postgres and the process share the machine, so rates compare only within a run;
CPU seconds per million events compare between runs as well. Ratios are of the same round.

    cargo run --release -p bench -- all

measures it again on an otherwise quiet machine and writes this file and its pictures; the last line it prints is JSON. `bench drain`,
`ingest`, `overload`, `fresh`, `flat` and `idle` are its parts, each with settings (`--help`).

Everything is as promised meanwhile: acks=all with an idempotent producer, fsync and synchronous_commit on, and after each drain every
event must be in its table exactly once, after each ingest on its topic.
";

const DRAIN: &str = "\
## Drain: from full topics to the shards

`hookmill serve` as it is shipped, against a loop that for every connection reads its partitions with librdkafka, decodes, and runs one
statement that fences, logs, updates the state and moves the offsets: no consumer group, no actors, no dead letters, no supervision. Both
have the same number of connections to each shard (lanes) and, for orders, the same fetch settings. *realistic*: orders and disputes of five
providers in their documented shapes, 3 to 5 events each, close in time, 1 % disputes, 3 % sent again, users by Zipf's law. *uniform*: the
events of an order lie far apart, nothing is sent again. The names say shards×lanes.
";

const FLAT: &str = "
## Flat

Topics are drained, by turns, by one instance and by several. What a start takes that finds everything written is subtracted; what an instance
takes for each second of its life, busy or not, is not: several have several times as much of it.
";

const INGEST: &str = "\
## Ingest: from signed webhooks to Kafka's acknowledgement

`hookmill serve` with ingest alone, against an actix-web handler that verifies the signature and produces the body as it is, with the same
producer settings, but for how it sends: with 2, 3 and 5 requests in flight to the broker and no linger, and with 5 and a linger of 1 ms;
the way of the highest rate is the limit. Ours has 3 and no linger, as shipped. The handler has no mapping, no envelope, no limits and
no metrics. Each connection sends one webhook after another.
";

const OVERLOAD: &str = "
## Overload: more at once than is taken

At most 2048 webhooks are under way (`ingest.max_in_flight`); each further one is answered 503 with Retry-After, and its connection waits for
so long. The first line is close below that bound, the second far above.
";

const FRESH: &str = "\
## Fresh: from received to committed

Events are put on Kafka at a steady rate; Postgres' own record of commit times (`track_commit_timestamp`) tells how long after its
`received_at` each was committed. Ours against the loop of *drain*.
";
