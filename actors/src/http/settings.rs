//! `[ingest]` and `[admin]` of config.toml.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::connection::ConnectionLimits;
use super::listener::ListenSettings;
use super::tls::TlsSettings;
use crate::bounds;
use crate::secret::SecretRef;
use crate::sources;

/// `[ingest]` of config.toml. Each is a bound on what a client can take from the others.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    /// Where webhooks are taken.
    pub listen: SocketAddr,
    /// TLS of this listener.
    pub tls: Option<TlsSettings>,
    /// Largest body in bytes.
    pub body_limit: usize,
    /// How long a body may take to arrive.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Bytes that all bodies under way may take together; the first 16 KiB of each do not count. Further ones are
    /// answered 503.
    pub body_memory: usize,
    /// Largest head of a request in bytes.
    pub head_limit: usize,
    /// How long the handshake of TLS, and the first request's head on a connection, may take.
    #[serde(with = "humantime_serde")]
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// How long a webhook may wait for Kafka before it is answered 503. Shorter than the providers' own time-outs (the
    /// shortest is 5 s), so that they hear a clear "again, please".
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Requests that may be under way at once, once their bodies are there; more are answered 503 at once.
    pub max_in_flight: usize,
    /// Connections that may be open at once; further ones wait.
    pub max_connections: usize,
    /// The same for one peer, which is an address, or a network of 64 bits of IPv6; further ones are closed. 0 for no such
    /// bound. It does not hold for `trusted_proxies`.
    pub max_connections_per_peer: usize,
    /// Threads that serve requests; 0 for one a core.
    pub workers: usize,
    /// Proxies before this server: of a request that one of them hands on, the address that `X-Forwarded-For` names counts.
    #[serde(deserialize_with = "sources::networks")]
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            body_limit: 1 << 20,
            body_timeout: Duration::from_secs(5),
            body_memory: 256 << 20,
            head_limit: 16 << 10,
            head_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(5),
            deadline: Duration::from_secs(4),
            max_in_flight: 2048,
            max_connections: 16384,
            max_connections_per_peer: 4096,
            workers: 0,
            trusted_proxies: Vec::new(),
        }
    }
}

impl IngestSettings {
    /// Says which bound lets nothing through, or undoes another.
    pub fn validate(&self) -> Result<(), String> {
        const INSTANT: Duration = Duration::from_millis(100);
        const MINUTE: Duration = Duration::from_secs(60);
        for (key, value, least, most) in [
            ("ingest.body_limit", self.body_limit, 1, MOST_BODY),
            ("ingest.max_in_flight", self.max_in_flight, 1, MANY),
            ("ingest.max_connections", self.max_connections, 1, MANY),
            (
                "ingest.max_connections_per_peer",
                self.max_connections_per_peer,
                0,
                MANY,
            ),
            ("ingest.workers", self.workers, 0, 1024),
            ("ingest.body_memory", self.body_memory, 1, 1 << 40),
        ] {
            bounds::number(key, value, least..=most)?;
        }
        for (key, value, most) in [
            ("ingest.body_timeout", self.body_timeout, MINUTE * 10),
            ("ingest.head_timeout", self.head_timeout, MINUTE * 10),
            ("ingest.keep_alive", self.keep_alive, MINUTE * 60),
            ("ingest.deadline", self.deadline, MINUTE),
        ] {
            bounds::time(key, value, INSTANT..=most)?;
        }
        if self.body_memory < self.body_limit {
            return Err(format!(
                "ingest.body_memory = {} is less than ingest.body_limit = {}: raise the one or lower the other",
                self.body_memory, self.body_limit
            ));
        }
        if !(1024..=MOST_HEAD).contains(&self.head_limit) {
            return Err(format!(
                "ingest.head_limit = {} is not between 1024 and {MOST_HEAD} bytes",
                self.head_limit
            ));
        }
        Ok(())
    }

    /// After so long Kafka's acknowledgement is not waited for any more, so that the answer to a webhook is known before
    /// its deadline.
    pub fn delivery_timeout(&self) -> Duration {
        self.deadline.mul_f64(0.8)
    }

    /// How the listener is set up.
    pub fn listener(&self) -> ListenSettings {
        let workers = match self.workers {
            0 => std::thread::available_parallelism().map_or(2, NonZero::get),
            n => n,
        };
        ListenSettings {
            listen: self.listen,
            workers,
            max_connections: self.max_connections,
            max_connections_per_peer: self.max_connections_per_peer,
            trusted_proxies: self.trusted_proxies.clone(),
            limits: ConnectionLimits {
                head_timeout: self.head_timeout,
                keep_alive: self.keep_alive,
                head_limit: self.head_limit,
                // The longest that an honest request takes, from one answer to the next.
                answer_timeout: self.keep_alive + self.head_timeout + self.body_timeout + self.deadline,
            },
            tls: self.tls.clone(),
            shutdown_timeout: self.deadline + Duration::from_secs(1),
        }
    }
}

/// Kafka's clients take no record of more than 1 GB, and the event around a body is larger than that.
const MOST_BODY: usize = 512 << 20;
/// More connections or requests than a process can have.
const MANY: usize = 1 << 20;
/// What the HTTP library reads of a head at most, in bytes.
const MOST_HEAD: usize = 128 << 10;

/// `[admin]` of config.toml.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Where health, figures and the page are served.
    pub listen: SocketAddr,
    /// TLS of this listener.
    pub tls: Option<TlsSettings>,
    /// Required off loopback: everything but health asks for it then.
    pub token: Option<SecretRef>,
    /// Connections that may be open at once; further ones wait.
    pub max_connections: usize,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081),
            tls: None,
            token: None,
            max_connections: 256,
        }
    }
}

impl AdminSettings {
    /// Off loopback there is a token to be asked for.
    pub fn validate(&self) -> Result<(), String> {
        if !self.is_loopback() && self.token.is_none() {
            return Err(format!(
                "admin.listen = {} is not loopback and admin.token is not set: set it, for example to \"env:HOOKMILL_ADMIN_TOKEN\"",
                self.listen
            ));
        }
        bounds::number("admin.max_connections", self.max_connections, 1..=MANY)
    }

    /// Whether only this machine can reach the listener.
    pub fn is_loopback(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }

    /// How the listener is set up. Its requests have no bodies, and their answers are at hand.
    pub fn listener(&self) -> ListenSettings {
        const PATIENCE: Duration = Duration::from_secs(5);
        ListenSettings {
            listen: self.listen,
            workers: 1,
            max_connections: self.max_connections,
            max_connections_per_peer: 0,
            trusted_proxies: Vec::new(),
            limits: ConnectionLimits {
                head_timeout: PATIENCE,
                keep_alive: PATIENCE,
                head_limit: 16 << 10,
                answer_timeout: PATIENCE * 3,
            },
            tls: self.tls.clone(),
            shutdown_timeout: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_lets_nothing_through_is_refused_by_name() {
        let refused = |change: fn(&mut IngestSettings)| {
            let mut settings = IngestSettings::default();
            change(&mut settings);
            settings.validate().expect_err("it is no sensible bound")
        };
        assert_eq!(IngestSettings::default().validate(), Ok(()));
        for (message, key) in [
            (refused(|s| s.max_connections = 0), "ingest.max_connections"),
            (refused(|s| s.max_in_flight = 0), "ingest.max_in_flight"),
            (refused(|s| s.body_limit = 0), "ingest.body_limit"),
            (refused(|s| s.deadline = Duration::ZERO), "ingest.deadline"),
            (refused(|s| s.deadline = Duration::MAX), "ingest.deadline"),
            (refused(|s| s.keep_alive = Duration::ZERO), "ingest.keep_alive"),
            (refused(|s| s.body_memory = 1), "ingest.body_memory"),
            (refused(|s| s.head_limit = 1 << 20), "ingest.head_limit"),
        ] {
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn off_loopback_there_must_be_a_token() {
        let mut settings = AdminSettings::default();
        assert_eq!(settings.validate(), Ok(()));
        for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            settings.listen = listen.parse().expect("an address");
            assert!(
                settings.validate().is_err_and(|e| e.contains("admin.token")),
                "{listen}"
            );
        }
        for listen in ["127.0.0.2:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            settings.listen = listen.parse().expect("an address");
            assert_eq!(settings.validate(), Ok(()), "{listen}");
        }
    }
}
