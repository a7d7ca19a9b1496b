//! Where a signature stands: a header, of one item or several, with the time of signing beside it.

use base64::Engine as _;
use chrono::{DateTime, Utc};

use super::{malformed, required};
use crate::sources::config::{Encoding, SignatureConfig};
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
}

/// What a request says of its signature.
#[derive(Debug)]
pub(super) struct Claimed<'a> {
    pub(super) signatures: Vec<Vec<u8>>,
    pub(super) timestamp: Option<&'a str>,
}

/// Most items that are looked at in a signature's header; providers send one or two, and one more while they rotate.
const MOST_ITEMS: usize = 16;

impl Envelope {
    pub(super) fn compile(config: &SignatureConfig) -> Result<Self, String> {
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
        Ok(Self {
            header: config.header.to_ascii_lowercase(),
            separator: config.separator,
            prefix: config.prefix.clone(),
            encoding: config.encoding,
            timestamp,
            tolerance_s: i64::try_from(config.tolerance.as_secs()).unwrap_or(i64::MAX),
        })
    }

    pub(super) fn has_timestamp(&self) -> bool {
        self.timestamp.is_some()
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
            .filter_map(|text| decode(self.encoding, text))
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
        let separator = self.separator;
        line.split(move |c| Some(c) == separator)
            .map(str::trim)
            .take(MOST_ITEMS)
    }
}

pub(super) fn decode(encoding: Encoding, text: &str) -> Option<Vec<u8>> {
    match encoding {
        Encoding::Hex => hex::decode(text).ok(),
        Encoding::Base64 => base64::engine::general_purpose::STANDARD.decode(text).ok(),
    }
}

impl Envelope {
    /// The headers that say `signature`, made at `time`.
    pub(super) fn seal(&self, signature: &[u8], time: &str) -> Vec<(String, String)> {
        let text = match self.encoding {
            Encoding::Hex => hex::encode(signature),
            Encoding::Base64 => base64::engine::general_purpose::STANDARD.encode(signature),
        };
        let signature = format!("{}{text}", self.prefix);
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
