//! Sources: who may send what, and what it means. Pure: a request's headers and body go in, events come out.
//!
//! A source is written declaratively, see [`SourceConfig`]; presets are such texts, compiled in. Compiling a source
//! resolves its secrets and turns its mapping into a form that reads a body in one pass.

mod auth;
mod config;
mod expr;
mod handshake;
mod json;
mod mapping;
mod money;
mod time;
mod tree;

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hookmill_schema::Kind;
use serde_json::Value;

pub use auth::{AuthError, CertificateError, Certificates};
pub(crate) use config::networks;
pub use config::{
    AnswerConfig, EffectiveSource, Invalid, RateLimit, RuleConfig, SecretConfig, ShownSecret, SourceConfig,
    SourceConfigError, Unmapped, nearest, presets,
};
pub use handshake::Answer;
pub use mapping::Traced;

use auth::{Auth, Voucher};
use expr::Request;
use handshake::Handshake;
use mapping::{Mapped, Mapping};
use tree::Found;

/// A request's method, as far as sources care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Events, and most handshakes.
    Post,
    /// Handshakes only.
    Get,
}

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a, H: ?Sized> {
    /// Its method.
    pub method: Method,
    /// What stands behind the `?` of its target.
    pub query: &'a str,
    /// Its headers.
    pub headers: &'a H,
    /// Its body.
    pub body: &'a [u8],
    /// When it came.
    pub now: DateTime<Utc>,
    /// Who sent it; `None` where that is not known, as in tools.
    pub peer: Option<IpAddr>,
}

impl<'a, H: HeaderLookup + ?Sized> Incoming<'a, H> {
    /// A POST from nobody in particular.
    pub fn post(headers: &'a H, body: &'a [u8], now: DateTime<Utc>) -> Self {
        Self {
            method: Method::Post,
            query: "",
            headers,
            body,
            now,
            peer: None,
        }
    }
}

impl<'a, H: HeaderLookup + ?Sized> Incoming<'a, H> {
    /// The same request with other headers.
    fn without<'b>(&self, headers: &'b Without<'b, H>) -> Incoming<'b, Without<'b, H>>
    where
        'a: 'b,
    {
        Incoming {
            method: self.method,
            query: self.query,
            headers,
            body: self.body,
            now: self.now,
            peer: self.peer,
        }
    }
}

/// Headers, and some that count as missing.
struct Without<'h, H: ?Sized> {
    headers: &'h H,
    missing: &'h [String],
}

impl<'h, H: ?Sized> Without<'h, H> {
    fn new(headers: &'h H, missing: &'h [String]) -> Self {
        Self { headers, missing }
    }
}

impl<H: HeaderLookup + ?Sized> HeaderLookup for Without<'_, H> {
    fn lookup(&self, name: &str) -> Lookup<'_> {
        if self.missing.iter().any(|missing| missing == name) {
            return Lookup::Missing;
        }
        self.headers.lookup(name)
    }
}

/// The headers of a request.
pub trait HeaderLookup {
    /// The value of the header `name`, given in lower case.
    fn lookup(&self, name: &str) -> Lookup<'_>;
}

/// What a request has of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Nothing.
    Missing,
    /// One value.
    One(&'a [u8]),
    /// More than one, so that it is not clear which counts.
    Many,
}

impl HeaderLookup for [(&str, &str)] {
    fn lookup(&self, name: &str) -> Lookup<'_> {
        let mut found = self.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (None, _) => Lookup::Missing,
            (Some((_, value)), None) => Lookup::One(value.as_bytes()),
            (Some(_), Some(_)) => Lookup::Many,
        }
    }
}

/// Why a webhook is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The body is not JSON, or can be read in two ways.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// The sender is not who it should be.
    #[error(transparent)]
    Unauthorized(#[from] AuthError),
    /// A verified event that no rule wants, and the source refuses such.
    #[error("no rule takes this event{}", .event_type.as_ref().map(|t| format!(" (type {t:?})")).unwrap_or_default())]
    Unwanted {
        /// The provider's word for it, if it says one.
        event_type: Option<String>,
    },
    /// A verified event that lacks something, or says something that cannot be stored.
    #[error("field {field}: {why} (tried {})", .tried.join(", "))]
    Unmappable {
        /// The event's field.
        field: &'static str,
        /// Where it was looked for.
        tried: Vec<String>,
        /// What is wrong.
        why: String,
    },
}

/// What became of a verified webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Events to publish and to park: all or none.
    Events {
        /// For the topics of their kinds.
        accepted: Vec<Accepted>,
        /// For the topic of parked events.
        parked: Vec<Parked>,
    },
    /// No mapping wants it.
    Ignored {
        /// The provider's word for it, if it says one.
        event_type: Option<String>,
    },
    /// It was no event, and wants this answer.
    Handshake(Answer),
}

/// A verified event that is not understood, and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// `unmapped` or `invalid`.
    pub why: &'static str,
    /// For people.
    pub reason: String,
}

/// One event, ready for Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its identity within the source.
    pub id: String,
    /// Decides the topic.
    pub kind: Kind,
    /// The record's key.
    pub user_id: String,
    /// The record's value: a CloudEvent in JSON.
    pub value: Vec<u8>,
}

/// How an event came about.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Trace {
    /// The rule that took it.
    pub rule: String,
    /// Its fields.
    pub fields: Vec<Traced>,
}

/// All sources of a process.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<Arc<Source>>);

impl Sources {
    /// Compiles the configured sources; resolves their secrets.
    pub fn compile(configs: Vec<SourceConfig>) -> Result<Self, SourceConfigError> {
        let mut sources: Vec<Arc<Source>> = Vec::with_capacity(configs.len());
        for config in configs {
            let source = config.compile()?;
            if let Some(other) = sources.iter().find(|s| s.name == source.name || s.path == source.path) {
                return Err(SourceConfigError::new(
                    &source.name,
                    format!(
                        "has the name or the path ({}) of source {:?}: each needs its own",
                        source.path, other.name
                    ),
                ));
            }
            sources.push(Arc::new(source));
        }
        Ok(Self(sources))
    }

    /// Every source, to be shared.
    pub fn all(&self) -> Vec<Arc<Source>> {
        self.0.clone()
    }

    /// Every source.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.0.iter()
    }
}

/// A compiled source.
#[derive(Debug)]
pub struct Source {
    name: String,
    preset: Option<String>,
    path: String,
    wants_json: bool,
    rate_limit: Option<RateLimit>,
    timeout: Option<Duration>,
    auth: Auth,
    certificates: Certificates,
    mapping: Mapping,
    handshakes: Vec<Handshake>,
    answer: Option<AnswerConfig>,
    unmapped: Unmapped,
    invalid: Invalid,
}

impl Source {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The preset it is made of.
    pub fn preset(&self) -> Option<&str> {
        self.preset.as_deref()
    }

    /// The path that its webhooks are posted to.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether a request must say that it is JSON.
    pub fn wants_json(&self) -> bool {
        self.wants_json
    }

    /// Whether a GET may be a handshake.
    pub fn answers_get(&self) -> bool {
        self.handshakes.iter().any(Handshake::is_get)
    }

    /// Whether an unsigned request may be a handshake: then it need not say that it is JSON.
    pub fn answers_unsigned(&self) -> bool {
        self.handshakes.iter().any(|h| !h.is_signed())
    }

    /// Whether anybody may send, without a secret, and nobody said that this is meant.
    pub fn takes_from_anybody(&self) -> bool {
        self.auth.takes_from_anybody()
    }

    /// How much it may send.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.rate_limit
    }

    /// How long the provider waits for an answer, where that is known.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// What the provider waits for when its events are accepted; `None` for our own words.
    pub fn answer(&self) -> Option<&AnswerConfig> {
        self.answer.as_ref()
    }

    /// Certificates for signatures that name theirs.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Each secret's name and when it last matched; never the secret.
    pub fn secret_uses(&self) -> impl Iterator<Item = (&str, Option<DateTime<Utc>>)> {
        self.auth.uses()
    }

    /// Whether a header, named in lower case, holds a secret itself: such a one is not kept.
    pub fn reads_secret_from(&self, header: &str) -> bool {
        self.auth.carries_secret(header)
    }

    /// The same for `/stats`.
    pub fn secrets_view(&self) -> Vec<Value> {
        self.auth.view()
    }

    /// Verifies a webhook, then maps it. What was verified is what is mapped: the same bytes.
    pub fn receive<H: HeaderLookup + ?Sized>(&self, request: &Incoming<'_, H>) -> Result<Received, Refusal> {
        self.auth.allows(request.peer)?;
        let unsigned = self.handshakes.iter().filter(|h| !h.is_signed());
        if let Some(answer) = unsigned.filter_map(|h| h.answer(request, None)).next() {
            return Ok(Received::Handshake(answer));
        }
        let voucher = self.auth.verify(request)?;
        match self.auth.unsigned_headers(voucher) {
            [] => self.understand(request, voucher),
            unsigned => self.understand(&request.without(&Without::new(request.headers, unsigned)), voucher),
        }
    }

    /// Which secret vouches for the request is not told; whether one does, is.
    pub fn verify<H: HeaderLookup + ?Sized>(&self, request: &Incoming<'_, H>) -> Result<(), Refusal> {
        match self.auth.verify(request)? {
            Voucher::Items => self.mapping.walk(request.body, |item, _, _| {
                self.auth.verify_item(item, request.now)?;
                Ok(())
            }),
            Voucher::Scheme(_) | Voucher::Open => Ok(()),
        }
    }

    /// What a request means whose signature does not matter: for tools, and for what was verified before.
    pub fn map<H: HeaderLookup + ?Sized>(&self, request: &Incoming<'_, H>) -> Result<Received, Refusal> {
        self.understand(request, Voucher::Open)
    }

    fn understand<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
        voucher: Voucher,
    ) -> Result<Received, Refusal> {
        let (mut accepted, mut parked) = (Vec::new(), Vec::new());
        let mut ignored: Option<Option<String>> = None;
        let mut handshake = None;
        let walked = self.mapping.walk(request.body, |item, body, text| {
            if voucher == Voucher::Items {
                self.auth.verify_item(item, request.now).map_err(Refusal::from)?;
            }
            let found = Request {
                headers: request.headers,
                item,
                body,
            };
            let mut signed = self.handshakes.iter().filter(|h| h.is_signed());
            if let Some(answer) = signed.find_map(|h| h.answer(request, Some(&found))) {
                handshake = Some(answer);
                return Ok(());
            }
            match self.mapping.event(&self.name, &found, text, request.now) {
                Ok(Mapped::Event(event)) => accepted.push(event),
                Ok(Mapped::Unwanted(event_type)) => match self.unmapped {
                    Unmapped::Ack => ignored = Some(event_type),
                    Unmapped::Park => parked.push(Parked {
                        why: "unmapped",
                        reason: match event_type {
                            Some(event_type) => format!("no rule takes events of type {event_type:?}"),
                            None => "no rule takes it".to_owned(),
                        },
                    }),
                    Unmapped::Reject => return Err(Refusal::Unwanted { event_type }),
                },
                Err(refusal @ Refusal::Unmappable { .. }) if self.invalid == Invalid::Park => parked.push(Parked {
                    why: "invalid",
                    reason: refusal.to_string(),
                }),
                Err(refusal) => return Err(refusal),
            }
            Ok::<(), Refusal>(())
        });
        walked?;
        // A test among real events is passed over.
        if let Some(answer) = handshake.filter(|_| accepted.is_empty() && parked.is_empty()) {
            return Ok(Received::Handshake(answer));
        }
        match ignored {
            Some(event_type) if accepted.is_empty() && parked.is_empty() => Ok(Received::Ignored { event_type }),
            _ => Ok(Received::Events { accepted, parked }),
        }
    }

    /// For each event of a request: the rule that takes it, and which place gave each field.
    pub fn trace<H: HeaderLookup + ?Sized>(&self, request: &Incoming<'_, H>) -> Result<Vec<Option<Trace>>, Refusal> {
        let voucher = self.auth.verify(request).unwrap_or(Voucher::Open);
        match self.auth.unsigned_headers(voucher) {
            [] => self.traces(request),
            unsigned => self.traces(&request.without(&Without::new(request.headers, unsigned))),
        }
    }

    fn traces<H: HeaderLookup + ?Sized>(&self, request: &Incoming<'_, H>) -> Result<Vec<Option<Trace>>, Refusal> {
        let mut traces = Vec::new();
        self.mapping.walk(request.body, |item: &Found<'_>, body, _| {
            let found = Request {
                headers: request.headers,
                item,
                body,
            };
            let trace = self.mapping.trace(&found);
            traces.push(trace.map(|(rule, fields)| Trace {
                rule: rule.to_owned(),
                fields,
            }));
            Ok::<(), Refusal>(())
        })?;
        Ok(traces)
    }

    /// Where a request has its several events: a JSON Pointer to their array.
    pub fn each(&self) -> Option<&str> {
        self.mapping.each()
    }

    /// For each event of a request: where it carries its own signature, and the one that it should have. Nothing where events
    /// are not signed by themselves.
    pub fn item_signatures<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let mut signatures = Vec::new();
        if !self.auth.signs_items() {
            return Ok(signatures);
        }
        self.mapping.walk(request.body, |item, _, _| {
            let signature = self.auth.sign_item(item);
            signatures.extend(signature.map(|(pointer, text)| (pointer.to_owned(), text)));
            Ok::<(), Refusal>(())
        })?;
        Ok(signatures)
    }

    /// The headers that the provider would send with this body now; `None` where only the provider can sign.
    pub fn sign<H: HeaderLookup + ?Sized>(&self, request: &Incoming<'_, H>) -> Option<Vec<(String, String)>> {
        self.auth.sign(request)
    }
}

/// A text from a header; one that is not text, or there twice, is none.
fn header_text<'a, H: HeaderLookup + ?Sized>(headers: &'a H, name: &str) -> Option<Cow<'a, str>> {
    match headers.lookup(name) {
        Lookup::One(value) => std::str::from_utf8(value)
            .ok()
            .map(str::trim)
            .filter(|v| !v.is_empty())
            .map(Cow::Borrowed),
        Lookup::Missing | Lookup::Many => None,
    }
}

/// One for every `per_second`, where nothing else is said.
fn one() -> NonZero<u32> {
    NonZero::<u32>::MIN
}

#[cfg(test)]
mod tests;
