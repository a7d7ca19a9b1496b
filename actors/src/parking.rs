//! Parked events: verified, and not understood. They are kept as they came on a topic of their own, to be replayed when
//! a mapping takes them. The key of a record names the event; a record of that key without a value says that it was
//! replayed or discarded.

mod store;

pub use store::ParkedStore;

use chrono::{DateTime, Utc};
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};

use crate::sources::{HeaderLookup, Lookup};
use crate::stats::rfc3339;

const SOURCE: &str = "parked.source";
const WHY: &str = "parked.why";
const REASON: &str = "parked.reason";
const RECEIVED: &str = "parked.received";
const HTTP: &str = "http.";

/// A request that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Names it.
    pub id: String,
    /// Whose it is.
    pub source: String,
    /// `unmapped` or `invalid`.
    pub why: String,
    /// For people.
    pub reason: String,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Headers of the request.
    pub headers: Vec<(String, String)>,
    /// Its body, byte for byte.
    pub body: Vec<u8>,
}

/// Whether a request's header is kept. What may hold a password is not.
pub fn keeps(name: &str) -> bool {
    !["authorization", "proxy-authorization", "cookie"].contains(&name)
}

impl ParkedEvent {
    /// A name that no other has.
    pub fn new_id() -> String {
        format!("{:016x}-{:08x}", Utc::now().timestamp_micros(), rand::random::<u32>())
    }

    /// The headers of its record.
    pub fn headers(&self) -> OwnedHeaders {
        let own = [
            (SOURCE.to_owned(), self.source.clone()),
            (WHY.to_owned(), self.why.clone()),
            (REASON.to_owned(), self.reason.clone()),
            (RECEIVED.to_owned(), rfc3339(self.received_at)),
        ];
        let http = self
            .headers
            .iter()
            .map(|(name, value)| (format!("{HTTP}{name}"), value.clone()));
        own.into_iter()
            .chain(http)
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key: &key,
                    value: Some(&value),
                })
            })
    }

    /// Reads a record of the topic; `Err` holds the name of an event that is there no more, or nothing if it is no record
    /// of ours.
    pub fn read(record: &impl Message) -> Result<Self, Option<String>> {
        let id = record
            .key()
            .and_then(|key| std::str::from_utf8(key).ok())
            .map(str::to_owned);
        let (Some(id), Some(body)) = (id.clone(), record.payload()) else {
            return Err(id);
        };
        let all: Vec<(String, String)> = record
            .headers()
            .into_iter()
            .flat_map(|h| h.iter())
            .filter_map(|h| Some((h.key.to_owned(), std::str::from_utf8(h.value?).ok()?.to_owned())))
            .collect();
        let own = |name: &str| all.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let (Some(source), Some(received)) = (own(SOURCE), own(RECEIVED)) else {
            return Err(None);
        };
        Ok(Self {
            id,
            source,
            why: own(WHY).unwrap_or_default(),
            reason: own(REASON).unwrap_or_default(),
            received_at: DateTime::parse_from_rfc3339(&received).map_err(|_| None)?.to_utc(),
            headers: all
                .iter()
                .filter_map(|(key, value)| Some((key.strip_prefix(HTTP)?.to_owned(), value.clone())))
                .collect(),
            body: body.to_vec(),
        })
    }
}

/// Its headers, for a mapping.
impl HeaderLookup for ParkedEvent {
    fn lookup(&self, name: &str) -> Lookup<'_> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (None, _) => Lookup::Missing,
            (Some((_, value)), None) => Lookup::One(value.as_bytes()),
            (Some(_), Some(_)) => Lookup::Many,
        }
    }
}
