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
