//! Sources: who may send what, and what it means. Pure: a request's headers and body go in, events come out.
//!
//! A source is written declaratively, see [`SourceConfig`]; presets are such texts, compiled in. Compiling a source
//! resolves its secrets and turns its mapping into a form that reads a body in one pass.

mod auth;
mod config;
mod expr;
mod mapping;
mod money;
mod time;
mod tree;

use std::borrow::Cow;
use std::num::NonZero;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use hookmill_schema::Kind;

pub use auth::AuthError;
pub use config::{MapConfig, RateLimit, SourceConfig, SourceConfigError};

use auth::Hmac;
use mapping::Mapping;

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
    /// Events to publish.
    Accepted(Vec<Accepted>),
    /// No mapping wants it.
    Ignored {
        /// The provider's word for it, if it says one.
        event_type: Option<String>,
    },
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

/// All sources of a process.
#[derive(Debug, Default)]
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

    /// Every source.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.0.iter()
    }
}

/// A compiled source.
#[derive(Debug)]
pub struct Source {
    name: String,
    path: String,
    wants_json: bool,
    rate_limit: Option<RateLimit>,
    auth: Hmac,
    mapping: Mapping,
}

impl Source {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path that its webhooks are posted to.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether a request must say that it is JSON.
    pub fn wants_json(&self) -> bool {
        self.wants_json
    }

    /// How much it may send.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        self.rate_limit
    }

    /// Verifies a webhook, then maps it; `now` is when it arrived. What was verified is what is mapped: the same bytes.
    pub fn receive<H: HeaderLookup + ?Sized>(
        &self,
        headers: &H,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Received, Refusal> {
        self.verify(headers, body, now)?;
        self.map(headers, body, now)
    }

    /// Whether the request was signed with one of the source's secrets, just now.
    pub fn verify<H: HeaderLookup + ?Sized>(
        &self,
        headers: &H,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), AuthError> {
        self.auth.verify(headers, body, now)
    }

    /// The event that a verified request means.
    pub fn map<H: HeaderLookup + ?Sized>(
        &self,
        headers: &H,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<Received, Refusal> {
        self.mapping.map(&self.name, headers, body, now)
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
