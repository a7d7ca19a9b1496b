//! What a campaign can be asked for.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::plan::{Kind, Parts};

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct CampaignArgs {
    /// Draws everything: webhooks, faults, their times. A fresh one unless said.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Webhooks to send, not counting what is sent again.
    #[arg(long, default_value_t = 20_000)]
    pub events: u64,
    /// Faults to inflict.
    #[arg(long, default_value_t = 12)]
    pub faults: usize,
    /// Inflict no more faults after so many minutes; the report then says that it is not complete. 0 for no end.
    #[arg(long, default_value_t = 0)]
    pub minutes: u64,
    /// Kafka brokers: 1 or 3.
    #[arg(long, default_value_t = 3)]
    pub brokers: usize,
    /// Postgres shards.
    #[arg(long, default_value_t = 2)]
    pub shards: usize,
    /// Instances of the product.
    #[arg(long, default_value_t = 3)]
    pub instances: usize,
    /// Most webhooks a second.
    #[arg(long, default_value_t = 1000)]
    pub rate: u64,
    /// One in so many webhooks is verified and can never be written.
    #[arg(long, default_value_t = 500)]
    pub poison: u64,
    /// Only these kinds of faults, with commas between.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub only: Vec<Kind>,
    /// After each fault everything must be well again within so many seconds.
    #[arg(long, default_value_t = 45)]
    pub recovery: u64,
    /// Where the report goes, as JSON.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Use this binary of the product, rather than have cargo bring it up to date.
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Break no more after the first thing that is found on the way.
    #[arg(long)]
    pub first: bool,
    /// Keep servers' data and all logs here; else they are in a temporary folder, which is removed if all was well.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

impl CampaignArgs {
    pub(super) fn parts(&self) -> Parts {
        Parts {
            instances: self.instances,
            brokers: self.brokers,
            shards: self.shards,
        }
    }

    /// The arguments that draw the same campaign again, also where a default has changed meanwhile; where its files went is left out.
    pub(super) fn again(&self, seed: u64) -> String {
        let mut again = format!(
            "--seed {seed} --events {} --faults {} --minutes {} --brokers {} --shards {} --instances {} --rate {} --poison {} --recovery {}",
            self.events,
            self.faults,
            self.minutes,
            self.brokers,
            self.shards,
            self.instances,
            self.rate,
            self.poison,
            self.recovery
        );
        if !self.only.is_empty() {
            let kinds: Vec<String> = self.only.iter().map(|kind| kind.name()).collect();
            again.push_str(&format!(" --only {}", kinds.join(",")));
        }
        if self.first {
            again.push_str(" --first");
        }
        again
    }

    pub(super) fn validate(&self) -> Result<()> {
        if !matches!(self.brokers, 1 | 3) {
            bail!("--brokers is 1 or 3, not {}", self.brokers);
        }
        if self.instances == 0 || self.instances > 8 || self.shards == 0 || self.shards > 8 {
            bail!("--instances and --shards are from 1 to 8");
        }
        if self.poison == 0 {
            bail!("--poison is at least 1");
        }
        if self.events < 100 {
            bail!("--events is at least 100");
        }
        Ok(())
    }
}
