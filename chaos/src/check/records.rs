//! What is on Kafka, read by what the record's format says and nothing of the product.

use anyhow::Result;
use chrono::DateTime;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::deployment::{Deployment, Topic};
use crate::{garbage, kafka, provider};

/// A record of a topic of events.
#[derive(Clone, Debug)]
pub struct Record {
    /// `order` or `dispute`, by its topic.
    pub kind: &'static str,
    /// Where it stands.
    pub partition: i32,
    /// Where it stands there.
    pub offset: i64,
    /// When Kafka got it, in ms since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// The beginning of its value's SHA-256, for dead letters; `None` for a record without one.
    pub value: Option<[u8; 8]>,
    /// What it is.
    pub body: Body,
}

/// What a record is.
#[derive(Clone, Debug)]
pub enum Body {
    /// An event.
    Event(Box<Event>),
    /// What the stranger put there.
    Garbage,
    /// Something else, which nobody sent.
    Unknown,
}

/// An event, as the record says it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Event {
    pub source: String,
    pub event_id: String,
    pub event_type: String,
    pub user_id: String,
    pub order_id: Option<String>,
    pub dispute_id: Option<String>,
    pub status: String,
    pub provider_status: Option<String>,
    pub amount_minor: Option<i64>,
    pub currency: Option<String>,
    pub entity_version: Option<i64>,
    pub occurred_us: i64,
    pub digest: [u8; 8],
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: String,
    source: String,
    r#type: String,
    time: String,
    userid: String,
    orderid: Option<String>,
    disputeid: Option<String>,
    status: String,
    providerstatus: Option<String>,
    amountminor: Option<String>,
    currency: Option<String>,
    entityversion: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn event(value: &[u8]) -> Option<Event> {
    let read: Envelope<'_> = serde_json::from_slice(value).ok()?;
    let number = |text: Option<String>| match text {
        Some(text) => text.parse().ok().map(Some),
        None => Some(None),
    };
    Some(Event {
        source: read.source,
        event_id: read.id,
        event_type: read.r#type,
        user_id: read.userid,
        order_id: read.orderid,
        dispute_id: read.disputeid,
        status: read.status,
        provider_status: read.providerstatus,
        amount_minor: number(read.amountminor)?,
        currency: read.currency,
        entity_version: number(read.entityversion)?,
        occurred_us: DateTime::parse_from_rfc3339(&read.time).ok()?.timestamp_micros(),
        digest: provider::digest(read.data.get().as_bytes()),
    })
}

fn record(message: &BorrowedMessage<'_>, kind: &'static str) -> Record {
    let garbage = message
        .key()
        .is_some_and(|key| key.starts_with(garbage::KEY.as_bytes()));
    let body = match message.payload().and_then(event) {
        _ if garbage => Body::Garbage,
        Some(event) => Body::Event(Box::new(event)),
        None => Body::Unknown,
    };
    Record {
        kind,
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(provider::digest),
        body,
    }
}

/// Every record of the topics of events, by topic, partition and offset.
pub async fn read(brokers: &str, deployment: &Deployment) -> Result<Vec<Record>> {
    let mut all = Vec::new();
    for topic in deployment.topics().into_iter().filter(|topic| !topic.dead) {
        let kind = topic.kind;
        all.extend(kafka::read(brokers, &topic, move |message| Some(record(message, kind))).await?);
    }
    all.sort_by_key(|record| (record.kind, record.partition, record.offset));
    Ok(all)
}

/// Where a dead letter came from: topic, partition, offset. `None` where its headers do not say.
pub type Origin = Option<(String, i32, i64)>;

/// The origin of every record on a topic of dead letters.
pub async fn read_dead(brokers: &str, topic: &Topic) -> Result<Vec<Origin>> {
    let origin = |message: &BorrowedMessage<'_>| -> Origin {
        let headers = message.headers()?;
        let text = |name: &str| {
            let header = headers.iter().filter(|h| h.key == name).last()?;
            std::str::from_utf8(header.value?).ok()
        };
        Some((
            text("dlq.origin.topic")?.to_owned(),
            text("dlq.origin.partition")?.parse().ok()?,
            text("dlq.origin.offset")?.parse().ok()?,
        ))
    };
    kafka::read(brokers, topic, move |message| Some(origin(message))).await
}
