//! The declarative form of a source: what a user writes in `[[sources]]`, and what the presets are written in.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hookmill_schema::Kind;
use ipnet::IpNet;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::auth::{Auth, Certificates};
use super::mapping::Mapping;
use super::{Source, handshake, one};
use crate::secret::SecretRef;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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

/// One scheme, or several.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum AuthConfigs {
    /// The only one.
    One(Box<AuthConfig>),
    /// Any of these will do.
    Many(Vec<AuthConfig>),
}

/// By hand, as a derived "either, or" would not say what is wrong inside.
impl<'de> Deserialize<'de> for AuthConfigs {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = AuthConfigs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a scheme, or a list of schemes")
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<AuthConfigs, M::Error> {
                let one = AuthConfig::deserialize(MapAccessDeserializer::new(map))?;
                Ok(AuthConfigs::One(Box::new(one)))
            }
            fn visit_seq<S: SeqAccess<'de>>(self, seq: S) -> Result<AuthConfigs, S::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(AuthConfigs::Many)
            }
        }
        input.deserialize_any(Form)
    }
}

impl AuthConfigs {
    pub(super) fn list(&self) -> &[AuthConfig] {
        match self {
            AuthConfigs::One(one) => std::slice::from_ref(one),
            AuthConfigs::Many(many) => many,
        }
    }

    fn list_mut(&mut self) -> &mut [AuthConfig] {
        match self {
            AuthConfigs::One(one) => std::slice::from_mut(one),
            AuthConfigs::Many(many) => many,
        }
    }
}

/// How a request shows that it is the provider's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AuthConfig {
    /// An HMAC over the request's parts.
    Hmac(SignatureConfig),
    /// An ed25519 signature over the request's parts; `secrets` are public keys.
    Ed25519(SignatureConfig),
    /// An RSA signature with a certificate.
    Certificate(CertificateConfig),
    /// Basic authentication; a secret is `user:password`.
    Basic,
    /// A token in a header.
    Token(TokenConfig),
    /// An HMAC in each of the request's events.
    Items(ItemHmacConfig),
    /// Nothing: anybody who reaches the listener can write. Taken only on loopback, or if said twice.
    None {
        /// The second time: `"i know"`.
        #[serde(default)]
        anybody: Option<String>,
    },
}

impl AuthConfig {
    pub(super) fn secret_prefix(&self) -> &str {
        match self {
            AuthConfig::Hmac(config) | AuthConfig::Ed25519(config) => &config.secret_prefix,
            AuthConfig::Certificate(_)
            | AuthConfig::Basic
            | AuthConfig::Token(_)
            | AuthConfig::Items(_)
            | AuthConfig::None { .. } => "",
        }
    }

    fn set_tolerance(&mut self, tolerance: Duration) {
        match self {
            AuthConfig::Hmac(config) | AuthConfig::Ed25519(config) => config.tolerance = tolerance,
            AuthConfig::Certificate(_)
            | AuthConfig::Basic
            | AuthConfig::Token(_)
            | AuthConfig::Items(_)
            | AuthConfig::None { .. } => {}
        }
    }
}

/// Where a signature stands, what it is made over, and with what key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureConfig {
    /// The header that holds it.
    pub header: String,
    /// Between several items in that header.
    pub separator: Option<char>,
    /// What an item begins with that is a signature; other items are passed over.
    #[serde(default)]
    pub prefix: String,
    /// How it is written.
    pub encoding: Encoding,
    /// What is signed, of `{body}`, `{timestamp}`, `{url}`, `{header:NAME}`, `{crc32}` (of the body, in decimal) and text between.
    #[serde(default = "body")]
    pub content: String,
    /// Where the time of signing stands, in seconds since 1970: `header:NAME`, or `item:PREFIX` of the signature's header.
    pub timestamp: Option<String>,
    /// How old, and how far ahead, it may be.
    #[serde(default = "five_minutes", with = "humantime_serde")]
    pub tolerance: Duration,
    /// The hash of an HMAC.
    #[serde(default = "sha256")]
    pub algorithm: Algorithm,
    /// How the secret, or the public key, is written.
    #[serde(default = "raw")]
    pub secret_encoding: SecretEncoding,
    /// What is taken off its beginning, if it is there, before it is decoded.
    #[serde(default)]
    pub secret_prefix: String,
}

/// RSA-SHA256 (PKCS #1 v1.5) with a certificate that the request names.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// The header that holds the signature, in base64.
    pub header: String,
    /// The header that holds the certificate's URL.
    pub url_header: String,
    /// Hosts that a certificate may be fetched from; `*.example.com` for all below a name.
    pub hosts: Vec<String>,
    /// The name that the certificate must be for, or `*.example.com`.
    pub subject: String,
    /// A header that names the algorithm, and what it must say.
    pub algorithm: Option<(String, String)>,
    /// What is signed; `{secret}` is the source's secret, as an id that the provider gave.
    pub content: String,
}

/// A token in a header.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// The header that holds it.
    #[serde(default = "authorization")]
    pub header: String,
    /// What stands before it, such as `"Bearer "`.
    #[serde(default)]
    pub prefix: String,
}

fn authorization() -> String {
    "authorization".to_owned()
}

/// An HMAC in each event, over some of its fields.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ItemHmacConfig {
    /// Where it stands in the event.
    pub signature: String,
    /// What it is made over: pointers in braces, and text between. A missing field is empty.
    pub content: String,
    /// The hash.
    #[serde(default = "sha256")]
    pub algorithm: Algorithm,
    /// How it is written.
    pub encoding: Encoding,
    /// How the secret is written.
    #[serde(default = "raw")]
    pub secret_encoding: SecretEncoding,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Encoding {
    Hex,
    Base64,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum SecretEncoding {
    Raw,
    Hex,
    Base64,
}

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
    pub(super) fn list(&self) -> Vec<&str> {
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
/// nothing if one of them does. Numbers keep their exact text.
///
/// A rule of its own says at least `when`, `kind`, `event_id`, `event_type`, `occurred_at`, `user_id`, and `order_id` or `dispute_id`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// What it is called: in `hookmill sources`, and to change a preset's rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Places and the values that each may have; all must fit.
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
    fn changed_by(self, change: RuleConfig) -> RuleConfig {
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
    /// Which source.
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

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
pub struct Preset {
    /// What to know about it: what it is for, where its key comes from, what is not confirmed.
    pub about: String,
    auth: AuthConfigs,
    #[serde(default)]
    require_json: Option<bool>,
    each: Option<String>,
    answer: Option<AnswerConfig>,
    #[serde(default)]
    handshake: Vec<HandshakeConfig>,
    unmapped: Option<Unmapped>,
    invalid: Option<Invalid>,
    map: Vec<RuleConfig>,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("presets/", $name, ".toml")))),*]
    };
}

const PRESETS: &[(&str, &str)] = presets![
    "adyen",
    "bigcommerce",
    "chargebee",
    "checkout",
    "github",
    "klarna",
    "paddle",
    "paypal",
    "razorpay",
    "shopify",
    "square",
    "standard",
    "stripe",
    "svix",
    "woocommerce",
];

/// The names of all presets, and what to know about each.
pub fn presets() -> impl Iterator<Item = (&'static str, Result<String, String>)> {
    PRESETS
        .iter()
        .map(|(name, _)| (*name, preset(name).map(|preset| preset.about)))
}

fn preset(name: &str) -> Result<Preset, String> {
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        let meant = nearest(name, known.iter().copied());
        let meant = meant
            .map(|word| format!(" (did you mean {word:?}?)"))
            .unwrap_or_default();
        return Err(format!(
            "names the preset {name:?}, which is unknown{meant}: there are {}",
            known.join(", ")
        ));
    };
    toml::from_str(text).map_err(|error| format!("has the preset {name:?}, which is broken: {error}"))
}

/// The word that somebody may have meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// How alike two words are that could be one misspelt, from 0 to 1.
    const ALIKE: f64 = 0.75;
    known
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A source as it works, after preset and overrides; secrets by reference only.
#[derive(Clone, Debug, Serialize)]
pub struct EffectiveSource {
    /// Its name.
    pub name: String,
    /// The preset it is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Where its webhooks are posted to.
    pub path: String,
    /// References to its secrets.
    pub secrets: Vec<String>,
    /// The URL that is part of what is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether a request must say that it is JSON.
    pub require_json: bool,
    /// Where its several events are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// What becomes of an event that no rule wants.
    pub unmapped: Unmapped,
    /// What becomes of an event that lacks something.
    pub invalid: Invalid,
    /// The answer in the provider's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerConfig>,
    /// How requests are signed: any of these will do.
    pub auth: Vec<AuthConfig>,
    /// What is answered and is no event.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handshake: Vec<HandshakeConfig>,
    /// The rules in the order in which they are tried.
    pub map: Vec<RuleConfig>,
}

impl SourceConfig {
    /// A source of a preset, for tools that verify nothing.
    pub fn of_preset(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            preset: Some(name.to_owned()),
            path: None,
            secrets: Vec::new(),
            url: None,
            tolerance: None,
            auth: None,
            allow_from: Vec::new(),
            certificates: Vec::new(),
            certificate_roots: None,
            require_json: None,
            rate_limit: None,
            each: None,
            answer: None,
            handshake: Vec::new(),
            unmapped: None,
            invalid: None,
            map: Vec::new(),
            map_after: Vec::new(),
        }
    }

    /// Compiles the mapping without the secrets, for tools that verify nothing.
    pub fn compile_unverified(mut self) -> Result<Source, SourceConfigError> {
        self.auth = Some(AuthConfigs::One(Box::new(AuthConfig::None { anybody: None })));
        self.secrets = Vec::new();
        self.certificates = Vec::new();
        self.certificate_roots = None;
        self.compile()
    }

    /// The source after preset and overrides.
    pub fn effective(&self) -> Result<EffectiveSource, SourceConfigError> {
        let given = self.preset.as_deref().map(preset).transpose();
        let given = given.map_err(|why| SourceConfigError::new(&self.name, why))?;
        let given = given.as_ref();
        let auth = self.auth.as_ref().or(given.map(|p| &p.auth));
        let mut auth = auth.map(|a| a.list().to_vec()).unwrap_or_default();
        if let Some(tolerance) = self.tolerance {
            auth.iter_mut().for_each(|scheme| scheme.set_tolerance(tolerance));
        }
        let rules = given.map(|p| p.map.clone()).unwrap_or_default();
        let handshakes = given.map(|p| p.handshake.clone()).unwrap_or_default();
        Ok(EffectiveSource {
            name: self.name.clone(),
            preset: self.preset.clone(),
            path: self.path.clone().unwrap_or_else(|| format!("/webhooks/{}", self.name)),
            secrets: self.secrets.iter().map(|s| s.from.to_string()).collect(),
            url: self.url.clone(),
            require_json: self.require_json.or(given.and_then(|p| p.require_json)).unwrap_or(true),
            each: self.each.clone().or(given.and_then(|p| p.each.clone())),
            unmapped: self.unmapped.or(given.and_then(|p| p.unmapped)).unwrap_or_default(),
            invalid: self.invalid.or(given.and_then(|p| p.invalid)).unwrap_or_default(),
            answer: self.answer.clone().or(given.and_then(|p| p.answer.clone())),
            auth,
            handshake: self.handshake.iter().cloned().chain(handshakes).collect(),
            map: merge(self.map.clone(), rules, self.map_after.clone()),
        })
    }

    /// Resolves the secrets and compiles the mapping.
    pub fn compile(self) -> Result<Source, SourceConfigError> {
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
        let path = self.path.unwrap_or_else(|| format!("/webhooks/{}", self.name));
        if !path.starts_with('/') {
            return Err(format!("has the path {path:?}: it must begin with '/'"));
        }
        let (mut auth, preset) = match (self.auth, preset) {
            (Some(own), preset) => (own, preset),
            (None, Some(preset)) => (preset.auth.clone(), Some(preset)),
            (None, None) => return Err("says neither `preset` nor `auth`: how are its requests signed?".to_owned()),
        };
        if let Some(tolerance) = self.tolerance {
            auth.list_mut()
                .iter_mut()
                .for_each(|scheme| scheme.set_tolerance(tolerance));
        }
        let (given, given_handshakes) = match &preset {
            Some(preset) => (preset.map.clone(), preset.handshake.clone()),
            None => (Vec::new(), Vec::new()),
        };
        let rules = merge(self.map, given, self.map_after);
        if rules.is_empty() && preset.is_none() {
            return Err("has no mapping: add [[sources.map]], or a preset".to_owned());
        }
        let each = self.each.or_else(|| preset.as_ref()?.each.clone());
        let handshakes: Vec<HandshakeConfig> = self.handshake.into_iter().chain(given_handshakes).collect();
        let certificates = Certificates::provisioned(&self.certificates, self.certificate_roots.as_deref())?;
        let mut mapping = Mapping::compile(&rules, each.as_deref())?;
        let handshakes = handshake::compile(&handshakes, mapping.trees())?;
        let auth = Auth::compile(
            auth.list(),
            &self.secrets,
            self.url.as_deref(),
            &certificates,
            self.allow_from,
            &mut mapping.trees().item,
        )?;
        let preset = preset.as_ref();
        Ok(Source {
            preset: self.preset,
            auth,
            certificates,
            mapping,
            handshakes,
            path,
            wants_json: self
                .require_json
                .or(preset.and_then(|p| p.require_json))
                .unwrap_or(true),
            rate_limit: self.rate_limit,
            answer: self.answer.or_else(|| preset?.answer.clone()),
            unmapped: self.unmapped.or(preset.and_then(|p| p.unmapped)).unwrap_or_default(),
            invalid: self.invalid.or(preset.and_then(|p| p.invalid)).unwrap_or_default(),
            name: self.name,
        })
    }
}

/// The user's rules, the preset's with the user's changes, and the user's later ones.
fn merge(own: Vec<RuleConfig>, mut given: Vec<RuleConfig>, after: Vec<RuleConfig>) -> Vec<RuleConfig> {
    let mut rules = Vec::with_capacity(own.len() + given.len() + after.len());
    for rule in own {
        let same = |g: &&mut RuleConfig| rule.name.is_some() && g.name == rule.name;
        match given.iter_mut().find(same) {
            Some(of_preset) => *of_preset = std::mem::take(of_preset).changed_by(rule),
            None => rules.push(rule),
        }
    }
    rules.extend(given);
    rules.extend(after);
    rules
}
