//! An event as it is written.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::kind::{Kind, Status};

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

/// The members of a JSON object whose names need no escapes. Derived serialization looks for some in the names, too, and every webhook
/// would pay for that.
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
pub(super) const DATA: &[u8] = b",\"data\":";

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
