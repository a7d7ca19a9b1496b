//! Where a signature stands: a header, of one item or several, with the time of signing beside it.

use base64::Engine as _;
use chrono::{DateTime, Utc};

use super::{malformed, required};
use crate::sources::config::{Encoding, Fault, SignatureConfig, Under, meant};
use crate::sources::{AuthError, HeaderLookup};

#[derive(Clone, Debug, PartialEq, Eq)]
enum TimestampAt {
    Header(String),
    /// An item of the signature's header that begins so.
    Item(String),
}

/// How signatures are found in a request.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    header: String,
    separator: Option<char>,
    prefix: String,
    encoding: Encoding,
    timestamp: Option<TimestampAt>,
    tolerance_s: i64,
    /// Bytes of a signature.
    length: usize,
}

/// What a request says of its signature.
#[derive(Debug)]
pub(super) struct Claimed<'a> {
    pub(super) signatures: Vec<Vec<u8>>,
    pub(super) timestamp: Option<&'a str>,
}

/// Most items that are looked at in a signature's header; providers send one or two, and one more while they rotate.
const MOST_ITEMS: usize = 8;

impl Envelope {
    /// Compiles the form of a signature that has `length` bytes.
    pub(super) fn compile(config: &SignatureConfig, length: usize) -> Result<Self, Fault> {
        let timestamp = config
            .timestamp
            .as_deref()
            .map(timestamp_at)
            .transpose()
            .under("timestamp")?;
        if config.header.is_empty() {
            return Err("has no name of a header: where does the signature stand?").under("header");
        }
        Ok(Self {
            header: config.header.to_ascii_lowercase(),
            separator: config.separator,
            prefix: config.prefix.clone(),
            encoding: config.encoding,
            timestamp,
            tolerance_s: i64::try_from(config.tolerance.as_secs()).unwrap_or(i64::MAX),
            length,
        })
    }

    /// The header that says the time, in lower case; that it is signed has been checked.
    pub(super) fn timestamp_header(&self) -> Option<&str> {
        match &self.timestamp {
            Some(TimestampAt::Header(name)) => Some(name),
            Some(TimestampAt::Item(_)) | None => None,
        }
    }

    /// The signatures in a request, and the time that they speak of.
    pub(super) fn open<'a, H: HeaderLookup + ?Sized>(&self, headers: &'a H) -> Result<Claimed<'a>, AuthError> {
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
            .filter_map(|text| decode(self.encoding, text, self.length))
            .collect();
        if signatures.is_empty() {
            return Err(malformed(&self.header));
        }
        Ok(Claimed { signatures, timestamp })
    }

    /// Checks the age of a signature that was found right: a stranger learns nothing from it.
    pub(super) fn check_age(&self, timestamp: Option<&str>, now: DateTime<Utc>) -> Result<(), AuthError> {
        let Some(text) = timestamp else { return Ok(()) };
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
        // No header has a NUL: without a separator it is one item.
        line.split(self.separator.unwrap_or('\0'))
            .map(str::trim)
            .take(MOST_ITEMS)
    }
}

fn timestamp_at(text: &str) -> Result<TimestampAt, String> {
    match text.split_once(':') {
        Some(("header", name)) if !name.is_empty() => Ok(TimestampAt::Header(name.to_ascii_lowercase())),
        Some(("item", prefix)) if !prefix.is_empty() => Ok(TimestampAt::Item(prefix.to_owned())),
        other => {
            let word = other.map_or(text, |(word, _)| word);
            let meant = meant(word, ["header", "item"].into_iter().filter(|known| *known != word));
            Err(format!(
                "has auth.timestamp = {text:?}{meant}: use \"header:NAME\" or \"item:PREFIX\""
            ))
        }
    }
}

/// The bytes of a signature, if it is written as it should be. Each signature has one way to be written, so that nothing but what
/// the provider sent is taken; and what is far longer than the `length` bytes that it should have is not decoded at all.
pub(super) fn decode(encoding: Encoding, text: &str, length: usize) -> Option<Vec<u8>> {
    if text.is_empty() || text.len() > 4 * length {
        return None;
    }
    match encoding {
        Encoding::Hex if text.bytes().any(|b| b.is_ascii_uppercase()) => None,
        Encoding::HexUpper if text.bytes().any(|b| b.is_ascii_lowercase()) => None,
        Encoding::Hex | Encoding::HexUpper => hex::decode(text).ok(),
        Encoding::Base64 if !text.len().is_multiple_of(4) => None,
        Encoding::Base64 => base64::engine::general_purpose::STANDARD.decode(text).ok(),
    }
}

/// A signature as it is written.
pub(super) fn encode(encoding: Encoding, signature: &[u8]) -> String {
    match encoding {
        Encoding::Hex => hex::encode(signature),
        Encoding::HexUpper => hex::encode_upper(signature),
        Encoding::Base64 => base64::engine::general_purpose::STANDARD.encode(signature),
    }
}

impl Envelope {
    /// The headers that say `signature`, made at `time`.
    pub(super) fn seal(&self, signature: &[u8], time: &str) -> Vec<(String, String)> {
        let signature = format!("{}{}", self.prefix, encode(self.encoding, signature));
        match &self.timestamp {
            None => vec![(self.header.clone(), signature)],
            Some(TimestampAt::Header(name)) => {
                vec![(name.clone(), time.to_owned()), (self.header.clone(), signature)]
            }
            Some(TimestampAt::Item(prefix)) => {
                let separator = self.separator.unwrap_or(',');
                vec![(self.header.clone(), format!("{prefix}{time}{separator}{signature}"))]
            }
        }
    }
}
