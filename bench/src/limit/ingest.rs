//! The limit of taking webhooks: an actix-web handler that verifies the signature, produces the body with the product's
//! producer settings but for the requests in flight, and answers when Kafka has acknowledged it. No mapping, no envelope, no
//! limits, no metrics; which topic, it is told by the sender ([`KIND`]), so that Kafka's part is the same.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::web::{Bytes, Data, get, post};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use hookmill_actors::kafka::KafkaSettings;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sha2::Sha256;

use crate::product::SECRET;

/// The header that says `order` or `dispute`, what the product reads in the body.
pub const KIND: &str = "x-bench-kind";

/// What it must know.
#[derive(Clone, clap::Args)]
pub struct Settings {
    /// Kafka.
    #[arg(long)]
    pub brokers: String,
    /// The orders' topic.
    #[arg(long)]
    pub orders: String,
    /// The disputes' topic.
    #[arg(long)]
    pub disputes: String,
    /// Where to listen.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Requests to the broker that may be under way at once.
    #[arg(long)]
    pub in_flight: u8,
    /// How long a record waits for others of its partition, in milliseconds.
    #[arg(long)]
    pub linger_ms: String,
}

struct State {
    producer: FutureProducer,
    mac: Hmac<Sha256>,
    orders: String,
    disputes: String,
}

/// Serves until it is killed.
pub fn run(settings: Settings) -> Result<()> {
    let kafka = KafkaSettings {
        brokers: settings.brokers,
        ..KafkaSettings::default()
    };
    let mut config = kafka.producer(Duration::from_secs(4), 2 << 20);
    config
        .set("max.in.flight.requests.per.connection", settings.in_flight.to_string())
        .set("linger.ms", settings.linger_ms);
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_"))?;
    let state = Data::new(State {
        producer: config.create()?,
        mac: Hmac::new_from_slice(&key).context("no key")?,
        orders: settings.orders,
        disputes: settings.disputes,
    });
    actix_web::rt::System::new().block_on(async move {
        let app = move || {
            App::new()
                .app_data(state.clone())
                .route("/health/ready", get().to(HttpResponse::Ok))
                .route("/webhooks/standard", post().to(receive))
        };
        HttpServer::new(app).bind(settings.listen)?.run().await
    })?;
    Ok(())
}

async fn receive(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    let Some(id) = verified(&request, &body, &state.mac) else {
        return HttpResponse::Unauthorized().finish();
    };
    let is_dispute = request.headers().get(KIND).is_some_and(|kind| kind == "dispute");
    let topic = if is_dispute { &state.disputes } else { &state.orders };
    let record = FutureRecord::to(topic).key(id).payload(&body[..]);
    match state.producer.send(record, Duration::ZERO).await {
        Ok(_) => HttpResponse::Accepted().body(id.to_owned()),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

/// The webhook's id, if its signature is right.
fn verified<'a>(request: &'a HttpRequest, body: &[u8], mac: &Hmac<Sha256>) -> Option<&'a str> {
    let header = |name| request.headers().get(name)?.to_str().ok();
    let (id, time) = (header("webhook-id")?, header("webhook-timestamp")?);
    let signature = STANDARD
        .decode(header("webhook-signature")?.strip_prefix("v1,")?)
        .ok()?;
    let mut mac = mac.clone();
    for part in [id.as_bytes(), b".", time.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac.verify_slice(&signature).ok()?;
    Some(id)
}
