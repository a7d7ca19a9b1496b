//! Names of what must hold.

/// What is before the offset is in the tables, or bad and among the dead letters.
pub const NO_LOSS: &str = "nothing is lost";
/// Rows are inserted once, and in the order of their offsets.
pub const ONCE_IN_ORDER: &str = "nothing is repeated or reordered";
/// No good record is among the dead letters.
pub const ONLY_POISON: &str = "only bad records are buried";
/// What a writer has been told, or concludes, is so.
pub const TRUTH: &str = "what a writer takes for written is written";
/// Nobody runs in a circle.
pub const NO_SPIN: &str = "nobody runs in a circle";
/// When faults stop, everything gets written.
pub const PROGRESS: &str = "everything gets written when faults stop";
