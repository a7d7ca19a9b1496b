//! What every record of an event has besides key and value.

use rdkafka::message::{Header, OwnedHeaders};

/// The headers of an event's record: its media type (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>)
/// and its W3C trace context.
pub(crate) fn event_headers(trace_parent: &str) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(2)
        .insert(Header {
            key: "content-type",
            value: Some("application/cloudevents+json"),
        })
        .insert(Header {
            key: "traceparent",
            value: Some(trace_parent),
        })
}

/// The start of a trace (<https://www.w3.org/TR/trace-context/>).
pub(crate) fn new_trace_parent() -> String {
    format!(
        "00-{:032x}-{:016x}-01",
        rand::random::<u128>().max(1),
        rand::random::<u64>().max(1)
    )
}
