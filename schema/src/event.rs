//! The event on Kafka: a CloudEvents 1.0 JSON event in structured mode
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>).

mod new;

use std::borrow::Cow;
use std::fmt;

use chrono::DateTime;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;

use crate::kind::{Kind, Status};
use crate::record::{Record, Span};
use new::DATA;
pub use new::NewEvent;

/// An event as it was read: all texts are parts of its record's one buffer.
#[derive(Clone, Debug)]
pub struct Event {
    record: Record,
    kind: Kind,
    status: Status,
    pub(crate) source: Span,
    pub(crate) event_id: Span,
    pub(crate) event_type: Span,
    pub(crate) user_id: Span,
    pub(crate) order_id: Option<Span>,
    pub(crate) dispute_id: Option<Span>,
    pub(crate) provider_status: Option<Span>,
    pub(crate) currency: Option<Span>,
    payload: Span,
    amount_minor: Option<i64>,
    entity_version: Option<i64>,
    occurred_at_us: i64,
    received_at_us: i64,
}

/// Why a record is no event. The message never quotes the record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A tombstone, or nothing at all.
    #[error("the record has no value")]
    NoValue,
    /// Not a CloudEvent in JSON.
    #[error("the value is no CloudEvent in JSON: {0}")]
    NotJson(String),
    /// An attribute that every event must have.
    #[error("attribute {0:?} is missing or empty")]
    Missing(&'static str),
    /// An attribute that says something else than it may.
    #[error("attribute {attribute:?} {why}")]
    Wrong {
        /// Which one.
        attribute: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Text that is borrowed where it has no escapes, also inside an `Option`, where serde's own `Cow` would copy.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(V)
    }
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    specversion: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    source: Option<Text<'a>>,
    #[serde(borrow)]
    r#type: Option<Text<'a>>,
    #[serde(borrow)]
    time: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    userid: Option<Text<'a>>,
    #[serde(borrow)]
    orderid: Option<Text<'a>>,
    #[serde(borrow)]
    disputeid: Option<Text<'a>>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    #[serde(borrow)]
    providerstatus: Option<Text<'a>>,
    #[serde(borrow)]
    amountminor: Option<Text<'a>>,
    #[serde(borrow)]
    currency: Option<Text<'a>>,
    #[serde(borrow)]
    entityversion: Option<Text<'a>>,
    #[serde(borrow)]
    receivedtime: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// `null` is data as well.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A text's place: in the value, or to be kept beside it because it was escaped there.
enum Place {
    Inside(Span),
    Beside(String),
}

struct Parsed {
    texts: [Option<Place>; 8],
    payload: Span,
    status: Status,
    amount_minor: Option<i64>,
    entity_version: Option<i64>,
    occurred_at_us: i64,
    received_at_us: Option<i64>,
}

impl Event {
    /// Reads an event of `kind` from a record; the record comes back if it is none. `data` is not parsed, only stepped over.
    pub fn decode(mut record: Record, kind: Kind) -> Result<Event, (Record, DecodeError)> {
        let parsed = match parse(&record, kind) {
            Ok(parsed) => parsed,
            Err(error) => return Err((record, error)),
        };
        let [
            source,
            event_id,
            event_type,
            user_id,
            order_id,
            dispute_id,
            provider_status,
            currency,
        ] = parsed.texts.map(|place| {
            place.map(|place| match place {
                Place::Inside(span) => span,
                Place::Beside(text) => record.keep(&text),
            })
        });
        let received_at_us = parsed
            .received_at_us
            .or(record.timestamp_ms.map(|ms| ms * 1000))
            .unwrap_or(parsed.occurred_at_us);
        Ok(Event {
            kind,
            status: parsed.status,
            source: source.unwrap_or_default(),
            event_id: event_id.unwrap_or_default(),
            event_type: event_type.unwrap_or_default(),
            user_id: user_id.unwrap_or_default(),
            order_id,
            dispute_id,
            provider_status,
            currency,
            payload: parsed.payload,
            amount_minor: parsed.amount_minor,
            entity_version: parsed.entity_version,
            occurred_at_us: parsed.occurred_at_us,
            received_at_us,
            record,
        })
    }

    /// The record it was read from.
    pub fn record(&self) -> &Record {
        &self.record
    }
    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// The configured sender.
    pub fn source(&self) -> &str {
        self.record.text(self.source)
    }
    /// Stable over redeliveries.
    pub fn event_id(&self) -> &str {
        self.record.text(self.event_id)
    }
    /// The provider's word for what happened.
    pub fn event_type(&self) -> &str {
        self.record.text(self.event_type)
    }
    /// The user's key.
    pub fn user_id(&self) -> &str {
        self.record.text(self.user_id)
    }
    /// The order.
    pub fn order_id(&self) -> Option<&str> {
        self.order_id.map(|span| self.record.text(span))
    }
    /// The dispute.
    pub fn dispute_id(&self) -> Option<&str> {
        self.dispute_id.map(|span| self.record.text(span))
    }
    /// A text's bytes, for whoever only hands them on.
    pub(crate) fn raw(&self, span: Span) -> &[u8] {
        self.record.bytes(span)
    }
    /// The bytes of a text that may be missing.
    pub(crate) fn raw_option(&self, span: Option<Span>) -> Option<&[u8]> {
        span.map(|span| self.record.bytes(span))
    }
    /// What names the entity whose state this event changes: bytes compare as texts do.
    pub(crate) fn entity(&self) -> (&[u8], &[u8]) {
        let id = match self.kind {
            Kind::Order => self.order_id,
            Kind::Dispute => self.dispute_id,
        };
        (self.raw(self.source), self.raw_option(id).unwrap_or_default())
    }
    /// Canonical state.
    pub fn status(&self) -> Status {
        self.status
    }
    /// The provider's own word for the state.
    pub fn provider_status(&self) -> Option<&str> {
        self.provider_status.map(|span| self.record.text(span))
    }
    /// In the currency's minor unit.
    pub fn amount_minor(&self) -> Option<i64> {
        self.amount_minor
    }
    /// ISO 4217.
    pub fn currency(&self) -> Option<&str> {
        self.currency.map(|span| self.record.text(span))
    }
    /// Grows with every change, where the provider counts.
    pub fn entity_version(&self) -> Option<i64> {
        self.entity_version
    }
    /// When it happened, in µs since 1970.
    pub fn occurred_at_us(&self) -> i64 {
        self.occurred_at_us
    }
    /// When we got it, in µs since 1970.
    pub fn received_at_us(&self) -> i64 {
        self.received_at_us
    }
    /// The provider's body, byte for byte.
    pub fn payload(&self) -> &[u8] {
        self.record.bytes(self.payload)
    }
    /// What decides which of two events of one entity is the later state.
    pub fn state_key(&self) -> (i64, i64, i16, &str) {
        (
            self.entity_version.unwrap_or(-1),
            self.occurred_at_us,
            self.kind.rank(self.status),
            self.event_id(),
        )
    }
}

fn parse(record: &Record, kind: Kind) -> Result<Parsed, DecodeError> {
    let value = record.value().ok_or(DecodeError::NoValue)?;
    let read: Read<'_> = serde_json::from_slice(value).map_err(|e| DecodeError::NotJson(e.to_string()))?;
    let place = |text: Text<'_>| match text.0 {
        Cow::Borrowed(part) => Place::Inside(record.span_of(part)),
        Cow::Owned(text) => Place::Beside(text),
    };
    let wanted = |text: Option<Text<'_>>, name| match text {
        Some(text) if !text.0.is_empty() => Ok(Some(place(text))),
        Some(_) | None => Err(DecodeError::Missing(name)),
    };
    let optional = |text: Option<Text<'_>>| text.filter(|t| !t.0.is_empty()).map(place);
    let is = |text: &Option<Text<'_>>, expected: &str| text.as_ref().is_some_and(|t| t.0 == expected);
    if !is(&read.specversion, "1.0") {
        return Err(DecodeError::Wrong {
            attribute: "specversion",
            why: "is not \"1.0\"",
        });
    }
    if !is(&read.kind, kind.as_str()) {
        return Err(DecodeError::Wrong {
            attribute: "kind",
            why: "is not that of this topic",
        });
    }
    let status = read.status.as_ref().ok_or(DecodeError::Missing("status"))?;
    let status = kind.status(&status.0).unwrap_or(Status::Unknown);
    let occurred_at_us = time(read.time.as_ref(), "time")?.ok_or(DecodeError::Missing("time"))?;
    let data = read.data.ok_or(DecodeError::Missing("data"))?;
    let texts = [
        wanted(read.source, "source")?,
        wanted(read.id, "id")?,
        wanted(read.r#type, "type")?,
        wanted(read.userid, "userid")?,
        match kind {
            Kind::Order => wanted(read.orderid, "orderid")?,
            Kind::Dispute => optional(read.orderid),
        },
        match kind {
            Kind::Order => optional(read.disputeid),
            Kind::Dispute => wanted(read.disputeid, "disputeid")?,
        },
        optional(read.providerstatus),
        optional(read.currency),
    ];
    Ok(Parsed {
        texts,
        payload: record.span_of(body(value, data.get())),
        status,
        amount_minor: integer(read.amountminor.as_ref(), "amountminor")?,
        entity_version: integer(read.entityversion.as_ref(), "entityversion")?,
        occurred_at_us,
        received_at_us: time(read.receivedtime.as_ref(), "receivedtime")?,
    })
}

/// The body with the white space around it, where our own encoder put it; JSON itself does not count that to `data`, but
/// the provider's signature does.
fn body<'a>(value: &'a [u8], data: &'a str) -> &'a str {
    let start = data.as_ptr() as usize - value.as_ptr() as usize;
    let is_space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let before = value[..start].iter().rev().take_while(|b| is_space(b)).count();
    let end = start + data.len();
    let after = value[end..].iter().take_while(|b| is_space(b)).count();
    let ours = value[..start - before].ends_with(DATA) && value[end + after..] == *b"}";
    let exact = &value[start - before..end + after];
    if ours {
        std::str::from_utf8(exact).unwrap_or(data)
    } else {
        data
    }
}

fn time(text: Option<&Text<'_>>, attribute: &'static str) -> Result<Option<i64>, DecodeError> {
    let Some(text) = text else { return Ok(None) };
    let at = DateTime::parse_from_rfc3339(&text.0).map_err(|_| DecodeError::Wrong {
        attribute,
        why: "is no RFC 3339 time",
    })?;
    Ok(Some(at.timestamp_micros()))
}

fn integer(text: Option<&Text<'_>>, attribute: &'static str) -> Result<Option<i64>, DecodeError> {
    let Some(text) = text else { return Ok(None) };
    text.0.parse().map(Some).map_err(|_| DecodeError::Wrong {
        attribute,
        why: "is no integer of 64 bits in decimal",
    })
}

#[cfg(test)]
mod tests;
