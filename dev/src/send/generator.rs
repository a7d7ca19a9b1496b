//! What is sent: entities that live through a few events close in time, in an order that a seed decides.

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::bodies;

/// The sources that config.toml ships.
pub const SOURCES: [&str; 5] = ["stripe", "shopify", "square", "razorpay", "standard"];

/// A webhook before it is signed.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its source.
    pub source: &'static str,
    /// Headers besides the signature.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Vec<u8>,
    /// What must become of it.
    pub expect: Expected,
}

/// The row that a webhook must become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its source.
    pub source: &'static str,
    /// Its identity.
    pub event_id: String,
    /// `order` or `dispute`.
    pub kind: &'static str,
    /// The Kafka key.
    pub user_id: String,
    /// The order.
    pub order_id: String,
    /// The dispute.
    pub dispute_id: Option<String>,
    /// The canonical state after it.
    pub status: &'static str,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// Its place among the webhooks of its connection; of two of one user the higher was sent later.
    pub sequence: u64,
    /// Whether it can never be written.
    pub poison: bool,
}

/// An acknowledged webhook, as a line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct Acked {
    pub source: String,
    pub event_id: String,
    pub kind: String,
    pub user_id: String,
    pub order_id: String,
    pub dispute_id: Option<String>,
    pub status: String,
    pub occurred_at: DateTime<Utc>,
    pub sequence: u64,
    pub poison: bool,
    pub code: u16,
}

impl Expected {
    pub(super) fn acked(&self, code: u16) -> Acked {
        Acked {
            source: self.source.to_owned(),
            event_id: self.event_id.clone(),
            kind: self.kind.to_owned(),
            user_id: self.user_id.clone(),
            order_id: self.order_id.clone(),
            dispute_id: self.dispute_id.clone(),
            status: self.status.to_owned(),
            occurred_at: self.occurred_at,
            sequence: self.sequence,
            poison: self.poison,
            code,
        }
    }
}

/// What a generator makes.
#[derive(Clone, Debug)]
pub struct GeneratorSettings {
    /// Of these sources, evenly.
    pub sources: Vec<&'static str>,
    /// Which of several generators this is; their users and ids differ.
    pub worker: u64,
    /// Users of the source `standard`.
    pub users: u64,
    /// Share of disputes among the entities.
    pub disputes_percent: u8,
    /// How many can never be written.
    pub poison: u64,
    /// How many in all.
    pub count: u64,
    /// One in so many entities lived in some other month of the last years; 0 for none.
    pub old_one_in: u32,
    /// Decides everything.
    pub seed: u64,
    /// Part of every id.
    pub run_id: String,
}

/// Entities that are alive at once.
const OPEN: usize = 24;

/// Makes webhooks; the same settings make the same ones, but for the times.
#[derive(Debug)]
pub struct Generator {
    settings: GeneratorSettings,
    rng: SmallRng,
    open: Vec<Entity>,
    made: u64,
    entities: u64,
    base: DateTime<Utc>,
}

/// An order or a dispute in the middle of its life.
#[derive(Clone, Debug)]
pub(super) struct Entity {
    pub(super) source: &'static str,
    pub(super) dispute: bool,
    /// Unique among all entities of all runs.
    pub(super) id: String,
    pub(super) user: String,
    pub(super) amount: u64,
    pub(super) step: usize,
    pub(super) at: DateTime<Utc>,
}

impl Generator {
    /// A generator at its beginning.
    pub fn new(settings: GeneratorSettings) -> Self {
        let rng = SmallRng::seed_from_u64(settings.seed.wrapping_mul(0x9e37_79b9).wrapping_add(settings.worker));
        // Whole seconds in the last minutes: some providers tell no finer time.
        let base = DateTime::from_timestamp(Utc::now().timestamp() - 600, 0).unwrap_or_default();
        Self {
            settings,
            rng,
            open: Vec::new(),
            made: 0,
            entities: 0,
            base,
        }
    }

    fn open_entity(&mut self) -> Entity {
        let sources = &self.settings.sources;
        let source = sources[usize::try_from(self.entities).unwrap_or(0) % sources.len()];
        self.entities += 1;
        let id = format!("{}w{}n{}", self.settings.run_id, self.settings.worker, self.entities);
        let user = format!(
            "user-{}-{}-{}",
            self.settings.run_id,
            self.settings.worker,
            self.rng.random_range(0..self.settings.users)
        );
        Entity {
            source,
            dispute: self
                .rng
                .random_ratio(u32::from(self.settings.disputes_percent.min(100)), 100),
            id,
            user,
            amount: self.rng.random_range(100..200_000),
            step: 0,
            at: self.base + TimeDelta::seconds(self.rng.random_range(0..300)) - self.age(),
        }
    }

    fn age(&mut self) -> TimeDelta {
        match self.settings.old_one_in {
            0 => TimeDelta::zero(),
            n if self.rng.random_ratio(1, n) => TimeDelta::days(self.rng.random_range(30..3000)),
            _ => TimeDelta::zero(),
        }
    }
}

impl Iterator for Generator {
    type Item = Webhook;

    fn next(&mut self) -> Option<Webhook> {
        if self.made >= self.settings.count {
            return None;
        }
        let sequence = self.made;
        self.made += 1;
        // Spread evenly over the run.
        let poison = self
            .settings
            .count
            .checked_div(self.settings.poison)
            .is_some_and(|every| {
                let every = every.max(1);
                sequence.is_multiple_of(every) && sequence / every < self.settings.poison
            });
        if poison {
            let mut entity = self.open_entity();
            entity.source = "standard";
            // Before any partition of events that is made on demand.
            entity.at = DateTime::from_timestamp(-2_000_000_000, 0).unwrap_or_default();
            let mut webhook = bodies::webhook(&entity, sequence);
            webhook.expect.poison = true;
            return Some(webhook);
        }
        while self.open.len() < OPEN {
            let entity = self.open_entity();
            self.open.push(entity);
        }
        let i = self.rng.random_range(0..self.open.len());
        let webhook = bodies::webhook(&self.open[i], sequence);
        let entity = &mut self.open[i];
        entity.step += 1;
        entity.at += TimeDelta::seconds(self.rng.random_range(1..20));
        if entity.step >= bodies::steps(entity) {
            self.open.swap_remove(i);
        }
        Some(webhook)
    }
}
