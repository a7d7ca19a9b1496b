//! Supervision trees: what actix's own `Supervisor` does not do, because it does not see panics.
//!
//! A [`ChildSpec`] is a factory of fresh instances. A [`Supervisor`] starts its children in order, watches every
//! one's task to its end (also by panic), restarts after a backoff what must be restarted, stops in reverse order, and
//! exits itself once a child fails more often than its [`Intensity`] allows, which is its parent's problem
//! then. At the root that ends the process. The decisions are pure values in [`policy`].

mod child;
mod life;
pub mod policy;
mod supervisor;

pub use child::ChildSpec;
pub use life::{Exit, Life};
pub use policy::{Backoff, Intensity, Restart, Strategy};
pub use supervisor::{StartChild, StopChild, StopChildren, Supervisor};
