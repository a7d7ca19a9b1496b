//! Many campaigns, one seed after another: hours of breaking in pieces that can each be run again by themselves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::campaign::root;
use crate::{child, deployment};

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct SweepArgs {
    /// The first seed.
    #[arg(long, default_value_t = 1001)]
    pub from: u64,
    /// Seeds, from the first on.
    #[arg(long, default_value_t = 50)]
    pub seeds: u64,
    /// Campaigns at the same time. More than one needs cores to spare: recoveries are timed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub jobs: u16,
    /// Webhooks of each campaign.
    #[arg(long, default_value_t = 20_000)]
    pub events: u64,
    /// Faults of each campaign.
    #[arg(long, default_value_t = 12)]
    pub faults: usize,
    /// Kafka brokers of each campaign: 1 or 3.
    #[arg(long, default_value_t = 3)]
    pub brokers: usize,
    /// Go on with an earlier sweep: seeds whose reports it has left are not run again. Each report names its revision.
    #[arg(long)]
    pub resume: bool,
    /// Where the reports of all go, as one JSON object.
    #[arg(long)]
    pub report: Option<PathBuf>,
}

/// Runs them all; prints a line for each and JSON. True if every promise was kept in each.
pub async fn run(args: SweepArgs) -> Result<bool> {
    if args.seeds == 0 {
        bail!("--seeds is at least 1");
    }
    let binary = deployment::build(root()).await?;
    let home = root().join("target/chaos/sweep");
    fs::create_dir_all(&home)?;
    let campaigns = (args.from..args.from.saturating_add(args.seeds)).map(|seed| campaign(seed, &args, &binary, &home));
    let reports: Vec<Value> = stream::iter(campaigns)
        .buffered(usize::from(args.jobs))
        .try_collect()
        .await?;
    let sum = |name: &str| reports.iter().filter_map(|report| report[name].as_u64()).sum::<u64>();
    let failed: Vec<&Value> = reports
        .iter()
        .filter(|report| report["ok"] != true)
        .map(|report| &report["seed"])
        .collect();
    let ok = failed.is_empty();
    let line = json!({
        "ok": ok,
        "seeds": reports.len(),
        "failed": failed,
        "events": sum("events"),
        "acked": sum("acked"),
        "faults": sum("faults"),
        "without_effect": sum("without_effect"),
        "poison": sum("poison"),
        "dead_letters": sum("dead_letters"),
        "seconds": reports.iter().filter_map(|report| report["seconds"].as_f64()).sum::<f64>().round(),
    });
    println!("{line}");
    if let Some(path) = &args.report {
        let whole = json!({ "all": line, "campaigns": reports });
        fs::write(path, serde_json::to_string_pretty(&whole)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ok)
}

/// The report of one campaign.
async fn campaign(seed: u64, args: &SweepArgs, binary: &Path, home: &Path) -> Result<Value> {
    let log = home.join(format!("{seed}.log"));
    let left = fs::read_to_string(log.with_extension("out"));
    if let Some(report) = left.ok().filter(|_| args.resume).and_then(|said| child::report(&said)) {
        tell(seed, &report, &log);
        return Ok(report);
    }
    let report = child::campaign(&log, |campaign| {
        campaign.args(["--seed", &seed.to_string(), "--events", &args.events.to_string()]);
        campaign.args(["--faults", &args.faults.to_string()]);
        campaign.args(["--brokers", &args.brokers.to_string()]);
        campaign.arg("--binary").arg(binary);
    })
    .await
    .with_context(|| format!("seed {seed}"))?;
    tell(seed, &report, &log);
    Ok(report)
}

fn tell(seed: u64, report: &Value, log: &Path) {
    let (ok, seconds) = (report["ok"] == true, report["seconds"].as_f64().unwrap_or_default());
    let (events, faults, dead) = (&report["events"], &report["faults"], &report["dead_letters"]);
    let how = if ok {
        "ok".to_owned()
    } else {
        format!("BROKEN ({}; {})", report["broken"], log.display())
    };
    println!("seed {seed}: {how}, {events} webhooks, {faults} faults, {dead} dead letters, {seconds:.0} s");
}
