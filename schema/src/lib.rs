//! Hookmill's events and tables: everything that is said in SQL, and nothing of Kafka or actors.

mod arrays;
pub mod dead_letters;
mod disputes;
mod error;
mod event;
mod kind;
pub mod migrations;
pub mod offsets;
mod orders;
pub mod partitions;
mod recent;
mod record;
mod row;
pub mod shard;
mod tables;
mod tls;
mod write;
mod writer;

pub use error::{ErrorClass, ShardError};
pub use event::{DecodeError, Event, NewEvent};
pub use kind::{Kind, Status};
pub use record::Record;
pub use row::{Row, Table};
pub use shard::ConnectSettings;
pub use write::{Part, write};
pub use writer::Writer;
