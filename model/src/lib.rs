//! The protocol by which records get into the tables exactly once, as a model whose every history is tried.
//! What is modelled, what is not, and what it found stands in docs/MODEL.md.

mod alike;
mod check;
mod instance;
mod lane;
mod mutant;
pub mod promises;
mod protocol;
mod reached;
mod recovery;
pub mod shard;
mod state;

pub use check::{Report, check};
pub use mutant::Mutant;
pub use protocol::Protocol;
pub use shard::Record;
pub use state::{Process, State, Step};
