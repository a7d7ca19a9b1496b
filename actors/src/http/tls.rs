//! TLS of a listener: a certificate and its key from files, read again when they change or on SIGHUP. What is open goes on
//! with what it has; a pair that cannot be used leaves the old one in its place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use x509_cert::der::Decode as _;

use crate::stats::{ActorStats, rfc3339};

/// `[ingest.tls]` and `[admin.tls]` of config.toml.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate, and behind it those that lead to its root, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A certificate with its key, ready to be shown.
#[derive(Clone)]
struct Pair {
    key: Arc<CertifiedKey>,
    valid_until: DateTime<Utc>,
}

impl TlsSettings {
    /// Reads both files and says until when the certificate is valid. The error names the file and what to do.
    pub fn check(&self) -> Result<DateTime<Utc>, String> {
        Ok(self.read()?.valid_until)
    }

    fn read(&self) -> Result<Pair, String> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        let of_certificate =
            |why: &dyn fmt::Display| format!("the certificate {certificate} cannot be used ({why}): give a PEM file");
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|error| of_certificate(&error))?;
        let Some(first) = chain.first() else {
            return Err(of_certificate(&"no certificate is in it"));
        };
        let valid_until = valid_until(first).ok_or_else(|| of_certificate(&"it is not in the form of X.509"))?;
        // The parser's words would not hold the key, but its neighbours' might one day.
        let private = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|_| format!("the key {key} cannot be read: give a PEM file that this process may read"))?;
        let pair = CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
            format!("the certificate {certificate} and the key {key} cannot be used together ({error}): give the key that belongs to the certificate")
        })?;
        Ok(Pair {
            key: Arc::new(pair),
            valid_until,
        })
    }

    fn stamp(&self) -> [Option<Stamp>; 2] {
        [Stamp::of(&self.certificate), Stamp::of(&self.key)]
    }
}

fn valid_until(certificate: &CertificateDer<'_>) -> Option<DateTime<Utc>> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let end = parsed.tbs_certificate.validity.not_after.to_unix_duration();
    DateTime::from_timestamp(i64::try_from(end.as_secs()).ok()?, 0)
}

/// Tells a file from what stood there before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    changed: SystemTime,
    length: u64,
    file: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let seen = std::fs::metadata(path).ok()?;
        Some(Self {
            changed: seen.modified().ok()?,
            length: seen.len(),
            file: seen.ino(),
        })
    }
}

/// What new connections are shown.
struct Shown(ArcSwap<CertifiedKey>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// A listener's certificate.
pub(super) struct ListenerTls {
    settings: TlsSettings,
    shown: Arc<Shown>,
    valid_until: DateTime<Utc>,
    seen: [Option<Stamp>; 2],
}

impl ListenerTls {
    pub(super) fn load(settings: TlsSettings) -> Result<Self, String> {
        let seen = settings.stamp();
        let pair = settings.read()?;
        Ok(Self {
            settings,
            shown: Arc::new(Shown(ArcSwap::new(pair.key))),
            valid_until: pair.valid_until,
            seen,
        })
    }

    /// For the listener's acceptor; stays right over every change of the certificate.
    pub(super) fn server_config(&self) -> Result<Arc<ServerConfig>, String> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_no_client_auth()
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads the files again if they changed, or if `told`; what came of it, if anything was to be done.
    fn look(&mut self, told: bool) -> Option<Result<(), String>> {
        let seen = self.settings.stamp();
        if !told && seen == self.seen {
            return None;
        }
        self.seen = seen;
        Some(self.settings.read().map(|pair| {
            self.shown.0.store(pair.key);
            self.valid_until = pair.valid_until;
        }))
    }

    /// Keeps the certificate up to date for as long as it is polled.
    pub(super) async fn keep_fresh(mut self, stats: Arc<ActorStats>) {
        // Without the signal there are still the files.
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            stats.show("certificate_valid_until", rfc3339(self.valid_until));
            let told = match &mut hangup {
                Some(hangup) => tokio::select! {
                    told = hangup.recv() => told.is_some(),
                    _ = every.tick() => false,
                },
                None => {
                    every.tick().await;
                    false
                }
            };
            let looked = tokio::task::spawn_blocking(move || {
                let outcome = self.look(told);
                (self, outcome)
            });
            let Ok((again, outcome)) = looked.await else { return };
            self = again;
            let certificate = self.settings.certificate.display();
            match outcome {
                None => {}
                Some(Ok(())) => {
                    info!(%certificate, valid_until = %self.valid_until, "new connections are shown the certificate as it is now");
                }
                Some(Err(problem)) => {
                    stats.record_error(&problem);
                    warn!(%problem, "the certificate stays as it was");
                }
            }
        }
    }
}
