//! How connections come in: bounded in number, in all and for each peer, through TLS where it is configured, and each
//! under its own [`ConnectionLimits`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_server::Server;
use actix_service::{ServiceFactoryExt as _, fn_service};
use actix_web::rt::net::TcpStream;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::Site;
use super::connection::{Connection, ConnectionLimits, Stream};
use super::peers::Peers;
use super::tls::TlsSettings;

/// Where and how a server listens.
#[derive(Clone, Debug)]
pub struct ListenSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// Threads that serve requests.
    pub workers: usize,
    /// Connections that may be open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// The same for each peer; further ones are closed at once. 0 for no such bound.
    pub max_connections_per_peer: usize,
    /// Networks of which the peers' number of connections is not bounded.
    pub trusted_proxies: Vec<IpNet>,
    /// What each connection may take.
    pub limits: ConnectionLimits,
    /// TLS, where it is wanted.
    pub tls: Option<TlsSettings>,
    /// How long requests under way may take once the server stops.
    pub shutdown_timeout: Duration,
}

/// How long a connection that is to be closed may take to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Lets connections in.
struct Door {
    limits: ConnectionLimits,
    peers: Arc<Peers>,
    tls: Option<TlsAcceptor>,
}

impl Door {
    async fn admit(&self, stream: TcpStream) -> io::Result<(Connection, Option<SocketAddr>)> {
        let peer = stream.peer_addr()?;
        let turn = self
            .peers
            .enter(peer.ip())
            .ok_or_else(|| io::Error::other("the peer has too many connections"))?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => Stream::Tls(Box::new(timeout(self.limits.head_timeout, tls.accept(stream)).await??)),
        };
        Ok((Connection::new(stream, self.limits, turn), Some(peer)))
    }
}

/// A server of `site` that listens at once. Fails where the address is not to be had.
pub(super) fn serve(
    settings: &ListenSettings,
    site: Site,
    peers: Arc<Peers>,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<Server> {
    let door = Arc::new(Door {
        limits: settings.limits,
        peers,
        tls: tls.map(TlsAcceptor::from),
    });
    let (listen, limits) = (settings.listen, settings.limits);
    let builder = Server::build()
        .workers(settings.workers)
        .max_concurrent_connections(settings.max_connections.div_ceil(settings.workers.max(1)))
        .shutdown_timeout(settings.shutdown_timeout.as_secs().max(1))
        .disable_signals();
    let draining = builder.graceful_shutdown_signal();
    let factory = move || {
        let (site, door, draining) = (site.clone(), door.clone(), draining.clone());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let draining = draining.clone();
                async move { draining.notified().await }
            })
            .keep_alive(limits.keep_alive)
            .client_request_timeout(limits.head_timeout)
            .client_disconnect_timeout(FAREWELL)
            .local_addr(listen)
            .on_connect_ext(|connection: &Connection, data| {
                data.insert(connection.head());
            })
            .h1(site.service());
        fn_service(move |stream: TcpStream| {
            let door = door.clone();
            async move { Ok(door.admit(stream).await?) }
        })
        .and_then(http)
    };
    Ok(builder.bind("http", listen, factory)?.run())
}
