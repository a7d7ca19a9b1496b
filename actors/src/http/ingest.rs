//! The way in: a webhook is read, verified, mapped and published; 202 is said after Kafka has acknowledged it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use actix_web::http::Method;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use arc_swap::ArcSwapOption;
use chrono::Utc;
use futures_util::StreamExt;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hookmill_schema::Kind;
use rdkafka::message::{Header, OwnedHeaders};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::actor_ref::ActorRef;
use crate::metrics::Metrics;
use crate::producer::{Producer, Publish};
use crate::sources::{Accepted, HeaderLookup, Lookup, Received, Source, Sources};
use crate::stats::ActorStats;

/// `[ingest]` of config.toml.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    /// Where webhooks are taken.
    pub listen: SocketAddr,
    /// Largest body in bytes.
    pub body_limit: usize,
    /// How long a body may take to arrive.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// How long a webhook may wait for Kafka before it is answered 503. Shorter than the providers' own time-outs (the
    /// shortest is 5 s), so that they hear a clear "again, please".
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Requests that may be under way at once; more are answered 503 at once.
    pub max_in_flight: usize,
    /// Connections that may be open at once.
    pub max_connections: usize,
    /// Threads that serve requests; 0 for one a core.
    pub workers: usize,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            body_limit: 1 << 20,
            body_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(4),
            max_in_flight: 2048,
            max_connections: 16384,
            workers: 0,
        }
    }
}

struct Door {
    source: Arc<Source>,
    limiter: Option<DefaultDirectRateLimiter>,
}

/// What the request handlers share.
pub struct IngestState {
    settings: IngestSettings,
    doors: std::collections::HashMap<String, Door>,
    producer: ActorRef<Producer>,
    topics: [Arc<str>; 2],
    metrics: Arc<Metrics>,
    in_flight: AtomicUsize,
    clock: DefaultClock,
    stats: ArcSwapOption<ActorStats>,
}

impl IngestState {
    /// Takes webhooks of `sources` and publishes them through `producer` to the topics of their kinds.
    pub fn new(
        settings: IngestSettings,
        sources: &Sources,
        producer: ActorRef<Producer>,
        orders: &str,
        disputes: &str,
        metrics: Arc<Metrics>,
    ) -> Self {
        let doors = sources.iter().map(|source| {
            let limiter = source
                .rate_limit()
                .map(|limit| RateLimiter::direct(Quota::per_second(limit.per_second).allow_burst(limit.burst)));
            (
                source.path().to_owned(),
                Door {
                    source: source.clone(),
                    limiter,
                },
            )
        });
        Self {
            settings,
            doors: doors.collect(),
            producer,
            topics: [orders.into(), disputes.into()],
            metrics,
            in_flight: AtomicUsize::new(0),
            clock: DefaultClock::default(),
            stats: ArcSwapOption::empty(),
        }
    }

    pub(super) fn counts_into(&self, stats: Arc<ActorStats>) {
        self.stats.store(Some(stats));
    }

    fn topic(&self, kind: Kind) -> &Arc<str> {
        match kind {
            Kind::Order => &self.topics[0],
            Kind::Dispute => &self.topics[1],
        }
    }
}

pub(super) fn configure(app: &mut web::ServiceConfig, state: web::Data<IngestState>) {
    app.app_data(state).default_service(web::to(receive));
}

/// Counts a request for as long as it is under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn receive(request: HttpRequest, mut body: web::Payload, state: web::Data<IngestState>) -> HttpResponse {
    let started = Instant::now();
    let door = state.doors.get(request.path());
    let name = door.map_or("", |d| d.source.name());
    let under_way = UnderWay(&state.in_flight);
    let crowd = state.in_flight.fetch_add(1, Relaxed);
    let admitted = match door {
        None => Err(Problem::unknown_source()),
        Some(_) if crowd >= state.settings.max_in_flight => {
            Err(Problem::unavailable("too many requests are under way; send it again"))
        }
        Some(door) => admit(&request, door, &state).map(|()| &door.source),
    };
    let answer = match admitted {
        Ok(source) => {
            let answer = take(&request, &mut body, source, &state).await;
            drop(under_way);
            answer
        }
        Err(problem) => {
            drop(under_way);
            discard(&mut body, state.settings.body_limit).await;
            Err(problem)
        }
    };
    let (outcome, response) = match answer {
        Ok(Answer::Accepted(response)) => ("accepted", response),
        Ok(Answer::Ignored(response)) => ("ignored", response),
        Err(problem) => (problem.slug(), problem.response()),
    };
    state.metrics.webhook(name, outcome, started.elapsed());
    if let Some(stats) = state.stats.load().as_ref() {
        stats.add_handled(1);
        stats.queue_depth.store(
            i64::try_from(state.in_flight.load(Relaxed)).unwrap_or(i64::MAX),
            Relaxed,
        );
        if response.status().is_server_error() {
            stats.record_error(outcome);
        }
    }
    response
}

enum Answer {
    Accepted(HttpResponse),
    Ignored(HttpResponse),
}

/// How long the rest of a body that is refused anyway may take.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// Steps over the body of a request that was refused by its head, so that the next one on this connection is read from its
/// beginning. Where the body does not end soon, the server says that it closes, and does.
async fn discard(body: &mut web::Payload, limit: usize) {
    let mut left = limit;
    let rest = async {
        while let Some(Ok(chunk)) = body.next().await {
            match left.checked_sub(chunk.len()) {
                Some(less) => left = less,
                None => break,
            }
        }
    };
    // In time or not: what is left over is the server's to decide.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, rest).await;
}

/// Reads a body to its end, or to the limit.
async fn read(request: &HttpRequest, body: &mut web::Payload, limit: usize) -> Result<web::Bytes, Problem> {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let announced: Option<u64> = announced.and_then(|text| text.parse().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Problem::too_large(limit));
    }
    let expected = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut whole = web::BytesMut::with_capacity(expected.min(FIRST_BUFFER));
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Problem::unreadable_body())?;
        if whole.len() + chunk.len() > limit {
            return Err(Problem::too_large(limit));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// A length that is only announced gets no more memory than this in advance.
const FIRST_BUFFER: usize = 64 << 10;

/// What a request's head decides.
fn admit(request: &HttpRequest, door: &Door, state: &IngestState) -> Result<(), Problem> {
    let Door { source, limiter } = door;
    if request.method() != Method::POST {
        return Err(Problem::method("POST"));
    }
    if source.wants_json() && !is_json(request.headers()) {
        return Err(Problem::not_json_type());
    }
    match limiter.as_ref().map(|limiter| limiter.check()) {
        Some(Err(until)) => Err(Problem::too_many(until.wait_time_from(state.clock.now()))),
        Some(Ok(())) | None => Ok(()),
    }
}

async fn take(
    request: &HttpRequest,
    body: &mut web::Payload,
    source: &Source,
    state: &IngestState,
) -> Result<Answer, Problem> {
    let limit = state.settings.body_limit;
    let patience = state.settings.body_timeout;
    let body = tokio::time::timeout(patience, read(request, body, limit))
        .await
        .unwrap_or_else(|_| Err(Problem::slow_body(patience)))?;
    let headers = RequestHeaders(request.headers());
    match source.receive(&headers, &body, Utc::now())? {
        Received::Ignored { event_type } => Ok(Answer::Ignored(HttpResponse::Ok().json(json!({
            "ignored": event_type.unwrap_or_else(|| "no mapping takes this event".to_owned()),
        })))),
        Received::Accepted(events) => {
            let trace = trace_parent(request.headers());
            publish(events, &trace, state).await.map(Answer::Accepted)
        }
    }
}

/// Publishes all events of a request and waits for all: one answer, and 202 only if Kafka has every one of them.
async fn publish(events: Vec<Accepted>, trace: &str, state: &IngestState) -> Result<HttpResponse, Problem> {
    let mut waiting = Vec::with_capacity(events.len());
    let mut accepted = Vec::with_capacity(events.len());
    for Accepted {
        id,
        kind,
        user_id,
        value,
    } in events
    {
        let topic = state.topic(kind);
        let (reply, outcome) = oneshot::channel();
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header {
                key: "content-type",
                value: Some("application/cloudevents+json"),
            })
            .insert(Header {
                key: "traceparent",
                value: Some(trace),
            });
        accepted.push(json!({ "id": id, "kind": kind.as_str(), "topic": &**topic }));
        let publish = Publish {
            topic: topic.clone(),
            partition: None,
            key: Some(user_id.into_bytes()),
            value: Some(value),
            headers,
            reply,
        };
        state
            .producer
            .try_send(publish)
            .map_err(|_| Problem::unavailable("the event cannot be taken now; send it again"))?;
        waiting.push(outcome);
    }
    let all = async {
        for outcome in waiting {
            // No answer: the producer was restarted with the record in flight.
            outcome
                .await
                .map_err(|_| Problem::unavailable("the event could not be stored durably; send it again"))??;
        }
        Ok(())
    };
    tokio::time::timeout(state.settings.deadline, all)
        .await
        .unwrap_or_else(|_| {
            Err(Problem::unavailable(
                "the event could not be stored durably in time; send it again",
            ))
        })?;
    Ok(HttpResponse::Accepted().json(json!({ "accepted": accepted })))
}

/// JSON by its media type, or by saying nothing.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let Ok(text) = value.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The caller's W3C trace context, or the start of a new one (<https://www.w3.org/TR/trace-context/>).
fn trace_parent(headers: &HeaderMap) -> String {
    let given = headers.get("traceparent").and_then(|v| v.to_str().ok());
    match given.filter(|value| is_trace_parent(value)) {
        Some(value) => value.to_owned(),
        None => format!(
            "00-{:032x}-{:016x}-01",
            rand::random::<u128>().max(1),
            rand::random::<u64>().max(1)
        ),
    }
}

fn is_trace_parent(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let hex = |s: &str, len: usize| s.len() == len && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let [version, trace, span, flags] = parts[..] else {
        return false;
    };
    hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && trace.bytes().any(|b| b != b'0')
        && span.bytes().any(|b| b != b'0')
}

struct RequestHeaders<'a>(&'a HeaderMap);

impl HeaderLookup for RequestHeaders<'_> {
    fn lookup(&self, name: &str) -> Lookup<'_> {
        let mut values = self.0.get_all(name);
        match (values.next(), values.next()) {
            (None, _) => Lookup::Missing,
            (Some(value), None) => Lookup::One(value.as_bytes()),
            (Some(_), Some(_)) => Lookup::Many,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().expect("a header value"));
            is_json(&headers)
        };
        assert!(
            with("application/json") && with("Application/JSON; charset=utf-8") && with("application/cloudevents+json")
        );
        assert!(!with("text/plain") && !with("application/x-www-form-urlencoded") && !with("text/x+json"));
        assert!(is_json(&HeaderMap::new()));
    }

    #[test]
    fn only_a_well_formed_trace_parent_is_kept() {
        assert!(is_trace_parent(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        ));
        assert!(!is_trace_parent(
            "00-00000000000000000000000000000000-b7ad6b7169203331-01"
        ));
        assert!(!is_trace_parent(
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"
        ));
        assert!(!is_trace_parent("nonsense"));
        assert!(is_trace_parent(&trace_parent(&HeaderMap::new())));
    }
}
