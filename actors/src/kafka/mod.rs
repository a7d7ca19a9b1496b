//! Kafka clients: their settings, the check of the topics at start, and a probe for facts about them.

mod probe;
mod record;
mod settings;
mod topic_id;
pub mod topics;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub use probe::{Probe, ProbeError, Watermarks};
pub(crate) use record::{event_headers, new_trace_parent};
pub(crate) use settings::is_dead_letter_topic;
pub use settings::{KafkaSettings, Keep, TopicSettings, dead_letter_topic};

/// Whether a client tells only that a broker is away. Every client tells it again and again while it is, so it is said
/// once, by [`Health`](crate::health::Health).
pub(crate) fn is_connection_loss(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
        )
    )
}
