//! What is signed: a template of the request's parts, compiled once.

use std::borrow::Cow;

use super::required;
use crate::sources::{AuthError, HeaderLookup, Incoming};

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
    /// Compiles `text`; `url` is what `{url}` stands for. Fails if the body is no part of it.
    pub(super) fn compile(text: &str, url: Option<&str>) -> Result<Self, String> {
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
                "crc32" => Part::Crc32,
                "timestamp" => Part::Timestamp,
                "secret" => Part::Secret,
                "url" => Part::Text(
                    url.ok_or("the provider signs the URL it posts to: set `url` to it, as registered there")?
                        .to_owned(),
                ),
                _ => match name.strip_prefix("header:") {
                    Some(header) if !header.is_empty() => Part::Header(header.to_ascii_lowercase()),
                    _ => {
                        return Err(format!(
                            "auth.content: {{{name}}} is unknown; use {{body}}, {{crc32}}, {{timestamp}}, {{url}}, {{secret}} or {{header:NAME}}"
                        ));
                    }
                },
            });
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if !parts.iter().any(|part| matches!(part, Part::Body | Part::Crc32)) {
            return Err("auth.content has no {body}: the body would not be protected".to_owned());
        }
        Ok(Self(parts))
    }

    pub(super) fn has(&self, part: &Part) -> bool {
        self.0.contains(part)
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
            match part {
                Part::Text(text) => take(text.as_bytes()),
                Part::Body => take(request.body),
                Part::Crc32 => take(crc32fast::hash(request.body).to_string().as_bytes()),
                Part::Timestamp => take(timestamp.unwrap_or_default().as_bytes()),
                Part::Secret => take(secret.as_bytes()),
                Part::Header(name) => take(required(request.headers, name)?.as_bytes()),
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
