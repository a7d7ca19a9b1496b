//! librdkafka's producer, told what became of a record by the thread that read it off the broker's connection
//! (`rd_kafka_interceptor_f_on_acknowledgement_t` in librdkafka's `rdkafka.h`). rdkafka's own producers take reports out of a
//! queue instead: another thread has to wake for each answer of a broker before the one that waits for it can.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, from_ref};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::types::RDKafkaType;
use tracing::{debug, warn};

use super::deliveries::{Deliveries, Report, Waiting};

/// A record, and who waits for it.
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    /// `None`: the key decides.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: OwnedHeaders,
    pub(super) waiting: Waiting,
}

/// How long it may take until librdkafka has told of all that it was made to give up.
const PURGE_TIMEOUT: Duration = Duration::from_millis(500);

const NAME: &CStr = c"hookmill";

const OK: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// `RD_KAFKA_PARTITION_UA`: the key decides.
const BY_THE_KEY: i32 = -1;

thread_local! {
    /// Who waits for the record that this thread is just handing over.
    static HANDING_OVER: Cell<*mut Waiting> = const { Cell::new(ptr::null_mut()) };
}

/// Dropping it gives up what is under way.
pub(super) struct NativeProducer {
    client: Client<Deliveries>,
}

impl NativeProducer {
    /// A producer that tells `deliveries` of each record and of each event of the client's.
    pub(super) fn new(config: &ClientConfig, deliveries: Deliveries) -> Result<Self, KafkaError> {
        let native = config.create_native_config()?;
        let conf = native.ptr();
        let mut hears = false;
        // SAFETY: `conf` lives until the client takes it. What the callbacks get is the context that `Client::new` sets there, an
        // `Arc` which the client drops after librdkafka's threads have ended; only `on_new`, which `Client::new` calls, gets `hears`.
        let added = unsafe {
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            sys::rd_kafka_conf_set_stats_cb(conf, Some(on_statistics));
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            sys::rd_kafka_conf_interceptor_add_on_new(conf, NAME.as_ptr(), Some(on_new), (&raw mut hears).cast())
        };
        if added != OK {
            return Err(KafkaError::ClientCreation(RDKafkaErrorCode::from(added).to_string()));
        }
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_PRODUCER, deliveries)?;
        // librdkafka only logs what `on_new` answers.
        if !hears {
            let why = "librdkafka takes nobody who hears of acknowledgements";
            return Err(KafkaError::ClientCreation(why.to_owned()));
        }
        Ok(Self { client })
    }

    /// librdkafka's client.
    pub(super) fn client(&self) -> &Client<Deliveries> {
        &self.client
    }

    /// Whom it tells.
    pub(super) fn deliveries(&self) -> &Arc<Deliveries> {
        self.client.context()
    }

    /// Serves what has come but for reports: statistics, errors, lines of the log. It does not wait.
    pub(super) fn poll(&self) {
        // SAFETY: the client lives.
        unsafe { sys::rd_kafka_poll(self.client.native_ptr(), 0) };
    }

    /// Waits until Kafka has, or has refused, whatever was sent.
    pub(super) fn flush(&self, patience: Duration) -> Result<(), KafkaError> {
        // SAFETY: the client lives.
        match unsafe { sys::rd_kafka_flush(self.client.native_ptr(), millis(patience)) } {
            OK => Ok(()),
            error => Err(KafkaError::Flush(error.into())),
        }
    }

    /// Hands a record to librdkafka, which copies it. Where it is not taken, who waits comes back, and has not been told.
    pub(super) fn send(&self, record: Record<'_>) -> Result<(), (KafkaError, Waiting)> {
        let Record {
            topic,
            partition,
            key,
            value,
            headers,
            waiting,
        } = record;
        let topic = match CString::new(topic) {
            Ok(topic) => topic,
            Err(error) => return Err((error.into(), waiting)),
        };
        let (value, value_len) = bytes(value);
        let (key, key_len) = bytes(key);
        let waiting = Box::into_raw(Box::new(waiting));
        let outer = HANDING_OVER.replace(waiting);
        // SAFETY: each tag is followed by what `rdkafka.h` says it takes; texts and bytes are copied before this returns.
        let error = unsafe {
            use sys::rd_kafka_vtype_t as vtype;
            sys::rd_kafka_producev(
                self.client.native_ptr(),
                vtype::RD_KAFKA_VTYPE_TOPIC,
                topic.as_ptr(),
                vtype::RD_KAFKA_VTYPE_PARTITION,
                partition.unwrap_or(BY_THE_KEY),
                vtype::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                vtype::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                vtype::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                vtype::RD_KAFKA_VTYPE_OPAQUE,
                waiting.cast::<c_void>(),
                vtype::RD_KAFKA_VTYPE_HEADERS,
                from_ref(headers.as_borrowed()),
                vtype::RD_KAFKA_VTYPE_END,
            )
        };
        HANDING_OVER.set(outer);
        if error != OK {
            // SAFETY: librdkafka keeps nothing of a record that it does not take, and `on_acknowledgement` left this alone.
            let waiting = unsafe { Box::from_raw(waiting) };
            return Err((KafkaError::MessageProduction(error.into()), *waiting));
        }
        // They are librdkafka's now.
        std::mem::forget(headers);
        Ok(())
    }
}

impl Drop for NativeProducer {
    fn drop(&mut self) {
        let all = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT;
        let give_up = || {
            // SAFETY: the client lives.
            unsafe { sys::rd_kafka_purge(self.client.native_ptr(), all) };
            self.flush(PURGE_TIMEOUT)
        };
        // What a connection that broke meanwhile has put back into a partition's queue, librdkafka would forget without a word.
        if let Err(error) = give_up().or_else(|_| give_up()) {
            warn!(%error, "not all records of a Kafka producer were given up at its end");
        }
        self.deliveries().tell(|| ());
    }
}

fn bytes(of: Option<&[u8]>) -> (*const u8, usize) {
    of.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()))
}

/// Rounded up, so that nobody asks again at once.
fn millis(time: Duration) -> c_int {
    c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
}

/// # Safety
/// librdkafka calls it while it makes the client; `hears` is a `bool`.
unsafe extern "C" fn on_new(
    client: *mut sys::rd_kafka_t,
    _: *const sys::rd_kafka_conf_t,
    hears: *mut c_void,
    _: *mut c_char,
    _: usize,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: the client is being made, and has its configuration already.
    unsafe {
        let deliveries = sys::rd_kafka_opaque(client);
        let added = sys::rd_kafka_interceptor_add_on_acknowledgement(
            client,
            NAME.as_ptr(),
            Some(on_acknowledgement),
            deliveries,
        );
        *hears.cast::<bool>() = added == OK;
        added
    }
}

/// Called once for each record, when nothing more will become of it, mostly from one of librdkafka's threads, which may hold a
/// lock of its own; but for a record that librdkafka does not take after all, as there is no such topic or partition, from
/// within [`NativeProducer::send`], which then gives back who waits. A panic in here would end the process.
///
/// # Safety
/// `record` was sent by [`NativeProducer::send`], `deliveries` is the client's context.
unsafe extern "C" fn on_acknowledgement(
    _: *mut sys::rd_kafka_t,
    record: *mut sys::rd_kafka_message_t,
    deliveries: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: librdkafka keeps the record while this runs, and the client its context. The code is read as the number that it
    // is on the wire: of the enumeration some are missing.
    let (waiting, code, place, deliveries) = unsafe {
        let waiting = (*record)._private.cast::<Waiting>();
        let code = (&raw const (*record).err).cast::<i32>().read();
        let place = ((*record).partition, (*record).offset);
        (waiting, code, place, &*deliveries.cast::<Deliveries>())
    };
    if HANDING_OVER.get() != waiting {
        // SAFETY: it was made by `into_raw` for this record, whose only call this is.
        let waiting = unsafe { Box::from_raw(waiting) };
        deliveries.report(Report::new(error_code(code), place, waiting));
    }
    OK
}

fn error_code(code: c_int) -> RDKafkaErrorCode {
    sys::rd_kafka_resp_err_t::try_from(code).map_or(RDKafkaErrorCode::Unknown, RDKafkaErrorCode::from)
}

/// # Safety
/// librdkafka calls it, from [`NativeProducer::poll`] or a flush; `level` is syslog's.
unsafe extern "C" fn on_log(_: *const sys::rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    // SAFETY: the texts end with a NUL, and live while this runs.
    let (facility, line) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(line)) };
    debug!(
        level,
        facility = &*facility.to_string_lossy(),
        message = line.to_string_lossy().trim(),
        "librdkafka (producer)"
    );
}

/// # Safety
/// As for [`on_log`].
unsafe extern "C" fn on_statistics(
    _: *mut sys::rd_kafka_t,
    json: *mut c_char,
    len: usize,
    deliveries: *mut c_void,
) -> c_int {
    // SAFETY: `json` has so many bytes while this runs; the client keeps its context.
    let (deliveries, json) = unsafe {
        let deliveries = &*deliveries.cast::<Deliveries>();
        (deliveries, std::slice::from_raw_parts(json.cast::<u8>(), len))
    };
    deliveries.stats_raw(json);
    // librdkafka frees it.
    0
}

/// # Safety
/// As for [`on_log`].
unsafe extern "C" fn on_error(_: *mut sys::rd_kafka_t, code: c_int, reason: *const c_char, deliveries: *mut c_void) {
    // SAFETY: the text ends with a NUL, and lives while this runs; the client keeps its context.
    let (deliveries, reason) = unsafe { (&*deliveries.cast::<Deliveries>(), CStr::from_ptr(reason)) };
    deliveries.error(KafkaError::Global(error_code(code)), reason.to_string_lossy().trim());
}
