//! The operators' listener: health, figures, and a page for people.

use std::time::Instant;

use actix_web::http::header::AUTHORIZATION;
use actix_web::{HttpRequest, HttpResponse, guard, web};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;

use super::problem::Problem;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::partition_table::PartitionTable;
use crate::sources::Source;
use crate::stats::Registry;

/// What the pages read.
pub struct AdminState {
    /// Who this process is, in logs and in `consumer_offsets.owner`.
    pub instance: String,
    /// When it started.
    pub started: Instant,
    /// The actors.
    pub actors: Registry,
    /// The partitions.
    pub partitions: PartitionTable,
    /// Who may send, and with which secrets they did.
    pub sources: Vec<std::sync::Arc<Source>>,
    /// The metrics.
    pub metrics: std::sync::Arc<Metrics>,
    /// The probes.
    pub health: Health,
    /// Asked for on every page but health; `None` on loopback.
    pub token: Option<SecretString>,
}

pub(super) fn configure(app: &mut web::ServiceConfig, state: web::Data<AdminState>) {
    app.app_data(state)
        .service(
            probe("/health/live")
                .route(web::get().to(live))
                .route(web::head().to(live)),
        )
        .service(
            probe("/health/ready")
                .route(web::get().to(ready))
                .route(web::head().to(ready)),
        )
        .service(
            web::scope("")
                .guard(guard::fn_guard(|request| {
                    let state = request.app_data::<web::Data<AdminState>>();
                    let given = request.head().headers().get(AUTHORIZATION).map(|v| v.as_bytes());
                    state.is_some_and(|state| admitted(state.token.as_ref(), given))
                }))
                .route("/stats", web::get().to(stats))
                .route("/metrics", web::get().to(metrics))
                .route("/", web::get().to(page))
                .default_service(web::to(elsewhere)),
        )
        .default_service(web::to(refused));
}

/// A path that load balancers ask, by GET or HEAD.
fn probe(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::to(async || Problem::method("GET, HEAD").response()))
}

/// Compares in constant time, by comparing MACs of both.
fn admitted(token: Option<&SecretString>, given: Option<&[u8]>) -> bool {
    let Some(token) = token else { return true };
    // The scheme's name is the same in any case (RFC 9110, 11.1).
    let Some((scheme, given)) = given.and_then(|v| v.split_at_checked(7)) else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return false;
    }
    let mac = |text: &[u8]| Hmac::<Sha256>::new_from_slice(b"hookmill admin token").map(|m| m.chain_update(text));
    match (mac(given), mac(token.expose_secret().as_bytes())) {
        (Ok(given), Ok(token)) => given.verify(&token.finalize().into_bytes()).is_ok(),
        _ => false,
    }
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "live" }))
}

async fn ready(state: web::Data<AdminState>) -> HttpResponse {
    let (ready, report) = state.health.readiness();
    let mut response = if ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    response.json(report)
}

async fn stats(state: web::Data<AdminState>) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "instance": state.instance,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": state.started.elapsed().as_secs_f64(),
        "health": state.health.readiness().1,
        "actors": state.actors.tree(),
        "partitions": state.partitions.view(),
        "sources": state.sources.iter().map(|s| source(s)).collect::<Value>(),
    }))
}

fn source(source: &Source) -> Value {
    json!({ "name": source.name(), "preset": source.preset(), "path": source.path(), "secrets": source.secrets_view() })
}

async fn metrics(state: web::Data<AdminState>) -> HttpResponse {
    match state.metrics.render() {
        Ok(text) => HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .body(include_str!("page.html"))
}

async fn elsewhere(request: HttpRequest) -> HttpResponse {
    let known = ["/", "/stats", "/metrics"].contains(&request.path());
    let problem = if known {
        Problem::method("GET")
    } else {
        Problem::not_found()
    };
    problem.response()
}

async fn refused(request: HttpRequest) -> HttpResponse {
    let health = request.path().starts_with("/health/");
    let problem = if health { Problem::not_found() } else { Problem::token() };
    problem.response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_asked_for_only_if_there_is_one() {
        let token = SecretString::from("s3cret");
        assert!(admitted(None, None));
        assert!(admitted(Some(&token), Some(b"Bearer s3cret")));
        for wrong in [
            None,
            Some(&b"Bearer s3cre"[..]),
            Some(b"s3cret"),
            Some(b"Bearer "),
            Some(b"Basic s3cret"),
        ] {
            assert!(!admitted(Some(&token), wrong), "{wrong:?}");
        }
    }
}
