//! Kafka clients: their settings, the check of the topics at start, and a probe for facts about them.

mod probe;
mod settings;
pub mod topics;

pub use probe::{Probe, ProbeError, Watermarks};
pub use settings::{KafkaSettings, TopicSettings, dead_letter_topic};
