//! Signatures of the HMAC family, as one declarative form: where the signature stands, how it is written, and what is signed.

use chrono::{DateTime, Utc};
use hmac::Mac;
use secrecy::{ExposeSecret, SecretString};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::config::{Algorithm, AuthConfig, Encoding, SecretEncoding};
use super::{HeaderLookup, Lookup};

/// Why a request is not authentic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A header that the scheme needs is not there.
    #[error("the header {header} is missing")]
    Missing {
        /// Which one.
        header: String,
    },
    /// A header that the scheme needs is there twice, or not in the scheme's form.
    #[error("the header {header} is not in the form this source signs with")]
    Malformed {
        /// Which one.
        header: String,
    },
    /// No signature in the request was made with a secret of this source.
    #[error("the signature does not match")]
    Wrong,
    /// Signed longer ago than the source tolerates.
    #[error("the signature is {seconds} s old, more than this source tolerates")]
    TooOld {
        /// Its age.
        seconds: i64,
    },
    /// Signed in the future.
    #[error("the signature is {seconds} s ahead of the clock here, more than this source tolerates")]
    TooFarAhead {
        /// How far.
        seconds: i64,
    },
}

/// A keyed MAC: the key's schedule is computed once, and copied for every request.
#[derive(Clone)]
enum Keyed {
    Sha1(hmac::Hmac<Sha1>),
    Sha256(hmac::Hmac<Sha256>),
    Sha512(hmac::Hmac<Sha512>),
}

impl Keyed {
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Sha1 => Keyed::Sha1(hmac::Hmac::new_from_slice(key).ok()?),
            Algorithm::Sha256 => Keyed::Sha256(hmac::Hmac::new_from_slice(key).ok()?),
            Algorithm::Sha512 => Keyed::Sha512(hmac::Hmac::new_from_slice(key).ok()?),
        })
    }

    fn update(&mut self, part: &[u8]) {
        match self {
            Keyed::Sha1(mac) => mac.update(part),
            Keyed::Sha256(mac) => mac.update(part),
            Keyed::Sha512(mac) => mac.update(part),
        }
    }

    /// In constant time.
    fn matches(&self, signature: &[u8]) -> bool {
        match self.clone() {
            Keyed::Sha1(mac) => mac.verify_slice(signature).is_ok(),
            Keyed::Sha256(mac) => mac.verify_slice(signature).is_ok(),
            Keyed::Sha512(mac) => mac.verify_slice(signature).is_ok(),
        }
    }
}

/// A piece of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Body,
    Timestamp,
    Header(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TimestampAt {
    Header(String),
    /// An item of the signature's header that begins so.
    Item(String),
}

/// A compiled HMAC scheme with its keys.
pub(super) struct Hmac {
    header: String,
    separator: Option<char>,
    prefix: String,
    encoding: Encoding,
    content: Vec<Part>,
    timestamp: Option<TimestampAt>,
    tolerance_s: i64,
    keys: Vec<Keyed>,
}

impl std::fmt::Debug for Hmac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hmac")
            .field("header", &self.header)
            .field("secrets", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// Most items that are looked at in a signature's header; providers send one or two, and one more while they rotate.
const MOST_ITEMS: usize = 16;

impl Hmac {
    /// Compiles a scheme. `url` is what `{url}` stands for.
    pub(super) fn compile(config: &AuthConfig, url: Option<&str>, secrets: &[SecretString]) -> Result<Self, String> {
        let content = template(&config.content, url)?;
        let timestamp = match config.timestamp.as_deref() {
            None => None,
            Some(at) => Some(match at.split_once(':') {
                Some(("header", name)) => TimestampAt::Header(name.to_ascii_lowercase()),
                Some(("item", prefix)) => TimestampAt::Item(prefix.to_owned()),
                _ => {
                    return Err(format!(
                        "auth.timestamp = {at:?}: use \"header:NAME\" or \"item:PREFIX\""
                    ));
                }
            }),
        };
        if content.contains(&Part::Timestamp) && timestamp.is_none() {
            return Err("auth.content has {timestamp}, but auth.timestamp does not say where it stands".to_owned());
        }
        if !content.contains(&Part::Body) {
            return Err("auth.content has no {body}: the body would not be protected".to_owned());
        }
        let mut keys = Vec::with_capacity(secrets.len());
        for (i, secret) in secrets.iter().enumerate() {
            let key = key_bytes(secret.expose_secret(), config).ok_or_else(|| {
                format!(
                    "secrets[{i}] is not {}: copy it from the provider again",
                    describe(config.secret_encoding)
                )
            })?;
            keys.extend(Keyed::new(config.algorithm, &key));
        }
        Ok(Self {
            header: config.header.to_ascii_lowercase(),
            separator: config.separator,
            prefix: config.prefix.clone(),
            encoding: config.encoding,
            content,
            timestamp,
            tolerance_s: i64::try_from(config.tolerance.as_secs()).unwrap_or(i64::MAX),
            keys,
        })
    }

    /// Verifies the signature first and its age after that, so that a stranger learns nothing from the difference.
    pub(super) fn verify<H: HeaderLookup + ?Sized>(
        &self,
        headers: &H,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), AuthError> {
        let line = required(headers, &self.header)?;
        let timestamp = match &self.timestamp {
            None => None,
            Some(TimestampAt::Header(name)) => Some(required(headers, name)?.trim()),
            Some(TimestampAt::Item(prefix)) => Some(
                self.items(line)
                    .find_map(|item| item.strip_prefix(prefix.as_str()))
                    .ok_or_else(|| malformed(&self.header))?,
            ),
        };
        let signatures: Vec<Vec<u8>> = self
            .items(line)
            .filter_map(|item| item.strip_prefix(self.prefix.as_str()))
            .filter_map(|text| self.decode(text))
            .collect();
        if signatures.is_empty() {
            return Err(malformed(&self.header));
        }
        let mut right = false;
        for key in &self.keys {
            let mut mac = key.clone();
            for part in &self.content {
                match part {
                    Part::Text(text) => mac.update(text.as_bytes()),
                    Part::Body => mac.update(body),
                    Part::Timestamp => mac.update(timestamp.unwrap_or_default().as_bytes()),
                    Part::Header(name) => mac.update(required(headers, name)?.as_bytes()),
                }
            }
            // All are compared, so the time does not tell which one it was.
            for signature in &signatures {
                right |= mac.matches(signature);
            }
        }
        if !right {
            return Err(AuthError::Wrong);
        }
        timestamp.map_or(Ok(()), |text| self.check_age(text, now))
    }

    fn check_age(&self, text: &str, now: DateTime<Utc>) -> Result<(), AuthError> {
        let signed_at: i64 = text.parse().map_err(|_| malformed(&self.header))?;
        let age = now.timestamp().saturating_sub(signed_at);
        if age > self.tolerance_s {
            Err(AuthError::TooOld { seconds: age })
        } else if age < -self.tolerance_s {
            Err(AuthError::TooFarAhead { seconds: -age })
        } else {
            Ok(())
        }
    }

    fn items<'a>(&self, line: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        let separator = self.separator;
        line.split(move |c| Some(c) == separator)
            .map(str::trim)
            .take(MOST_ITEMS)
    }

    fn decode(&self, text: &str) -> Option<Vec<u8>> {
        use base64::Engine as _;
        match self.encoding {
            Encoding::Hex => hex::decode(text).ok(),
            Encoding::Base64 => base64::engine::general_purpose::STANDARD.decode(text).ok(),
        }
    }
}

fn malformed(header: &str) -> AuthError {
    AuthError::Malformed {
        header: header.to_owned(),
    }
}

fn required<'a, H: HeaderLookup + ?Sized>(headers: &'a H, name: &str) -> Result<&'a str, AuthError> {
    match headers.lookup(name) {
        Lookup::One(value) => std::str::from_utf8(value)
            .ok()
            .filter(|v| !v.trim().is_empty())
            .ok_or_else(|| malformed(name)),
        Lookup::Missing => Err(AuthError::Missing {
            header: name.to_owned(),
        }),
        Lookup::Many => Err(malformed(name)),
    }
}

fn key_bytes(secret: &str, config: &AuthConfig) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let text = secret.strip_prefix(config.secret_prefix.as_str()).unwrap_or(secret);
    let key = match config.secret_encoding {
        SecretEncoding::Raw => Some(text.as_bytes().to_vec()),
        SecretEncoding::Hex => hex::decode(text).ok(),
        SecretEncoding::Base64 => base64::engine::general_purpose::STANDARD.decode(text).ok(),
    };
    key.filter(|key| !key.is_empty())
}

fn describe(encoding: SecretEncoding) -> &'static str {
    match encoding {
        SecretEncoding::Raw => "a text",
        SecretEncoding::Hex => "hexadecimal",
        SecretEncoding::Base64 => "base64",
    }
}

fn template(text: &str, url: Option<&str>) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let (name, behind) = after
            .split_once('}')
            .ok_or_else(|| format!("auth.content = {text:?} has a brace that is not closed"))?;
        parts.push(match name {
            "body" => Part::Body,
            "timestamp" => Part::Timestamp,
            "url" => Part::Text(
                url.ok_or("the provider signs the URL it posts to: set `url` to it, as registered there")?
                    .to_owned(),
            ),
            _ => match name.strip_prefix("header:") {
                Some(header) => Part::Header(header.to_ascii_lowercase()),
                None => {
                    return Err(format!(
                        "auth.content: {{{name}}} is unknown; use {{body}}, {{timestamp}}, {{url}} or {{header:NAME}}"
                    ));
                }
            },
        });
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}
