//! The way in: a webhook is read, verified, mapped and published; 202 is said after Kafka has acknowledged it.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use actix_http::body::BoxBody;
use actix_http::{HttpMessage as _, Request, Response};
use actix_service::{IntoService as _, ServiceFactory, fn_factory};
use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use actix_web::http::{Method, StatusCode};
use arc_swap::ArcSwapOption;
use chrono::Utc;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hookmill_schema::Kind;
use ipnet::IpNet;
use rdkafka::message::OwnedHeaders;
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::IngestSettings;
use super::body::{self, Body};
use super::budget::Budget;
use super::certificates;
use super::connection::Serving;
use super::problem::Problem;
use crate::kafka::{event_headers, new_trace_parent};
use crate::metrics::{ACCEPTED, Metrics, WebhookMetrics};
use crate::parking::{self, ParkedEvent};
use crate::producer::{ProducerRef, Producers, Publish, PublishError};
use crate::sources::{
    self, Accepted, AuthError, CertificateError, HeaderLookup, Incoming, Lookup, Received, Refusal, Source, Sources,
};
use crate::stats::ActorStats;

struct Door {
    source: Arc<Source>,
    limiter: Option<DefaultDirectRateLimiter>,
    metrics: WebhookMetrics,
}

/// Where events go.
#[derive(Clone, Debug)]
pub struct IngestTopics {
    /// Of orders.
    pub orders: Arc<str>,
    /// Of disputes.
    pub disputes: Arc<str>,
    /// That were verified and are not understood.
    pub parked: Arc<str>,
}

/// What the request handlers share.
pub struct IngestState {
    settings: IngestSettings,
    doors: std::collections::HashMap<String, Door>,
    producers: Producers,
    topics: IngestTopics,
    /// Of requests that found no door.
    strangers: WebhookMetrics,
    /// Requests whose head is there.
    open: AtomicUsize,
    /// Those of them whose body is there, too.
    in_flight: AtomicUsize,
    bodies: Budget,
    clock: DefaultClock,
    stats: ArcSwapOption<ActorStats>,
}

impl IngestState {
    /// Takes webhooks of `sources` and publishes them through `producers` to the topics of their kinds.
    pub fn new(
        settings: IngestSettings,
        sources: &Sources,
        producers: Producers,
        topics: IngestTopics,
        metrics: &Metrics,
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
                    metrics: metrics.of_source(source.name()),
                },
            )
        });
        Self {
            bodies: Budget::new(settings.body_memory),
            settings,
            doors: doors.collect(),
            producers,
            topics,
            strangers: metrics.of_source(""),
            open: AtomicUsize::new(0),
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
            Kind::Order => &self.topics.orders,
            Kind::Dispute => &self.topics.disputes,
        }
    }
}

/// A thread that serves requests.
struct Worker {
    state: Arc<IngestState>,
    producer: ProducerRef,
}

/// Serves every path: which source's it is, `receive` looks up. An application's routing, its layers and its extractors would
/// be a tenth of the time that a webhook takes.
pub(super) fn service(
    state: Arc<IngestState>,
) -> impl ServiceFactory<Request, Config = (), Response = Response<BoxBody>, Error = Response<BoxBody>, InitError = ()>
{
    fn_factory(move || {
        let worker = state.producers.start_here().map(|producer| {
            let state = state.clone();
            Rc::new(Worker { state, producer })
        });
        async move {
            let worker = worker.map_err(|why| error!(%why, "webhooks cannot be served"))?;
            let serve = move |request| {
                let worker = worker.clone();
                async move { Ok(receive(request, &worker).await.into()) }
            };
            Ok(serve.into_service())
        }
    })
}

/// Counts a request for as long as it is under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    /// The request, and how many there were before.
    fn begin(counter: &'a AtomicUsize) -> (Self, usize) {
        let before = counter.fetch_add(1, Relaxed);
        (Self(counter), before)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn receive(mut request: Request, worker: &Worker) -> HttpResponse {
    let started = Instant::now();
    let state = &*worker.state;
    let serving = Serving::begin(&request);
    let (counted, _) = UnderWay::begin(&state.open);
    let mut body = Body::new(request.take_payload());
    let door = state.doors.get(request.path());
    let admitted = match door {
        None => Err(Problem::unknown_source()),
        Some(door) => admit(&request, &door.source).map(|()| door),
    };
    let answer = match admitted {
        Ok(door) => take(&request, &mut body, door, worker, started).await,
        Err(problem) => {
            body::discard(&mut body, state.settings.body_limit).await;
            Err(problem)
        }
    };
    serving.end(body.ended);
    drop(counted);
    let (outcome, response) = match answer {
        Ok(Answer::Accepted(response)) => (ACCEPTED, response),
        Ok(Answer::Ignored(response)) => ("ignored", response),
        Ok(Answer::Parked(response)) => ("parked", response),
        Ok(Answer::Handshake(response)) => ("handshake", response),
        Err(problem) => (problem.slug(), problem.response()),
    };
    let metrics = door.map_or(&state.strangers, |door| &door.metrics);
    metrics.answered(outcome, started.elapsed());
    if let Some(stats) = state.stats.load().as_ref() {
        stats.add_handled(1);
        stats
            .queue_depth
            .store(i64::try_from(state.open.load(Relaxed)).unwrap_or(i64::MAX), Relaxed);
        if response.status().is_server_error() {
            stats.record_error(outcome);
        }
    }
    response
}

enum Answer {
    Accepted(HttpResponse),
    Ignored(HttpResponse),
    /// Nothing of it was understood, and it is kept.
    Parked(HttpResponse),
    Handshake(HttpResponse),
}

/// An answer is on its way so much earlier than the provider stops waiting for it.
const MARGIN: Duration = Duration::from_millis(500);

/// What a request's head decides.
fn admit(request: &Request, source: &Source) -> Result<(), Problem> {
    if body::is_coded(request.headers()) {
        return Err(Problem::coded());
    }
    match *request.method() {
        Method::POST => {
            let form = source.answers_unsigned() && !is_json(request.headers());
            if source.wants_json() && !form && !is_json(request.headers()) {
                return Err(Problem::not_json_type());
            }
        }
        Method::GET if source.answers_get() => {}
        _ if source.answers_get() => return Err(Problem::method("GET, POST")),
        _ => return Err(Problem::method("POST")),
    }
    Ok(())
}

/// The limit is on what was verified: whoever cannot sign uses up nobody's share.
fn within_rate(door: &Door, clock: &DefaultClock) -> Result<(), Problem> {
    match door.limiter.as_ref().map(|limiter| limiter.check()) {
        Some(Err(until)) => Err(Problem::too_many(until.wait_time_from(clock.now()))),
        Some(Ok(())) | None => Ok(()),
    }
}

async fn take(
    request: &Request,
    body: &mut Body,
    door: &Door,
    worker: &Worker,
    started: Instant,
) -> Result<Answer, Problem> {
    let state = &*worker.state;
    let source = &*door.source;
    let limit = state.settings.body_limit;
    // The provider hangs up when its own time is over, and does not hear what is said after that.
    let end = source
        .timeout()
        .map(|timeout| started + timeout.saturating_sub(MARGIN.min(timeout / 2)));
    let left = |most: Duration| end.map_or(most, |end| most.min(end.saturating_duration_since(Instant::now())));
    let patience = left(state.settings.body_timeout);
    let mut share = state.bodies.share();
    let body = tokio::time::timeout(patience, body::read(request, body, limit, &mut share))
        .await
        .unwrap_or_else(|_| Err(Problem::slow_body(patience)))?;
    // Only now: clients that take their time with a body keep nobody out.
    let (_counted, crowd) = UnderWay::begin(&state.in_flight);
    if crowd >= state.settings.max_in_flight {
        return Err(Problem::unavailable("too many requests are under way; send it again"));
    }
    let headers = RequestHeaders(request.headers());
    let incoming = Incoming {
        method: match *request.method() {
            Method::GET => sources::Method::Get,
            _ => sources::Method::Post,
        },
        query: request.uri().query().unwrap_or_default(),
        headers: &headers,
        body: &body,
        now: Utc::now(),
        peer: peer(request, &state.settings.trusted_proxies),
    };
    let received = receive_or_fetch(source, &incoming).await?;
    within_rate(door, &state.clock)?;
    match received {
        Received::Ignored { event_type } => Ok(Answer::Ignored(match source.answer() {
            // It waits for this word, whatever was made of the event.
            Some(answer) => in_their_words(answer.status, answer.content_type.clone(), answer.body.clone()),
            None => HttpResponse::Ok().json(json!({
                "ignored": event_type.unwrap_or_else(|| "no mapping takes this event".to_owned()),
            })),
        })),
        Received::Handshake(answer) => Ok(Answer::Handshake(in_their_words(
            answer.status,
            answer.content_type,
            answer.body,
        ))),
        Received::Events { accepted, parked } => {
            let trace = trace_parent(request.headers());
            let only_parked = accepted.is_empty();
            let mut records = Vec::with_capacity(accepted.len() + 1);
            let mut listed = Vec::with_capacity(accepted.len());
            for Accepted {
                id,
                kind,
                user_id,
                value,
            } in accepted
            {
                let topic = state.topic(kind);
                listed.push(Listed {
                    id,
                    kind: kind.as_str(),
                    topic,
                });
                records.push(ToPublish {
                    topic: topic.clone(),
                    key: user_id.into_bytes(),
                    value,
                    headers: event_headers(&trace),
                });
            }
            if let Some(first) = parked.first() {
                records.push(park(source, request.headers(), &incoming, first, state));
            }
            publish(records, &worker.producer, left(state.settings.deadline)).await?;
            let response = match source.answer() {
                Some(answer) => in_their_words(answer.status, answer.content_type.clone(), answer.body.clone()),
                None => HttpResponse::Accepted().json(Taken {
                    accepted: listed,
                    parked: (!parked.is_empty()).then_some(parked.len()),
                }),
            };
            Ok(if only_parked {
                Answer::Parked(response)
            } else {
                Answer::Accepted(response)
            })
        }
    }
}

/// Verifies and maps; a certificate that the signature names, and that is not known yet, is fetched for it.
async fn receive_or_fetch(source: &Source, incoming: &Incoming<'_, RequestHeaders<'_>>) -> Result<Received, Problem> {
    match source.receive(incoming) {
        Err(Refusal::Unauthorized(AuthError::CertificateNeeded { url })) => {
            let fetched = certificates::fetch(source.certificates(), &url).await;
            fetched.map_err(|error| {
                warn!(source = source.name(), %url, %error, "the certificate of a signature cannot be had");
                match error {
                    // There, and no good; or not there. Sending it again would change nothing.
                    CertificateError::NotPem
                    | CertificateError::Chain(_)
                    | CertificateError::Subject(_)
                    | CertificateError::Unknown(_) => Refusal::Unauthorized(AuthError::Wrong).into(),
                    CertificateError::Fetch(_) | CertificateError::TooSoon => {
                        Problem::unavailable("the certificate of the signature could not be fetched; send it again")
                    }
                }
            })?;
            Ok(source.receive(incoming)?)
        }
        received => Ok(received?),
    }
}

/// Who sent a request: the other end of its connection, or whom a trusted proxy there names.
fn peer(request: &Request, trusted: &[IpNet]) -> Option<IpAddr> {
    let direct = request.peer_addr()?.ip().to_canonical();
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    if !is_trusted(&direct) {
        return Some(direct);
    }
    let chain = request
        .headers()
        .get_all("x-forwarded-for")
        .filter_map(|v| v.to_str().ok());
    let named: Vec<IpAddr> = chain
        .flat_map(|line| line.split(','))
        .filter_map(|text| text.trim().parse::<IpAddr>().ok())
        .collect();
    // The last one that is no proxy of ours: what stands before it anybody could have written.
    named.into_iter().rev().find(|ip| !is_trusted(ip)).or(Some(direct))
}

/// An answer as the provider wants it.
fn in_their_words(status: u16, content_type: String, body: String) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    HttpResponse::build(status)
        .insert_header((CONTENT_TYPE, content_type))
        .body(body)
}

/// What is answered where nothing else is asked for.
#[derive(Serialize)]
struct Taken<'a> {
    accepted: Vec<Listed<'a>>,
    /// How many of the request's events were not understood, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<usize>,
}

#[derive(Serialize)]
struct Listed<'a> {
    id: String,
    kind: &'static str,
    topic: &'a str,
}

/// A request that is not understood, as it is kept: with the headers that a rule may read.
fn park(
    source: &Source,
    headers: &HeaderMap,
    incoming: &Incoming<'_, RequestHeaders<'_>>,
    parked: &sources::Parked,
    state: &IngestState,
) -> ToPublish {
    let text = headers
        .iter()
        .filter(|(name, _)| parking::keeps(name.as_str()) && !source.reads_secret_from(name.as_str()))
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    let event = ParkedEvent {
        id: ParkedEvent::new_id(),
        source: source.name().to_owned(),
        why: parked.why.to_owned(),
        reason: parked.reason.clone(),
        received_at: incoming.now,
        headers: text.collect(),
        body: incoming.body.to_vec(),
    };
    ToPublish {
        topic: state.topics.parked.clone(),
        key: event.id.clone().into_bytes(),
        headers: event.headers(),
        value: event.body,
    }
}

/// A record before it is handed to the producer.
struct ToPublish {
    topic: Arc<str>,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: OwnedHeaders,
}

/// Records of one request that are put into the producer's mailbox before others have their turn.
const AT_ONCE: usize = 256;

/// Publishes all records of a request and waits for all: one answer, and a good one only if Kafka has every one of them.
async fn publish(records: Vec<ToPublish>, producer: &ProducerRef, patience: Duration) -> Result<(), Problem> {
    let all = async {
        // A worker that just starts can have requests before it has its producer, and that its client.
        producer.came().await;
        let mut waiting = Vec::with_capacity(records.len());
        for record in records {
            let (reply, outcome) = oneshot::channel();
            let publish = Publish {
                topic: record.topic,
                partition: None,
                key: Some(record.key),
                value: Some(record.value),
                headers: record.headers,
                reply,
            };
            producer.try_send(publish).map_err(|_| PublishError::NotTaken)?;
            waiting.push(outcome);
            if waiting.len().is_multiple_of(AT_ONCE) {
                // The producer is on this thread: it takes them meanwhile.
                tokio::task::yield_now().await;
            }
        }
        for outcome in waiting {
            // No answer: the producer was restarted with the record in flight.
            outcome
                .await
                .map_err(|_| Problem::unavailable("the event could not be stored durably; send it again"))??;
        }
        Ok(())
    };
    tokio::time::timeout(patience, all).await.unwrap_or_else(|_| {
        Err(Problem::unavailable(
            "the event could not be stored durably in time; send it again",
        ))
    })
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
        None => new_trace_parent(),
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
    use crate::producer::{idle_producer, start_alone, to_come};

    fn record() -> ToPublish {
        ToPublish {
            topic: "orders".into(),
            key: Vec::new(),
            value: Vec::new(),
            headers: OwnedHeaders::new(),
        }
    }

    #[actix::test]
    async fn a_request_may_have_more_events_than_a_mailbox_holds() {
        let (producer, stats) = idle_producer().await;
        let records = std::iter::repeat_with(record).take(40 * AT_ONCE).collect();
        let refused = publish(records, &producer, Duration::from_secs(60)).await;
        assert!(refused.is_err(), "there is no client");
        assert_eq!(stats.handled.load(Relaxed), 40 * AT_ONCE as u64);
    }

    #[actix::test]
    async fn the_first_webhooks_wait_for_what_takes_them() {
        let producer = to_come();
        let to = producer.clone();
        let first = actix::spawn(async move { publish(vec![record()], &to, Duration::from_secs(60)).await });
        let a_moment = Duration::from_millis(50);
        tokio::time::sleep(a_moment).await;
        assert!(!first.is_finished(), "it waits for the producer");
        let stats = start_alone(&producer);
        tokio::time::sleep(a_moment).await;
        assert!(!first.is_finished(), "it waits for the client");
        assert_eq!(stats.handled.load(Relaxed), 0, "and not in the mailbox");
        producer.client().will_not_come();
        assert!(first.await.expect("no panic").is_err(), "there is no client");
        assert_eq!(stats.handled.load(Relaxed), 1);
    }

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
