//! A row to write: what a record of a topic becomes in the tables that the topic belongs to.

use crate::dead_letters::DeadLetter;
use crate::event::{DecodeError, Event};
use crate::kind::Kind;
use crate::record::Record;

/// The tables that a topic's records belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `order_events` and `orders`.
    Orders,
    /// `dispute_events` and `disputes`.
    Disputes,
    /// `dead_letters`.
    DeadLetters,
}

/// A record that was understood.
#[derive(Clone, Debug)]
pub enum Row {
    /// Of a topic of events.
    Event(Event),
    /// Of a dead-letter topic.
    DeadLetter(DeadLetter),
}

impl Row {
    /// Reads a record of `topic`'s `partition`. Any record makes a dead letter.
    pub fn decode(table: Table, record: Record, topic: &str, partition: i32) -> Result<Row, (Record, DecodeError)> {
        match table {
            Table::Orders => Event::decode(record, Kind::Order).map(Row::Event),
            Table::Disputes => Event::decode(record, Kind::Dispute).map(Row::Event),
            Table::DeadLetters => Ok(Row::DeadLetter(DeadLetter::read(record, topic, partition))),
        }
    }

    /// The record it was read from.
    pub fn record(&self) -> &Record {
        match self {
            Row::Event(event) => event.record(),
            Row::DeadLetter(letter) => letter.record(),
        }
    }

    /// The event, if it is one.
    pub fn event(&self) -> Option<&Event> {
        match self {
            Row::Event(event) => Some(event),
            Row::DeadLetter(_) => None,
        }
    }

    /// The dead letter, if it is one.
    pub fn dead_letter(&self) -> Option<&DeadLetter> {
        match self {
            Row::Event(_) => None,
            Row::DeadLetter(letter) => Some(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_tables_decide_what_a_record_becomes() {
        let event = r#"{"specversion":"1.0","id":"e","source":"s","type":"t","time":"2026-01-01T00:00:00Z","kind":"order","userid":"u","orderid":"o","status":"paid","data":{}}"#;
        let decode = |table| {
            let record = Record::new(7, None, None, Some(event.as_bytes()), std::iter::empty());
            Row::decode(table, record, "t.DLQ", 3)
        };
        let order = decode(Table::Orders).expect("an event");
        assert!(order.event().is_some() && order.dead_letter().is_none());
        assert_eq!(order.record().offset, 7);
        let letter = decode(Table::DeadLetters).expect("any record is one");
        assert!(letter.event().is_none() && letter.dead_letter().is_some());
        assert_eq!(letter.record().offset, 7);
        let (record, _) = decode(Table::Disputes).expect_err("it is of another kind");
        assert_eq!(record.offset, 7);
    }
}
