//! What a campaign came to: a table for people, JSON for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::check::Findings;
use crate::watch::Seen;

/// All that is reported.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether every promise was kept.
    pub ok: bool,
    /// Draws the same campaign again.
    pub seed: u64,
    /// The arguments that run it again.
    pub command: String,
    /// The product's revision.
    pub revision: String,
    /// Whether the product was built for tests, with its failpoints (none was set).
    pub test_build: bool,
    /// When it began.
    pub started_at: String,
    /// Instances, brokers and shards.
    pub instances: usize,
    /// The same.
    pub brokers: usize,
    /// The same.
    pub shards: usize,
    /// Different webhooks sent.
    pub events: u64,
    /// Of these, acknowledged.
    pub acked: u64,
    /// Requests that were made.
    pub requests: u64,
    /// Requests without an acknowledgement; all were sent again.
    pub unacknowledged: u64,
    /// Webhooks sent again though acknowledged.
    pub duplicates: u64,
    /// Records on Kafka, the copies among them.
    pub records: usize,
    /// Rows in the event tables.
    pub rows: usize,
    /// Poison: webhooks that can never be written, and records that are no events.
    pub poison: usize,
    /// Dead letters in the tables.
    pub dead_letters: usize,
    /// Records on the topics of dead letters: a dead letter may be there more than once.
    pub buried: usize,
    /// Faults that were inflicted.
    pub faults: usize,
    /// Of these, found nothing to harm: a lock that was not to be had, say.
    pub without_effect: usize,
    /// Faults that were asked for.
    pub faults_planned: usize,
    /// Whether all of it was done before the time was up.
    pub complete: bool,
    /// By kind.
    pub by_kind: BTreeMap<String, KindReport>,
    /// Kinds that could not be made here, and why.
    pub left_out: BTreeMap<String, String>,
    /// Instances that ended by themselves, by exit code: 1 is a start that was refused.
    pub endings: BTreeMap<String, usize>,
    /// What was seen on the way.
    pub seen: Seen,
    /// Broken rules, and how often.
    pub broken: BTreeMap<String, usize>,
    /// Seconds that sending and breaking took.
    pub seconds: f64,
    /// Events acknowledged a second, in that time.
    pub rate: f64,
}

/// What one kind of fault came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct KindReport {
    /// How often.
    pub count: usize,
    /// The median time to recovery, in seconds.
    pub recovery_p50_s: f64,
    /// The longest.
    pub recovery_max_s: f64,
    #[serde(skip)]
    recoveries: Vec<f64>,
}

impl KindReport {
    /// Notes one.
    pub fn add(&mut self, recovery_s: f64) {
        self.count += 1;
        self.recoveries.push(recovery_s);
        self.recoveries.sort_by(f64::total_cmp);
        let round = |s: f64| (s * 100.0).round() / 100.0;
        self.recovery_p50_s = round(self.recoveries[self.recoveries.len() / 2]);
        self.recovery_max_s = round(self.recoveries.last().copied().unwrap_or_default());
    }
}

impl Report {
    /// For people.
    pub fn table(&self, findings: &Findings) -> String {
        let mut text = String::from("\nfault                 times  recovery p50      max\n");
        // Writing to a String does not fail.
        for (kind, report) in &self.by_kind {
            let _ = writeln!(
                text,
                "{kind:<22}{:>5}{:>13.1} s{:>8.1} s",
                report.count, report.recovery_p50_s, report.recovery_max_s
            );
        }
        for (kind, why) in &self.left_out {
            let _ = writeln!(text, "{kind:<22}    -  {why}");
        }
        let lines = [
            ("webhooks", self.events.to_string()),
            ("acknowledged", self.acked.to_string()),
            (
                "requests",
                format!(
                    "{} ({} without an acknowledgement, {} repeated though acknowledged)",
                    self.requests, self.unacknowledged, self.duplicates
                ),
            ),
            ("records on Kafka", self.records.to_string()),
            ("rows", self.rows.to_string()),
            (
                "dead letters",
                format!(
                    "{} of {} poison ({} on their topics)",
                    self.dead_letters, self.poison, self.buried
                ),
            ),
            (
                "faults",
                format!(
                    "{} of {} ({} without effect)",
                    self.faults, self.faults_planned, self.without_effect
                ),
            ),
            (
                "lost, repeated, out of order",
                format!(
                    "{}, {}, {}",
                    findings.count(crate::check::LOST),
                    findings.count(crate::check::REPEATED),
                    findings.count(crate::check::ORDER)
                ),
            ),
            (
                "most of an instance",
                format!("{} MB, {} files", self.seen.most_mb, self.seen.most_files),
            ),
            ("/stats compared", format!("{} times", self.seen.samples)),
            ("took", format!("{:.0} s, {:.0} webhooks/s", self.seconds, self.rate)),
        ];
        text.push('\n');
        for (name, value) in lines {
            let _ = writeln!(text, "{name:<30}{value}");
        }
        for (how, count) in &self.endings {
            let _ = writeln!(text, "{:<30}{how}, {count} times", "ended by itself");
        }
        for (rule, count) in &self.broken {
            let _ = writeln!(text, "BROKEN: {rule:<22}{count} times");
        }
        text
    }
}
