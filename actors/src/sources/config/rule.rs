//! What events mean: the forms of `map`.

use std::collections::BTreeMap;
use std::fmt;

use hookmill_schema::Kind;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A value's places: the first that yields a non-empty text, number or truth value counts.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Places {
    /// One place.
    One(String),
    /// Several, in the order in which they are tried.
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Places;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Places, E> {
                Ok(Places::One(text.to_owned()))
            }
            fn visit_seq<S: SeqAccess<'de>>(self, seq: S) -> Result<Places, S::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Places::Many)
            }
        }
        input.deserialize_any(Form)
    }
}

impl Places {
    pub(in crate::sources) fn list(&self) -> Vec<&str> {
        match self {
            Places::One(place) => vec![place],
            Places::Many(places) => places.iter().map(String::as_str).collect(),
        }
    }
}

/// One rule: which requests it is for, and where the event's fields stand in them.
///
/// A place is `/a/b` (a JSON Pointer by RFC 6901 into the event), `body:/a/b` (into the whole body, where a request has
/// several events), `header:NAME`, `const:TEXT`, or a template of places in braces with text between, which yields
/// nothing if one of them does. `tail:` before a place takes what stands behind its last slash, as of a link. Numbers keep
/// their exact text.
///
/// A rule of its own says at least `when`, `kind`, `event_id`, `event_type`, `occurred_at`, `user_id`, and `order_id` or `dispute_id`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// What it is called: in `hookmill sources`, and to change a preset's rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Places and the values that each may have; one that ends with `*` fits all that begin so. All must fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<BTreeMap<String, Places>>,
    /// `order` or `dispute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Identity, stable over redeliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Places>,
    /// The provider's word for what happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<Places>,
    /// When it happened, by what the provider signed: it must repeat on redelivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<TimeConfig>,
    /// The order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_id: Option<Places>,
    /// The dispute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispute_id: Option<Places>,
    /// The user's key. It must not change in the life of an order or dispute, as it decides the shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Places>,
    /// The amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<AmountConfig>,
    /// Its currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<Places>,
    /// The state; the first rule that knows the provider's word decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Vec<StatusConfig>>,
    /// Counts the entity's changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Places>,
}

impl RuleConfig {
    /// This rule with what `change` says instead.
    pub(super) fn changed_by(self, change: RuleConfig) -> RuleConfig {
        RuleConfig {
            name: self.name,
            when: change.when.or(self.when),
            kind: change.kind.or(self.kind),
            event_id: change.event_id.or(self.event_id),
            event_type: change.event_type.or(self.event_type),
            occurred_at: change.occurred_at.or(self.occurred_at),
            order_id: change.order_id.or(self.order_id),
            dispute_id: change.dispute_id.or(self.dispute_id),
            user_id: change.user_id.or(self.user_id),
            amount: change.amount.or(self.amount),
            currency: change.currency.or(self.currency),
            status: change.status.or(self.status),
            version: change.version.or(self.version),
        }
    }
}

/// A time and its unit.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TimeConfig {
    /// Where it stands.
    pub from: Places,
    /// How it is written.
    #[serde(rename = "as")]
    pub unit: TimeUnit,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds since 1970, also with a fraction.
    Unix,
    /// Milliseconds since 1970.
    UnixMs,
    /// RFC 3339, with its offset.
    Rfc3339,
    /// RFC 3339 without an offset, in UTC.
    Rfc3339Utc,
}

/// An amount and its unit.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AmountConfig {
    /// Where it stands.
    pub from: Places,
    /// What it counts.
    pub unit: MoneyUnit,
    /// The digits behind the point that the provider's minor unit stands for, by currency, where they are not those of
    /// ISO 4217. What is stored is always ISO's minor unit; what is no whole number of it is refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digits: BTreeMap<String, u8>,
}

/// What an amount counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MoneyUnit {
    /// The currency's smallest unit, as an integer.
    Minor,
    /// The currency's main unit, as a decimal.
    Major,
}

/// One rule for the state.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StatusConfig {
    /// Where the provider's word stands.
    pub from: Places,
    /// Counts only if this place has the same word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<Places>,
    /// From the provider's words to canonical states; a word that ends with `*` stands for all that begin so and are not named.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// The canonical state if there is any word at all.
    pub present: Option<String>,
}
