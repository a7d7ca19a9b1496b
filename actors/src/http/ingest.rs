//! The way in: a webhook is read, verified, mapped and published; 202 is said after Kafka has acknowledged it.

mod publish;
mod request;

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
use serde::Serialize;
use serde_json::json;
use tracing::{error, warn};

use super::IngestSettings;
use super::body::{self, Body};
use super::budget::Budget;
use super::certificates;
use super::connection::Serving;
use super::problem::Problem;
use crate::kafka::event_headers;
use crate::metrics::{ACCEPTED, Metrics, WebhookMetrics};
use crate::parking::{self, ParkedEvent};
use crate::producer::{ProducerRef, Producers};
use crate::sources::{self, Accepted, AuthError, CertificateError, Incoming, Received, Refusal, Source, Sources};
use crate::stats::ActorStats;
use publish::{ToPublish, publish};
use request::{RequestHeaders, is_json, peer, trace_parent};

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
