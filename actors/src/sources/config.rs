//! The declarative form of a source: what a user writes in `[[sources]]`, and what the presets are written in.

mod auth;
mod build;
mod fault;
mod preset;
mod rule;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::one;
use crate::secret::SecretRef;

pub use auth::{
    Algorithm, AuthConfig, AuthConfigs, CertificateConfig, Encoding, ItemHmacConfig, SecretEncoding, SignatureConfig,
    TokenConfig,
};
pub use build::{EffectiveSource, ShownSecret};
pub(super) use fault::{Fault, Under, meant};
pub use fault::{SourceConfigError, nearest};
pub use preset::presets;
pub use rule::{AmountConfig, MoneyUnit, Places, RuleConfig, StatusConfig, TimeConfig, TimeUnit};

/// One `[[sources]]`. With a preset, three lines do: `name`, `preset`, `secrets`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Names it in events, tables, metrics and logs; part of every event's identity, so it never changes.
    pub name: String,
    /// A scheme and mapping that come with Hookmill; `hookmill sources presets` lists them.
    pub preset: Option<String>,
    /// Where it posts to; `/webhooks/<name>` unless said otherwise.
    pub path: Option<String>,
    /// Secrets that signatures may be made with; several while one is being replaced.
    #[serde(default)]
    pub secrets: Vec<SecretConfig>,
    /// The URL as registered with the provider, where that is part of what is signed.
    pub url: Option<String>,
    /// How old, and how far ahead, a signature may be; overrides the preset's.
    #[serde(default, with = "humantime_serde::option")]
    pub tolerance: Option<Duration>,
    /// How requests are signed, instead of the preset's way. Several ways stand side by side: any of them will do.
    pub auth: Option<AuthConfigs>,
    /// Addresses that requests may come from, besides being signed, as `10.0.0.0/8` or one by one; any unless said otherwise.
    #[serde(default, deserialize_with = "networks")]
    pub allow_from: Vec<IpNet>,
    /// Certificates in PEM form, provisioned beforehand, for schemes that sign with one. With them nothing is fetched.
    #[serde(default)]
    pub certificates: Vec<PathBuf>,
    /// Root certificates in PEM form that such a certificate's chain must lead to; those of the web unless said otherwise.
    pub certificate_roots: Option<PathBuf>,
    /// Whether a request must say that it is JSON; the preset's word, or yes.
    pub require_json: Option<bool>,
    /// How many requests it may send.
    pub rate_limit: Option<RateLimit>,
    /// How long the provider waits for an answer: it gets one before that. A webhook that Kafka has not acknowledged by then is
    /// answered 503, as it is after `ingest.deadline`. The preset's, where the provider tells it.
    #[serde(default, with = "humantime_serde::option")]
    pub timeout: Option<Duration>,
    /// Where a request has several events: a JSON Pointer to their array. Places in rules are then looked up in each.
    pub each: Option<String>,
    /// What the provider waits for when its events are accepted; 202 and their list unless said otherwise.
    pub answer: Option<AnswerConfig>,
    /// Requests that are no events but ask for an answer: challenges, pings, tests. Tried before the preset's.
    #[serde(default)]
    pub handshake: Vec<HandshakeConfig>,
    /// What becomes of a verified event that no rule wants; the preset's word, or `ack`.
    pub unmapped: Option<Unmapped>,
    /// What becomes of a verified event that lacks something; the preset's word, or `reject`.
    pub invalid: Option<Invalid>,
    /// What its events mean: rules that are tried before the preset's, the first that fits decides. One with the name of
    /// a preset's rule changes what it says of that one and leaves the rest.
    #[serde(default)]
    pub map: Vec<RuleConfig>,
    /// Rules that are tried after the preset's.
    #[serde(default)]
    pub map_after: Vec<RuleConfig>,
}

/// Networks, and single addresses among them.
pub(crate) fn networks<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: String| {
        let single = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| single()).map_err(|_| {
            D::Error::custom(format!(
                "{text:?} is no network: write it like \"10.0.0.0/8\", or as one address"
            ))
        })
    };
    Vec::<String>::deserialize(input)?.into_iter().map(network).collect()
}

/// A secret, by reference.
#[derive(Clone, Debug)]
pub struct SecretConfig {
    /// Where it is.
    pub from: SecretRef,
    /// What it is called in `/stats` and metrics; the reference unless said otherwise.
    pub name: Option<String>,
    /// After this it vouches for nothing any more.
    pub valid_until: Option<DateTime<Utc>>,
}

impl<'de> Deserialize<'de> for SecretConfig {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            from: SecretRef,
            name: Option<String>,
            valid_until: Option<String>,
        }
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Table;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reference like \"env:NAME\", or a table with `from`, `name` and `valid_until`")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Table, E> {
                Ok(Table {
                    from: text.parse().map_err(E::custom)?,
                    name: None,
                    valid_until: None,
                })
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Table, M::Error> {
                Table::deserialize(MapAccessDeserializer::new(map))
            }
        }
        let table = input.deserialize_any(Form)?;
        let valid_until = table.valid_until.map(|text| {
            DateTime::parse_from_rfc3339(&text).map(|at| at.to_utc()).map_err(|_| {
                D::Error::custom(format!(
                    "valid_until = {text:?} is no time: write it like \"2027-01-31T00:00:00Z\""
                ))
            })
        });
        Ok(Self {
            from: table.from,
            name: table.name,
            valid_until: valid_until.transpose()?,
        })
    }
}

/// A limit of requests; more are answered 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second in the long run.
    pub per_second: NonZero<u32>,
    /// Requests that may come at once.
    #[serde(default = "one")]
    pub burst: NonZero<u32>,
}

/// What becomes of a verified event that no rule wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmapped {
    /// 200, and a counter.
    #[default]
    Ack,
    /// Kept on the topic of parked events, to be replayed when a rule wants it.
    Park,
    /// 422.
    Reject,
}

/// What becomes of a verified event that lacks something a rule needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Invalid {
    /// Kept on the topic of parked events.
    Park,
    /// 422.
    #[default]
    Reject,
}

/// An answer in the provider's own words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerConfig {
    /// Its status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Its media type.
    #[serde(default = "plain")]
    pub content_type: String,
    /// Its body. In a handshake, places in braces are filled in.
    #[serde(default)]
    pub body: String,
}

fn ok() -> u16 {
    200
}
fn plain() -> String {
    "text/plain; charset=utf-8".to_owned()
}

/// A request that is no event but wants an answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HandshakeConfig {
    /// Its method.
    #[serde(default = "post")]
    pub method: HandshakeMethod,
    /// Whether it is signed as events are.
    #[serde(default = "yes")]
    pub signed: bool,
    /// Places and the values that each may have; one that ends with `*` fits all that begin so. All must fit. Besides the places of rules there are
    /// `query:NAME` and `form:NAME`; a JSON Pointer only where the request is signed.
    pub when: BTreeMap<String, Places>,
    /// What it gets.
    pub answer: AnswerConfig,
}

/// A handshake's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum HandshakeMethod {
    Get,
    Post,
}

fn post() -> HandshakeMethod {
    HandshakeMethod::Post
}
fn yes() -> bool {
    true
}
