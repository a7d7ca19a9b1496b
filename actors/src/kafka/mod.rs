//! Kafka clients: their settings, the check of the topics at start, and a probe for facts about them.

mod probe;
mod reach;
mod record;
mod settings;
mod topic_id;
pub mod topics;

pub use rdkafka::error::KafkaError;
use rdkafka::error::RDKafkaErrorCode;

pub use probe::{Probe, ProbeError, Watermarks};
pub(crate) use reach::{REPORT_EVERY_MS, Reach};
pub(crate) use record::{event_headers, new_trace_parent};
pub(crate) use settings::{HEARTBEAT_EVERY, is_broker_side, is_dead_letter_topic};
pub use settings::{KafkaSettings, Keep, TopicSettings, Traffic, dead_letter_topic};

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

/// An error for people. What was configured is not repeated: it may be a password under a misspelt name, or on the wrong
/// line.
pub fn told(error: &KafkaError) -> String {
    let KafkaError::ClientConfig(_, why, key, _) = error else {
        return error.to_string();
    };
    let why = match why
        .strip_prefix("Invalid value \"")
        .and_then(|rest| rest.rsplit_once("\" for "))
    {
        Some((_, of_what)) => format!("Invalid value for {of_what}"),
        None => why.clone(),
    };
    match why.contains(key.as_str()) {
        true => format!("client configuration: {why}"),
        false => format!("client configuration: {why} ({key})"),
    }
}
