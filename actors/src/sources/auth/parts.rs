//! What is signed: a template of the request's parts, compiled once.

use std::borrow::Cow;

use super::required;
use crate::sources::config::{Fault, SignatureConfig, Under, meant};
use crate::sources::{AuthError, HeaderLookup, Incoming, Lookup};

const NO_URL: &str = "signs the URL it posts to: set `url` to it, exactly as registered with the provider";

/// A piece of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Body,
    /// The CRC-32 of the body, in decimal.
    Crc32,
    Timestamp,
    /// The secret itself, where it is no key but a part.
    Secret,
    Header(String),
}

/// A compiled template.
#[derive(Clone, Debug)]
pub(super) struct Content(Vec<Part>);

impl Content {
    /// Compiles what a signature is made over; `url` is what `{url}` stands for.
    pub(super) fn of_signature(config: &SignatureConfig, url: Option<&str>) -> Result<Self, Fault> {
        let content = Self::compile(&config.content, url)?;
        if content.0.contains(&Part::Timestamp) && config.timestamp.is_none() {
            return Err("has {timestamp} in auth.content, but auth.timestamp does not say where it stands")
                .under("content");
        }
        if let Some(place) = &config.timestamp
            && !content.signs_time(place)
        {
            return Err("does not have {timestamp} in auth.content: a time that is not signed proves no age, as anybody could send an old request with a new one. Add it as the sender signs it, or leave auth.timestamp out")
                .under("content");
        }
        if content.0.contains(&Part::Secret) {
            return Err("has {secret} in auth.content: it is the key, and no part of what is signed").under("content");
        }
        Ok(content)
    }

    /// Whether the time that stands at `place` is part of what is signed, by this name or as the header that it is.
    fn signs_time(&self, place: &str) -> bool {
        self.0.iter().any(|part| match part {
            Part::Timestamp => true,
            Part::Header(name) => place
                .strip_prefix("header:")
                .is_some_and(|header| header.trim().eq_ignore_ascii_case(name)),
            Part::Text(_) | Part::Body | Part::Crc32 | Part::Secret => false,
        })
    }

    /// Compiles `text`. Fails if the body is no part of it.
    pub(super) fn compile(text: &str, url: Option<&str>) -> Result<Self, Fault> {
        Self::parse(text, url).map_err(|fault| match fault.why.as_str() {
            // This is missing elsewhere.
            NO_URL => fault,
            _ => Fault {
                path: vec!["content".to_owned()],
                ..fault
            },
        })
    }

    /// The headers that are named in it, in lower case.
    pub(super) fn headers(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Header(name) => Some(name.as_str()),
            Part::Text(_) | Part::Body | Part::Crc32 | Part::Timestamp | Part::Secret => None,
        })
    }

    fn parse(text: &str, url: Option<&str>) -> Result<Self, Fault> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (name, behind) = after
                .split_once('}')
                .ok_or_else(|| format!("has auth.content = {text:?} with a brace that is not closed"))?;
            parts.push(match name {
                "body" => Part::Body,
                "crc32" => Part::Crc32,
                "timestamp" => Part::Timestamp,
                "secret" => Part::Secret,
                "url" => Part::Text(
                    url.ok_or(NO_URL)?.to_owned(),
                ),
                _ => match name.strip_prefix("header:") {
                    Some(header) if !header.is_empty() => Part::Header(header.to_ascii_lowercase()),
                    _ => {
                        const KNOWN: [&str; 6] = ["body", "crc32", "timestamp", "url", "secret", "header:NAME"];
                        let meant = meant(name, KNOWN.into_iter());
                        return Err(format!(
                            "has {{{name}}} in auth.content, which is unknown{meant}; use {{body}}, {{crc32}}, {{timestamp}}, {{url}}, {{secret}} or {{header:NAME}}"
                        ).into());
                    }
                },
            });
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if !parts.iter().any(|part| matches!(part, Part::Body | Part::Crc32)) {
            return Err("has auth.content without {body}: the body would not be protected".into());
        }
        Ok(Self(parts))
    }

    /// Gives each piece to `take`, in order.
    pub(super) fn feed<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
        timestamp: Option<&str>,
        secret: &str,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), AuthError> {
        for part in &self.0 {
            Self::feed_one(part, request, timestamp, secret, &mut take)?;
        }
        Ok(())
    }

    fn feed_one<H: HeaderLookup + ?Sized>(
        part: &Part,
        request: &Incoming<'_, H>,
        timestamp: Option<&str>,
        secret: &str,
        take: &mut impl FnMut(&[u8]),
    ) -> Result<(), AuthError> {
        match part {
            Part::Text(text) => take(text.as_bytes()),
            Part::Body => take(request.body),
            Part::Crc32 => take(crc32fast::hash(request.body).to_string().as_bytes()),
            Part::Timestamp => take(timestamp.unwrap_or_default().as_bytes()),
            Part::Secret => take(secret.as_bytes()),
            Part::Header(name) => take(required(request.headers, name)?.as_bytes()),
        }
        Ok(())
    }

    /// The same for those who sign: a header that the request lacks gets a stand-in, which is added to `made_up`.
    pub(super) fn feed_lenient<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
        timestamp: Option<&str>,
        made_up: &mut Vec<(String, String)>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), AuthError> {
        for part in &self.0 {
            match part {
                Part::Header(name) if request.headers.lookup(name) == Lookup::Missing => {
                    let stand_in = format!("test_{:016x}", rand::random::<u64>());
                    take(stand_in.as_bytes());
                    made_up.push((name.clone(), stand_in));
                }
                other => Self::feed_one(other, request, timestamp, "", &mut take)?,
            }
        }
        Ok(())
    }

    /// All of it in one piece, for schemes that sign a whole message.
    pub(super) fn whole<'a, H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'a, H>,
        timestamp: Option<&str>,
        secret: &str,
    ) -> Result<Cow<'a, [u8]>, AuthError> {
        if self.0 == [Part::Body] {
            return Ok(Cow::Borrowed(request.body));
        }
        let mut whole = Vec::with_capacity(request.body.len() + 128);
        self.feed(request, timestamp, secret, |piece| whole.extend_from_slice(piece))?;
        Ok(Cow::Owned(whole))
    }
}
