//! A campaign: providers send while one fault follows another, each mended and recovered from; then the reckoning.

mod args;
mod binary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use dev::disk::Disk;
use futures_util::future::join_all;
use tokio::sync::watch;

pub use args::CampaignArgs;

use crate::check::{self, Evidence, Findings};
use crate::deployment::{self, secrets};
use crate::history;
use crate::pace::Pace;
use crate::plan::{self, Kind, Round};
use crate::provider::{self, Counters, Sent, Settings};
use crate::quiet;
use crate::report::Report;
use crate::world::{Size, World};
use crate::{garbage, recovery, watch as watcher};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Runs a campaign; prints table and JSON. True if every promise was kept.
pub async fn run(args: CampaignArgs) -> Result<bool> {
    args.validate()?;
    let binary = match &args.binary {
        Some(binary) => binary.canonicalize().context("--binary")?,
        None => deployment::build(root()).await?,
    };
    let test_build = binary::has_failpoints(&binary)?;
    if test_build && args.binary.is_none() {
        bail!(
            "{} was built with failpoints, which what is shipped does not have",
            binary.display()
        );
    }
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("hookmill-chaos-{seed}-{}", std::process::id())));
    std::fs::create_dir_all(&dir)?;
    eprintln!("seed {seed}, everything in {}", dir.display());
    let (mut report, findings) = campaign(&args, seed, &dir, binary)
        .await
        .with_context(|| format!("seed {seed}"))?;
    report.test_build = test_build;
    print!("{}", report.table(&findings));
    let line = serde_json::to_string(&report)?;
    if let Some(path) = &args.report {
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if report.ok && args.dir.is_none() {
        // What stays in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&dir);
    }
    println!("{line}");
    Ok(report.ok)
}

/// What an instance says when it ends for that reason.
const SET_BACK: &str = "the wall clock was set back";

/// A running campaign.
struct Campaign {
    world: Arc<World>,
    pace: Pace,
    counters: Arc<Counters>,
    report: Report,
    findings: Findings,
    args: CampaignArgs,
    started: Instant,
}

async fn campaign(args: &CampaignArgs, seed: u64, dir: &Path, binary: PathBuf) -> Result<(Report, Findings)> {
    let mut report = Report {
        seed,
        command: args.again(seed),
        revision: binary::revision(),
        started_at: Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        instances: args.instances,
        brokers: args.brokers,
        shards: args.shards,
        events: args.events,
        ..Report::default()
    };
    let kinds = possible(args, &mut report)?;
    let rounds = plan::draw(seed, args.faults, &kinds, args.parts());
    report.faults_planned = rounds.iter().map(Vec::len).sum();
    let size = Size {
        parts: args.parts(),
        partitions: (12, 6),
        events: args.events,
    };
    let world = World::start(&size, dir, binary, root().join("config.toml")).await?;
    let started_at = Utc::now() - world.started.elapsed();
    let (enough, told) = watch::channel(false);
    let watching = tokio::spawn(watcher::watch(world.clone(), told.clone()));
    let counters = Arc::new(Counters::default());
    let pace = Pace::start(args.rate, seed);
    let settings = Settings {
        seed,
        run_id: format!("c{seed}"),
        count: args.events,
        poison: (args.events / args.poison).max(2),
        connections: 32,
        duplicates: 4,
        disorder: 10,
        urls: world.instances.iter().map(|instance| instance.url.clone()).collect(),
        started: world.started,
    };
    let sending = tokio::spawn(provider::send(
        settings.clone(),
        secrets(),
        pace.clone(),
        counters.clone(),
        told.clone(),
    ));
    let topics = [world.deployment.topic("order"), world.deployment.topic("dispute")];
    let garbage = tokio::spawn(garbage::put(
        world.stack.brokers(),
        topics,
        ((args.events / 1000).max(2), args.events),
        seed,
        counters.clone(),
        told.clone(),
    ));
    let mut campaign = Campaign {
        world: world.clone(),
        pace,
        counters,
        report,
        findings: Findings::default(),
        args: args.clone(),
        started: Instant::now(),
    };
    let unsaid = tokio::spawn(progress(
        world.clone(),
        campaign.counters.clone(),
        args.events,
        told.clone(),
    ));
    let broke_down = campaign.break_things(&rounds).await.err();
    // The rest is sent in peace, and must all be acknowledged.
    campaign.pace.due(u64::MAX);
    campaign.all_acknowledged().await;
    campaign.report.seconds = campaign.started.elapsed().as_secs_f64();
    let mut quiet = Vec::new();
    let well = match broke_down {
        None => quiet::check(&world, settings, &mut quiet, &mut campaign.findings).await,
        Some(error) => Err(error),
    };
    if let Err(error) = well {
        campaign.findings.add("went on", None, format!("{error:#}"));
    }
    enough.send_replace(true);
    let mut sent: Vec<Sent> = sending.await??;
    sent.extend(quiet);
    garbage.await??;
    campaign.report.seen = watching.await?;
    unsaid.abort();
    campaign.reckon(sent, started_at).await?;
    world.close();
    campaign.stop().await;
    Ok((campaign.report, campaign.findings))
}

/// The kinds that can be made here; what cannot goes into the report.
fn possible(args: &CampaignArgs, report: &mut Report) -> Result<Vec<Kind>> {
    let asked = if args.only.is_empty() {
        Kind::all()
    } else {
        &args.only[..]
    };
    let mut kinds = asked.to_vec();
    if !Disk::is_possible() {
        kinds.retain(|kind| *kind != Kind::DiskFull);
        let why = "mounting a small file system needs root";
        report.left_out.insert(Kind::DiskFull.name(), why.to_owned());
    }
    if kinds.is_empty() && args.faults > 0 {
        bail!("none of the kinds in --only can be made here");
    }
    Ok(kinds)
}

impl Campaign {
    /// One round after another, each while its share of the webhooks comes.
    async fn break_things(&mut self, rounds: &[Round]) -> Result<()> {
        let share = self.args.events as f64 / (rounds.len() + 1) as f64;
        let minutes = Duration::from_secs(self.args.minutes * 60);
        self.report.complete = true;
        for (i, round) in rounds.iter().enumerate() {
            if !minutes.is_zero() && self.started.elapsed() > minutes {
                self.report.complete = false;
                eprintln!("the time is up after {i} of {} rounds of faults", rounds.len());
                break;
            }
            let due = (share * (i + 1) as f64) as u64;
            self.pace.due(due);
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.round(round).await?;
            if self.args.first && !(self.findings.broken.is_empty() && self.world.complaints().is_empty()) {
                break;
            }
            // The next fault meets a run in full swing, not one that is still catching up.
            let patience = Instant::now() + Duration::from_secs(60);
            while self.counters.acked.load(Relaxed) < due.saturating_sub(200) && Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn round(&mut self, round: &Round) -> Result<()> {
        for fault in round {
            eprintln!("{:>7.1} s  {fault}", self.world.started.elapsed().as_secs_f64());
        }
        let world = self.world.clone();
        for done in join_all(round.iter().map(|fault| crate::fault::run(fault, &world))).await {
            done?;
        }
        let within = Duration::from_secs(self.args.recovery);
        let recovered = recovery::wait(&self.world, &self.counters, self.args.events, within).await;
        let names: Vec<String> = round.iter().map(ToString::to_string).collect();
        self.report.faults += round.len();
        self.report.without_effect = self.world.without_effect();
        match recovered {
            Ok(took) => {
                for fault in round {
                    let kind = self.report.by_kind.entry(fault.kind.name()).or_default();
                    kind.add(took.as_secs_f64());
                }
                Ok(())
            }
            Err(error) => {
                let what = format!(
                    "not well {} s after {}: {error:#}",
                    self.args.recovery,
                    names.join(" and ")
                );
                eprintln!("!! {what}");
                self.findings.add("recovery", None, what);
                for fault in round {
                    let kind = self.report.by_kind.entry(fault.kind.name()).or_default();
                    kind.add(within.as_secs_f64());
                }
                if self.args.first {
                    return Ok(());
                }
                // Perhaps it only took longer; if not, there is no going on.
                recovery::wait(&self.world, &self.counters, self.args.events, within * 4)
                    .await
                    .map(|_| ())
            }
        }
    }

    async fn all_acknowledged(&mut self) {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let acked = self.counters.acked.load(Relaxed);
            if acked >= self.args.events {
                return;
            }
            if acked != last {
                (last, since) = (acked, Instant::now());
            }
            if since.elapsed() > Duration::from_secs(60) {
                let what = format!("{} webhooks were not acknowledged", self.args.events - acked);
                self.findings.add("taken", None, what);
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads everything, holds it against each other, and prints what is wrong.
    async fn reckon(&mut self, sent: Vec<Sent>, started_at: DateTime<Utc>) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        if let Err(error) = self.world.landed(&self.world.deployment, deadline).await {
            self.findings
                .add(check::LOST, None, format!("not written in the end: {error:#}"));
        }
        let evidence = Evidence::read(&self.world, sent).await?;
        let reckoned = check::reckon(&evidence);
        self.findings.broken.extend(reckoned.broken);
        for complaint in self.world.complaints() {
            self.findings.add("on the way", None, complaint);
        }
        let report = &mut self.report;
        for instance in &self.world.instances {
            for ending in instance.endings() {
                let how = ending.code.map_or("a signal".to_owned(), |code| format!("exit {code}"));
                *report.endings.entry(how).or_default() += 1;
                // A start may be refused while a server is away; and a process ends whose clock was set back. Whoever
                // runs it starts it again. Nothing else may end it.
                if ending.code != Some(1) && !(ending.code == Some(70) && ending.how.contains(SET_BACK)) {
                    let what = format!("instance {} ended by itself: {}", ending.instance, ending.how);
                    self.findings.add("ended by itself", None, what);
                }
            }
        }
        let counters = &self.counters;
        report.events = evidence.sent.len() as u64;
        report.acked = evidence.sent.iter().filter(|s| s.acked_us().is_some()).count() as u64;
        report.requests = evidence.sent.iter().map(|s| s.attempts.len() as u64).sum();
        report.unacknowledged = counters.unacknowledged.load(Relaxed);
        report.duplicates = counters.duplicates.load(Relaxed);
        report.records = evidence.records.len();
        report.rows = evidence.rows.len();
        report.poison = evidence.poison();
        report.dead_letters = evidence.dead.len();
        report.buried = evidence.buried.len();
        report.rate = (report.acked as f64 / report.seconds.max(0.001)).round();
        self.refusals(&evidence);
        self.report.broken = self
            .findings
            .broken
            .iter()
            .map(|(rule, (count, _))| ((*rule).to_owned(), *count))
            .collect();
        self.report.ok = self.findings.broken.is_empty();
        self.tell(&evidence, started_at);
        Ok(())
    }

    /// Well-signed webhooks are refused only while a clock is wrong.
    fn refusals(&mut self, evidence: &Evidence) {
        let wrong = self
            .world
            .clocks_wrong
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        for sent in &evidence.sent {
            for attempt in &sent.attempts {
                let refused = (400..500).contains(&attempt.status) && !matches!(attempt.status, 408 | 429);
                let excused = wrong
                    .iter()
                    .any(|(from, to)| *from <= attempt.until_us / 1000 && attempt.at_us / 1000 <= *to);
                if refused && !excused {
                    let key = (sent.expect.source.to_owned(), sent.expect.event_id.clone());
                    let what = format!("answered {} though nothing is wrong with it", attempt.status);
                    self.findings.add("taken", Some(key), what);
                }
            }
        }
    }

    /// What is wrong, with the seed and a history of the first event of each rule.
    fn tell(&self, evidence: &Evidence, started_at: DateTime<Utc>) {
        if self.findings.broken.is_empty() {
            return;
        }
        println!("\nBROKEN, with seed {} ({})", self.report.seed, self.report.command);
        for (rule, (count, kept)) in &self.findings.broken {
            println!("\n{rule}: {count} times");
            for finding in kept.iter().take(5) {
                let event = finding.event.as_ref().map(|(source, id)| format!("{source} {id}: "));
                println!("- {}{}", event.unwrap_or_default(), finding.what);
            }
            if let Some(event) = kept.iter().find_map(|finding| finding.event.as_ref()) {
                println!("{}", history::tell(event, evidence, started_at));
            }
        }
        println!("logs are in {}", self.world.deployment.logs().display());
    }

    async fn stop(&self) {
        for instance in &self.world.instances {
            if let Err(error) = instance.stop().await {
                eprintln!("{error:#}");
            }
        }
    }
}

async fn progress(world: Arc<World>, counters: Arc<Counters>, events: u64, enough: watch::Receiver<bool>) {
    while !*enough.borrow() {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (acked, requests) = (counters.acked.load(Relaxed), counters.requests.load(Relaxed));
        let again = counters.unacknowledged.load(Relaxed);
        eprintln!(
            "{:>7.1} s  {acked}/{events} acknowledged, {requests} requests, {again} without an acknowledgement",
            world.started.elapsed().as_secs_f64()
        );
    }
}
