//! The declarative form of a source: what a user writes in `[[sources]]`, and what the presets are written in.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::time::Duration;

use hookmill_schema::Kind;
use serde::Deserialize;

use super::auth::Hmac;
use super::mapping::Mapping;
use super::{Source, one};
use crate::secret::SecretRef;

/// One `[[sources]]`. With a preset, three lines do: `name`, `preset`, `secrets`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Names it in events, tables, metrics and logs; part of every event's identity, so it never changes.
    pub name: String,
    /// A scheme and mapping that come with Hookmill: `stripe`, `shopify`, `square`, `razorpay`, `standard`.
    pub preset: Option<String>,
    /// Where it posts to; `/webhooks/<name>` unless said otherwise.
    pub path: Option<String>,
    /// Secrets that signatures may be made with; several while one is being replaced.
    #[serde(default)]
    pub secrets: Vec<SecretRef>,
    /// The URL as registered with the provider, where that is part of what is signed.
    pub url: Option<String>,
    /// How old, and how far ahead, a signature may be; overrides the preset's.
    #[serde(default, with = "humantime_serde::option")]
    pub tolerance: Option<Duration>,
    /// How requests are signed; instead of the preset's.
    pub auth: Option<AuthConfig>,
    /// Whether a request must say that it is JSON; yes unless said otherwise.
    pub require_json: Option<bool>,
    /// How many requests it may send.
    pub rate_limit: Option<RateLimit>,
    /// What its events mean: rules that are tried before the preset's, the first that fits decides.
    #[serde(default)]
    pub map: Vec<MapConfig>,
}

/// A limit of requests; more are answered 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second in the long run.
    pub per_second: NonZero<u32>,
    /// Requests that may come at once.
    #[serde(default = "one")]
    pub burst: NonZero<u32>,
}

/// The HMAC family.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The hash.
    #[serde(default = "sha256")]
    pub algorithm: Algorithm,
    /// The header that holds the signature.
    pub header: String,
    /// Between several items in that header.
    pub separator: Option<char>,
    /// What an item begins with that is a signature; other items are passed over.
    #[serde(default)]
    pub prefix: String,
    /// How the signature is written.
    pub encoding: Encoding,
    /// What is signed, of `{body}`, `{timestamp}`, `{url}`, `{header:NAME}` and text between.
    #[serde(default = "body")]
    pub content: String,
    /// Where the time of signing stands, in seconds since 1970: `header:NAME`, or `item:PREFIX` of the signature's header.
    pub timestamp: Option<String>,
    /// How old, and how far ahead, it may be.
    #[serde(default = "five_minutes", with = "humantime_serde")]
    pub tolerance: Duration,
    /// How the secret is written.
    #[serde(default = "raw")]
    pub secret_encoding: SecretEncoding,
    /// What is taken off the secret's beginning, if it is there, before it is decoded.
    #[serde(default)]
    pub secret_prefix: String,
}

fn sha256() -> Algorithm {
    Algorithm::Sha256
}
fn body() -> String {
    "{body}".to_owned()
}
fn five_minutes() -> Duration {
    Duration::from_secs(300)
}
fn raw() -> SecretEncoding {
    SecretEncoding::Raw
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Encoding {
    Hex,
    Base64,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum SecretEncoding {
    Raw,
    Hex,
    Base64,
}

/// A value's places: the first that yields a non-empty text, number or truth value counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Places {
    /// One place.
    One(String),
    /// Several, in the order in which they are tried.
    Many(Vec<String>),
}

impl Places {
    pub(super) fn list(&self) -> Vec<&str> {
        match self {
            Places::One(place) => vec![place],
            Places::Many(places) => places.iter().map(String::as_str).collect(),
        }
    }
}

/// One rule: which requests it is for, and where the event's fields stand in them.
///
/// A place is `/a/b` (a JSON Pointer by RFC 6901 into the body), `header:NAME`, `const:TEXT`, or a template of places in braces with
/// text between, which yields nothing if one of them does. Numbers keep their exact text.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapConfig {
    /// Places and the values that each may have; all must fit.
    pub when: BTreeMap<String, Places>,
    /// `order` or `dispute`.
    pub kind: Kind,
    /// Identity, stable over redeliveries.
    pub event_id: Places,
    /// The provider's word for what happened.
    pub event_type: Places,
    /// When it happened, by what the provider signed: it must repeat on redelivery.
    pub occurred_at: TimeConfig,
    /// The order.
    pub order_id: Option<Places>,
    /// The dispute.
    pub dispute_id: Option<Places>,
    /// The user's key. It must not change in the life of an order or dispute, as it decides the shard.
    pub user_id: Places,
    /// The amount.
    pub amount: Option<AmountConfig>,
    /// Its currency.
    pub currency: Option<Places>,
    /// The state; the first rule that knows the provider's word decides.
    #[serde(default)]
    pub status: Vec<StatusConfig>,
    /// Counts the entity's changes.
    pub version: Option<Places>,
}

/// A time and its unit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeConfig {
    /// Where it stands.
    pub from: Places,
    /// How it is written.
    #[serde(rename = "as")]
    pub unit: TimeUnit,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmountConfig {
    /// Where it stands.
    pub from: Places,
    /// What it counts.
    pub unit: MoneyUnit,
}

/// What an amount counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoneyUnit {
    /// The currency's smallest unit, as an integer.
    Minor,
    /// The currency's main unit, as a decimal.
    Major,
}

/// One rule for the state.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusConfig {
    /// Where the provider's word stands.
    pub from: Places,
    /// From the provider's words to canonical states.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// The canonical state if there is any word at all.
    pub present: Option<String>,
}

/// What is wrong with a source's configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source {source_name:?} {why}")]
pub struct SourceConfigError {
    source_name: String,
    why: String,
}

impl SourceConfigError {
    pub(super) fn new(source_name: &str, why: impl Into<String>) -> Self {
        Self {
            source_name: source_name.to_owned(),
            why: why.into(),
        }
    }
}

/// What a preset gives; in the form of `[[sources]]` itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preset {
    auth: AuthConfig,
    map: Vec<MapConfig>,
}

const PRESETS: &[(&str, &str)] = &[
    ("razorpay", include_str!("presets/razorpay.toml")),
    ("shopify", include_str!("presets/shopify.toml")),
    ("square", include_str!("presets/square.toml")),
    ("standard", include_str!("presets/standard.toml")),
    ("stripe", include_str!("presets/stripe.toml")),
];

fn preset(name: &str) -> Result<Preset, String> {
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "names the preset {name:?}, which is unknown: there are {}",
            known.join(", ")
        ));
    };
    toml::from_str(text).map_err(|error| format!("has the preset {name:?}, which is broken: {error}"))
}

impl SourceConfig {
    /// Resolves the secrets and compiles the mapping.
    pub(super) fn compile(self) -> Result<Source, SourceConfigError> {
        let name = self.name.clone();
        self.build().map_err(|why| SourceConfigError::new(&name, why))
    }

    fn build(self) -> Result<Source, String> {
        if self.name.is_empty()
            || !self
                .name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return Err("needs a name of letters, digits, '-', '_' and '.'".to_owned());
        }
        let preset = self.preset.as_deref().map(preset).transpose()?;
        let (preset_auth, preset_map) = preset.map_or((None, Vec::new()), |p| (Some(p.auth), p.map));
        let mut auth = self
            .auth
            .or(preset_auth)
            .ok_or("says neither `preset` nor `auth`: how are its requests signed?")?;
        if let Some(tolerance) = self.tolerance {
            auth.tolerance = tolerance;
        }
        if self.secrets.is_empty() {
            return Err("has no secrets: set `secrets`, for example to [\"env:NAME\"]".to_owned());
        }
        let resolve = |(i, secret): (usize, &SecretRef)| {
            secret
                .resolve()
                .map_err(|error| format!("cannot resolve secrets[{i}] = \"{secret}\": {error}"))
        };
        let secrets = self
            .secrets
            .iter()
            .enumerate()
            .map(resolve)
            .collect::<Result<Vec<_>, _>>()?;
        let path = self.path.unwrap_or_else(|| format!("/webhooks/{}", self.name));
        if !path.starts_with('/') {
            return Err(format!("has the path {path:?}: it must begin with '/'"));
        }
        let rules: Vec<MapConfig> = self.map.into_iter().chain(preset_map).collect();
        if rules.is_empty() {
            return Err("has no mapping: add [[sources.map]], or a preset".to_owned());
        }
        Ok(Source {
            auth: Hmac::compile(&auth, self.url.as_deref(), &secrets)?,
            mapping: Mapping::compile(&rules)?,
            path,
            wants_json: self.require_json.unwrap_or(true),
            rate_limit: self.rate_limit,
            name: self.name,
        })
    }
}
