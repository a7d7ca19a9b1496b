//! The protocol by which records get into the tables exactly once, as a model whose every history is tried.
//! What is modelled, what is not, and what it found stands in docs/MODEL.md.

mod check;
pub mod instance;
pub mod mutant;
pub mod protocol;
pub mod reached;
pub mod shard;

pub use check::{Report, check};
pub use mutant::Mutant;
pub use protocol::{Protocol, promises};
pub use shard::Record;
