//! The HTTP servers: one for webhooks, one for operators. Each is an actor that owns a server with threads of its own.

mod admin;
mod body;
mod budget;
mod certificates;
mod connection;
mod ingest;
mod listener;
mod peers;
pub mod problem;
mod settings;
mod tls;

pub use admin::AdminState;
pub use connection::ConnectionLimits;
pub use ingest::{IngestState, IngestTopics};
pub use listener::ListenSettings;
pub use settings::{AdminSettings, IngestSettings};
pub use tls::TlsSettings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use actix_http::body::BoxBody;
use actix_http::{Request, Response};
use actix_server::{Server, ServerHandle};
use actix_service::boxed::{self, BoxServiceFactory};
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, map_config};
use actix_web::dev::AppConfig;
use actix_web::{App, web};
use tracing::{info, warn};

use crate::supervision::Life;
use peers::Peers;
use tls::ListenerTls;

/// Which of the two servers.
#[derive(Clone)]
pub enum Site {
    /// Takes webhooks.
    Ingest(Arc<IngestState>),
    /// Health, figures and the page.
    Admin(web::Data<AdminState>),
}

impl Site {
    /// What serves its requests.
    pub fn service(self) -> BoxServiceFactory<(), Request, Response<BoxBody>, Response<BoxBody>, ()> {
        match self {
            Site::Ingest(state) => boxed::factory(ingest::service(state)),
            Site::Admin(state) => {
                let app = App::new().configure(move |app| admin::configure(app, state));
                let app = map_config(app.into_factory(), |()| AppConfig::default());
                boxed::factory(app.map(Response::from).map_err(|error| error.error_response().into()))
            }
        }
    }
}

/// One server. It fails, and is restarted, when it cannot listen or its server ends by itself.
pub struct HttpServer {
    life: Life,
    settings: ListenSettings,
    site: Site,
    peers: Arc<Peers>,
    /// Connections that had been refused when it was logged last, and when that was.
    told_refused: (u64, Option<Instant>),
}

/// Refused connections are many where there are any: told at most this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl HttpServer {
    /// A server of `site`; it listens from its start on.
    pub fn new(life: Life, settings: ListenSettings, site: Site) -> Self {
        let peers = Peers::new(settings.max_connections_per_peer, settings.trusted_proxies.clone());
        Self {
            life,
            settings,
            site,
            peers: Arc::new(peers),
            told_refused: (0, None),
        }
    }

    fn serve(&self) -> Result<(Server, Option<ListenerTls>), String> {
        let listen = self.settings.listen;
        let tls = self.settings.tls.clone().map(ListenerTls::load).transpose()?;
        let config = tls.as_ref().map(ListenerTls::server_config).transpose()?;
        let server = listener::serve(&self.settings, self.site.clone(), self.peers.clone(), config);
        Ok((
            server.map_err(|error| format!("cannot listen on {listen}: {error}"))?,
            tls,
        ))
    }
}

impl Actor for HttpServer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (server, tls) = match self.serve() {
            Ok(serving) => serving,
            Err(error) => {
                self.life.fail(error);
                return ctx.stop();
            }
        };
        let name = match &self.site {
            Site::Ingest(state) => {
                state.counts_into(self.life.stats().clone());
                "webhooks"
            }
            Site::Admin(_) => "admin",
        };
        info!(listen = %self.settings.listen, tls = tls.is_some(), "listening for {name}");
        self.life.stats().show("listen", self.settings.listen.to_string());
        if let Some(tls) = tls {
            ctx.spawn(tls.keep_fresh(self.life.stats().clone()).into_actor(self));
        }
        let handle = server.handle();
        ctx.spawn(server.into_actor(self).map(|result, act, ctx| {
            if !act.life.token().is_cancelled() {
                act.life.fail(format!("the server ended by itself: {result:?}"));
            }
            ctx.stop();
        }));
        let watched = handle.clone();
        ctx.spawn(stop_when_told(self.life.clone(), handle).into_actor(self));
        ctx.spawn(StopOnDrop(watched).forever().into_actor(self));
        ctx.run_interval(Duration::from_secs(1), |act, _| act.heartbeat());
    }
}

impl HttpServer {
    fn heartbeat(&mut self) {
        match self.site {
            Site::Ingest(_) => fail::fail_point!("http_server::ingest"),
            Site::Admin(_) => fail::fail_point!("http_server::admin"),
        }
        let refused = self.peers.refused();
        let stats = self.life.stats();
        stats.show("connections", self.peers.open());
        stats.show("connections_refused", refused);
        let (told, at) = self.told_refused;
        if refused > told && at.is_none_or(|at| at.elapsed() > TELL_EVERY) {
            let (more, most) = (refused - told, self.settings.max_connections_per_peer);
            warn!(
                more,
                "connections were closed at once: their peers had max_connections_per_peer = {most} already"
            );
            self.told_refused = (refused, Some(Instant::now()));
        }
    }
}

async fn stop_when_told(life: Life, handle: ServerHandle) {
    life.stopped().await;
    // Stops accepting at once and waits for requests under way.
    handle.stop(true).await;
}

/// A server outlives the actor that panicked unless it is told; its port would stay taken.
struct StopOnDrop(ServerHandle);

impl StopOnDrop {
    async fn forever(self) {
        std::future::pending::<()>().await;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        // The command is sent at once; only the wait for its end is left out.
        drop(self.0.stop(false));
    }
}
