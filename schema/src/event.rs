//! The event on Kafka: a CloudEvents 1.0 JSON event in structured mode
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>).

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;

use crate::kind::{Kind, Status};
use crate::record::{Record, Span};

/// A verified, mapped webhook on its way into Kafka.
#[derive(Clone, Debug)]
pub struct NewEvent<'a> {
    /// The configured sender.
    pub source: &'a str,
    /// Stable over the provider's redeliveries.
    pub event_id: &'a str,
    /// Decides topic and tables.
    pub kind: Kind,
    /// The provider's word for what happened.
    pub event_type: &'a str,
    /// When it happened, by what the provider signed.
    pub occurred_at: DateTime<Utc>,
    /// The user's key: decides partition and shard.
    pub user_id: &'a str,
    /// The order; required for orders.
    pub order_id: Option<&'a str>,
    /// The dispute; required for disputes.
    pub dispute_id: Option<&'a str>,
    /// Canonical state.
    pub status: Status,
    /// The provider's own word for the state.
    pub provider_status: Option<&'a str>,
    /// In the currency's minor unit.
    pub amount_minor: Option<i64>,
    /// ISO 4217, upper case.
    pub currency: Option<&'a str>,
    /// Grows with every change of one entity, where the provider counts.
    pub entity_version: Option<i64>,
    /// When we got it.
    pub received_at: DateTime<Utc>,
    /// The provider's body: JSON that has been parsed once already; it is carried byte for byte.
    pub body: &'a str,
}

impl NewEvent<'_> {
    /// The record's value. `data` is its last member and holds the body byte for byte, white space around it included.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut envelope = Envelope(Vec::with_capacity(self.body.len() + 768));
        envelope.0.extend_from_slice(br#"{"specversion":"1.0""#);
        envelope.put(r#","id":"#, self.event_id)?;
        envelope.put(r#","source":"#, self.source)?;
        envelope.put(r#","type":"#, self.event_type)?;
        envelope.put(r#","time":"#, &rfc3339(self.occurred_at))?;
        envelope.put(
            r#","subject":"#,
            self.dispute_id.or(self.order_id).unwrap_or(self.user_id),
        )?;
        envelope.put(r#","datacontenttype":"#, "application/json")?;
        envelope.put(r#","partitionkey":"#, self.user_id)?;
        envelope.put(r#","kind":"#, self.kind.as_str())?;
        envelope.put(r#","userid":"#, self.user_id)?;
        envelope.put_some(r#","orderid":"#, self.order_id)?;
        envelope.put_some(r#","disputeid":"#, self.dispute_id)?;
        envelope.put(r#","status":"#, self.status.as_str())?;
        envelope.put_some(r#","providerstatus":"#, self.provider_status)?;
        // CloudEvents integers have 32 bits, so these two are text.
        envelope.put_some(
            r#","amountminor":"#,
            self.amount_minor.map(|n| n.to_string()).as_deref(),
        )?;
        envelope.put_some(r#","currency":"#, self.currency)?;
        envelope.put_some(
            r#","entityversion":"#,
            self.entity_version.map(|n| n.to_string()).as_deref(),
        )?;
        envelope.put(r#","receivedtime":"#, &rfc3339(self.received_at))?;
        let Envelope(mut out) = envelope;
        out.extend_from_slice(DATA);
        out.extend_from_slice(self.body.as_bytes());
        out.push(b'}');
        Ok(out)
    }
}

/// The members of a JSON object whose names need no escapes. Derived serialization looks at each byte of the names as well: for what every
/// webhook pays that is too much.
struct Envelope(Vec<u8>);

impl Envelope {
    /// A member; `lead` is what stands before its value.
    fn put(&mut self, lead: &str, text: &str) -> Result<(), serde_json::Error> {
        self.0.extend_from_slice(lead.as_bytes());
        if text.bytes().any(needs_escape) {
            return serde_json::to_writer(&mut self.0, text);
        }
        self.0.push(b'"');
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'"');
        Ok(())
    }

    /// A member that may be missing.
    fn put_some(&mut self, lead: &str, text: Option<&str>) -> Result<(), serde_json::Error> {
        text.map_or(Ok(()), |text| self.put(lead, text))
    }
}

/// Of a string in JSON (<https://www.rfc-editor.org/rfc/rfc8259#section-7>).
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// How our own encoder leads in the body.
const DATA: &[u8] = b",\"data\":";

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

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
