//! The HTTP servers: one for webhooks, one for operators. Each is an actor that owns a server with threads of its own.

mod admin;
mod certificates;
mod ingest;
pub mod problem;

pub use admin::{AdminSettings, AdminState, DEFAULT_ADMIN};
pub use ingest::{IngestSettings, IngestState, IngestTopics};

use std::net::SocketAddr;
use std::time::Duration;

use actix::prelude::*;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer as WebServer, web};
use tracing::info;

use crate::supervision::Life;

/// Which of the two servers.
#[derive(Clone)]
pub enum Site {
    /// Takes webhooks.
    Ingest(web::Data<IngestState>),
    /// Health, figures and the page.
    Admin(web::Data<AdminState>),
}

impl Site {
    /// Adds its routes to a server's.
    pub fn mount(self, app: &mut web::ServiceConfig) {
        match self {
            Site::Ingest(state) => ingest::configure(app, state),
            Site::Admin(state) => admin::configure(app, state),
        }
    }
}

/// Where and how a server listens.
#[derive(Clone, Debug)]
pub struct ListenSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// Threads that serve requests.
    pub workers: usize,
    /// Connections that may be open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// How long a client may take to send a request's head.
    pub head_timeout: Duration,
    /// How long requests under way may take once the server stops.
    pub shutdown_timeout: Duration,
}

/// One server. It fails, and is restarted, when it cannot listen or its server ends by itself.
pub struct HttpServer {
    life: Life,
    settings: ListenSettings,
    site: Site,
}

impl HttpServer {
    /// A server of `site`; it listens from its start on.
    pub fn new(life: Life, settings: ListenSettings, site: Site) -> Self {
        Self { life, settings, site }
    }

    fn serve(&self) -> std::io::Result<actix_web::dev::Server> {
        let ListenSettings {
            listen,
            workers,
            max_connections,
            head_timeout,
            shutdown_timeout,
        } = self.settings.clone();
        let site = self.site.clone();
        let server = WebServer::new(move || {
            let site = site.clone();
            App::new().configure(move |app| site.mount(app))
        })
        .workers(workers)
        .max_connections(max_connections.div_ceil(workers.max(1)))
        .client_request_timeout(head_timeout)
        .shutdown_timeout(shutdown_timeout.as_secs().max(1))
        .disable_signals()
        .bind(listen)?;
        Ok(server.run())
    }
}

impl Actor for HttpServer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let server = match self.serve() {
            Ok(server) => server,
            Err(error) => {
                self.life
                    .fail(format!("cannot listen on {}: {error}", self.settings.listen));
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
        info!(listen = %self.settings.listen, "listening for {name}");
        self.life.stats().show("listen", self.settings.listen.to_string());
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
    fn heartbeat(&self) {
        match self.site {
            Site::Ingest(_) => fail::fail_point!("http_server::ingest"),
            Site::Admin(_) => fail::fail_point!("http_server::admin"),
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
