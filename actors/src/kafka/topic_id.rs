//! A topic's id: the name stays when a topic is deleted and created again, the id does not (KIP-516).
//!
//! rdkafka has no call for it, so this is librdkafka's own `DescribeTopics`.

use std::ffi::{CStr, CString};
use std::ptr::null;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Frees what librdkafka made, however the caller leaves.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer is what librdkafka returned, is not null, and is freed once, by its own function.
        unsafe { (self.1)(self.0) }
    }
}

fn owned<T>(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Result<Owned<T>, KafkaError> {
    if pointer.is_null() {
        return Err(failed(RDKafkaErrorCode::Fail));
    }
    Ok(Owned(pointer, free))
}

fn failed(code: RDKafkaErrorCode) -> KafkaError {
    KafkaError::AdminOp(code)
}

/// Asks for the id of `topic`; `None` where the broker has none to tell (before Kafka 2.8). Blocks for at most `timeout`.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<String>, KafkaError> {
    let name = CString::new(topic).map_err(KafkaError::Nul)?;
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    // SAFETY: `rk` lives as long as `client`; every object is made here, checked for null, and freed after its last use,
    // in the reverse order of its making; what is read out of the event is copied before the event is freed.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = owned(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            sys::rd_kafka_TopicCollection_destroy,
        )?;
        let options = owned(
            sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            sys::rd_kafka_AdminOptions_destroy,
        )?;
        let mut reason = [0; 256];
        let code = sys::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, reason.as_mut_ptr(), reason.len());
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(code.into()));
        }
        let queue = owned(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        sys::rd_kafka_DescribeTopics(rk, topics.0, options.0, queue.0);
        let event = sys::rd_kafka_queue_poll(queue.0, millis);
        if event.is_null() {
            return Err(failed(RDKafkaErrorCode::OperationTimedOut));
        }
        let event = Owned(event, sys::rd_kafka_event_destroy);
        let code = sys::rd_kafka_event_error(event.0);
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(code.into()));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(failed(RDKafkaErrorCode::Fail));
        }
        let mut count = 0;
        let described = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let first = if count == 0 || described.is_null() {
            null()
        } else {
            *described
        };
        if first.is_null() {
            return Err(failed(RDKafkaErrorCode::Fail));
        }
        let code = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(first));
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(code.into()));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(first);
        let known = !id.is_null()
            && (sys::rd_kafka_Uuid_most_significant_bits(id) != 0
                || sys::rd_kafka_Uuid_least_significant_bits(id) != 0);
        let text = if known {
            sys::rd_kafka_Uuid_base64str(id)
        } else {
            null()
        };
        Ok((!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned()))
    }
}
