//! RSA signatures whose certificate the request names by a URL (PayPal's form). Nothing is trusted for its URL: the host
//! must be allowed, the chain must lead to a known root, and the certificate must be the provider's own.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use chrono::{DateTime, TimeDelta, Utc};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use secrecy::{ExposeSecret, SecretString};
use webpki::{EndEntityCert, KeyUsage};

use super::parts::Content;
use super::{AuthError, Key, Keys, malformed, required};
use crate::sources::config::{CertificateConfig, Fault, Under};
use crate::sources::{HeaderLookup, Incoming};

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not in PEM, or no certificate in it.
    #[error("it holds no certificate in PEM form")]
    NotPem,
    /// Its chain does not lead to a known root, or it is not valid now.
    #[error("its chain is not to be trusted: {0}")]
    Chain(String),
    /// It is somebody else's.
    #[error("it is not for {0}")]
    Subject(String),
    /// The provider has none of this name.
    #[error("the provider has none of this name: it answered {0}")]
    Unknown(u16),
    /// It could not be fetched.
    #[error("it could not be fetched: {0}")]
    Fetch(String),
    /// A failure a moment ago is not tried again at once.
    #[error("it could not be fetched a moment ago")]
    TooSoon,
}

/// A leaf and what stands between it and a root.
#[derive(Clone, Debug)]
struct Chain {
    leaf: CertificateDer<'static>,
    between: Vec<CertificateDer<'static>>,
}

impl Chain {
    fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let all: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::NotPem)?;
        let mut all = all.into_iter();
        let leaf = all.next().ok_or(CertificateError::NotPem)?;
        Ok(Self {
            leaf,
            between: all.collect(),
        })
    }
}

struct Known {
    chain: Arc<Chain>,
    /// When the chain was found good last; it is judged again after an hour.
    judged: Option<DateTime<Utc>>,
}

#[derive(Default)]
struct State {
    known: HashMap<String, Known>,
    failed: HashMap<String, DateTime<Utc>>,
}

/// The certificates that are known: those provisioned beforehand, and those fetched meanwhile.
pub struct Certificates(Arc<Inner>);

struct Inner {
    provisioned: Vec<Arc<Chain>>,
    roots: Vec<TrustAnchor<'static>>,
    subject: Mutex<Option<String>>,
    state: Mutex<State>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("provisioned", &self.0.provisioned.len())
            .finish_non_exhaustive()
    }
}

/// Most URLs that are remembered, good or bad: a provider has one or two certificates.
const MOST_URLS: usize = 16;
/// A chain that was found good is believed for so long.
const BELIEVED: TimeDelta = TimeDelta::hours(1);
/// A URL that failed is not asked again for so long: strangers must not make us hammer the provider.
const FORBEARANCE: TimeDelta = TimeDelta::seconds(10);

impl Certificates {
    /// Reads the chains that are given beforehand, and the roots; those of the web where none are given.
    pub(in crate::sources) fn provisioned(files: &[PathBuf], roots: Option<&Path>) -> Result<Self, Fault> {
        let read = |path: &Path, key: &str| {
            std::fs::read(path).map_err(|error| format!("cannot read {key} {} ({error})", path.display()))
        };
        let mut provisioned = Vec::with_capacity(files.len());
        for (i, path) in files.iter().enumerate() {
            let chain = read(path, "certificates").and_then(|pem| {
                let chain = Chain::from_pem(&pem);
                chain.map_err(|error| format!("cannot use certificates {}: {error}", path.display()))
            });
            provisioned.push(Arc::new(chain.under(i).under("certificates")?));
        }
        let roots = roots
            .map(|path| roots_of(path, &read))
            .transpose()
            .under("certificate_roots")?;
        let roots = roots.unwrap_or_else(|| webpki_roots::TLS_SERVER_ROOTS.to_vec());
        Ok(Self(Arc::new(Inner {
            provisioned,
            roots,
            subject: Mutex::default(),
            state: Mutex::default(),
        })))
    }

    fn clone_ref(&self) -> Self {
        Self(self.0.clone())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this URL may be asked for now; if so, it counts as asked.
    pub fn may_fetch(&self, url: &str, now: DateTime<Utc>) -> bool {
        let mut state = self.state();
        if state.failed.get(url).is_some_and(|at| now - *at < FORBEARANCE) {
            return false;
        }
        if state.failed.len() >= MOST_URLS {
            state.failed.retain(|_, at| now - *at < FORBEARANCE);
        }
        if state.failed.len() >= MOST_URLS {
            return false;
        }
        state.failed.insert(url.to_owned(), now);
        true
    }

    /// Takes what was fetched from `url`, if its chain and name are right.
    pub fn add(&self, url: &str, pem: &[u8], now: DateTime<Utc>) -> Result<(), CertificateError> {
        let chain = Arc::new(Chain::from_pem(pem)?);
        let subject = self.0.subject.lock().unwrap_or_else(PoisonError::into_inner).clone();
        judge(&chain, &self.0.roots, subject.as_deref().unwrap_or_default(), now)?;
        let mut state = self.state();
        if state.known.len() >= MOST_URLS && !state.known.contains_key(url) {
            // The one judged longest ago makes room.
            let oldest = state.known.iter().min_by_key(|(_, known)| known.judged);
            if let Some(oldest) = oldest.map(|(url, _)| url.clone()) {
                state.known.remove(&oldest);
            }
        }
        state.failed.remove(url);
        let judged = Some(now);
        state.known.insert(url.to_owned(), Known { chain, judged });
        Ok(())
    }

    /// The chains that a signature under `url` may be made with; `None` where it must be fetched first.
    fn for_url(&self, url: &str, subject: &str, now: DateTime<Utc>) -> Option<Vec<Arc<Chain>>> {
        if !self.0.provisioned.is_empty() {
            let good = |chain: &&Arc<Chain>| judge(chain, &self.0.roots, subject, now).is_ok();
            return Some(self.0.provisioned.iter().filter(good).cloned().collect());
        }
        let mut state = self.state();
        let known = state.known.get_mut(url)?;
        if known.judged.is_none_or(|at| (now - at).abs() > BELIEVED) {
            if judge(&known.chain, &self.0.roots, subject, now).is_err() {
                // Expired, most likely: the provider has a new one under the same name.
                state.known.remove(url);
                return None;
            }
            known.judged = Some(now);
        }
        Some(vec![known.chain.clone()])
    }
}

/// The roots in a file.
fn roots_of(
    path: &Path,
    read: &impl Fn(&Path, &str) -> Result<Vec<u8>, String>,
) -> Result<Vec<TrustAnchor<'static>>, String> {
    let pem = read(path, "certificate_roots")?;
    let all: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.unwrap_or_default();
    if all.is_empty() {
        return Err(format!(
            "cannot use certificate_roots {}: it holds no certificate in PEM form",
            path.display()
        ));
    }
    let anchor = |der: &CertificateDer<'_>| webpki::anchor_from_trusted_cert(der).map(|a| a.to_owned());
    let anchors: Result<Vec<_>, _> = all.iter().map(anchor).collect();
    anchors.map_err(|error| format!("cannot use certificate_roots {}: {error}", path.display()))
}

/// Whether a chain leads to a root, is valid at `now`, and is for `subject`.
fn judge(
    chain: &Chain,
    roots: &[TrustAnchor<'static>],
    subject: &str,
    now: DateTime<Utc>,
) -> Result<(), CertificateError> {
    let wrong = |error: webpki::Error| CertificateError::Chain(error.to_string());
    let leaf = EndEntityCert::try_from(&chain.leaf).map_err(wrong)?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.timestamp()).unwrap_or(0)));
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        roots,
        &chain.between,
        time,
        KeyUsage::server_auth(),
        None,
        None,
    )
    .map_err(wrong)?;
    let right = leaf.valid_dns_names().any(|name| names(subject, name));
    right
        .then_some(())
        .ok_or_else(|| CertificateError::Subject(subject.to_owned()))
}

/// Whether `pattern`, a name or `*.` and a name, stands for `name`.
fn names(pattern: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(below) => name
            .strip_suffix(below)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == name,
    }
}

/// A compiled scheme.
pub(super) struct Certificate {
    header: String,
    url_header: String,
    hosts: Vec<String>,
    subject: String,
    algorithm: Option<(String, String)>,
    content: Content,
    keys: Keys<SecretString>,
    certificates: Certificates,
}

impl Certificate {
    pub(super) fn compile(
        config: &CertificateConfig,
        url: Option<&str>,
        secrets: &[Key<'_>],
        certificates: &Certificates,
    ) -> Result<Self, Fault> {
        if config.hosts.is_empty() {
            return Err("has no auth.hosts: name the hosts that a certificate may come from").under("hosts");
        }
        let subject = config.subject.to_ascii_lowercase();
        *certificates.0.subject.lock().unwrap_or_else(PoisonError::into_inner) = Some(subject.clone());
        Ok(Self {
            header: config.header.to_ascii_lowercase(),
            url_header: config.url_header.to_ascii_lowercase(),
            hosts: config.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            subject,
            algorithm: config
                .algorithm
                .as_ref()
                .map(|(header, value)| (header.to_ascii_lowercase(), value.clone())),
            content: Content::compile(&config.content, url)?,
            keys: Keys(secrets.iter().map(|s| (s.index, s.text.clone())).collect()),
            certificates: certificates.clone_ref(),
        })
    }

    /// The headers that are part of what is signed.
    pub(super) fn signed_headers(&self) -> impl Iterator<Item = &str> {
        self.content.headers()
    }

    pub(super) fn verify<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
        valid: impl Fn(usize) -> bool,
    ) -> Result<usize, AuthError> {
        let signature = required(request.headers, &self.header)?.trim();
        let url = required(request.headers, &self.url_header)?.trim();
        if let Some((header, wanted)) = &self.algorithm
            && !required(request.headers, header)?.trim().eq_ignore_ascii_case(wanted)
        {
            return Err(malformed(header));
        }
        let signature = base64::engine::general_purpose::STANDARD
            .decode(signature)
            .map_err(|_| malformed(&self.header))?;
        if !host_of(url).is_some_and(|host| self.hosts.iter().any(|allowed| names(allowed, host))) {
            return Err(malformed(&self.url_header));
        }
        let Some(chains) = self.certificates.for_url(url, &self.subject, request.now) else {
            return Err(AuthError::CertificateNeeded { url: url.to_owned() });
        };
        for (index, secret) in self.keys.0.iter().filter(|(index, _)| valid(*index)) {
            let message = self.content.whole(request, None, secret.expose_secret())?;
            for chain in &chains {
                let leaf = EndEntityCert::try_from(&chain.leaf).map_err(|_| AuthError::Wrong)?;
                let algorithm = webpki::ring::RSA_PKCS1_2048_8192_SHA256;
                if leaf.verify_signature(algorithm, &message, &signature).is_ok() {
                    return Ok(*index);
                }
            }
        }
        Err(AuthError::Wrong)
    }
}

/// The host of an https URL that has nothing but a host, a path and a query: no user, no other port, no address.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    let plain = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && host.contains('.')
        && !host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (plain && url.is_ascii() && !url.bytes().any(|b| b.is_ascii_control() || b == b'\\' || b == b' ')).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_https_urls_have_a_host() {
        for good in ["https://api.paypal.com/v1/cert", "https://API.paypal.com?x"] {
            assert!(host_of(good).is_some_and(|host| names("*.paypal.com", host)), "{good}");
        }
        for bad in [
            "http://api.paypal.com/cert",
            "https://api.paypal.com@evil.example/cert",
            "https://evil.example/.paypal.com",
            "https://evil.example#.paypal.com",
            "https://evil.example\\.paypal.com/",
            "https://evilpaypal.com/",
            "https://paypal.com.evil.example/",
            "https://.paypal.com/",
            "https://api.paypal.com:8443/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://",
            "",
        ] {
            assert!(!host_of(bad).is_some_and(|host| names("*.paypal.com", host)), "{bad}");
        }
    }

    #[test]
    fn a_url_that_failed_is_left_alone_for_a_while_and_few_are_remembered() {
        let certificates = Certificates::provisioned(&[], None).expect("none");
        let now = Utc::now();
        assert!(certificates.may_fetch("https://a.example/", now));
        assert!(!certificates.may_fetch("https://a.example/", now));
        assert!(certificates.may_fetch("https://a.example/", now + FORBEARANCE));
        let asked = (0..100)
            .filter(|i| certificates.may_fetch(&format!("https://b.example/{i}"), now))
            .count();
        assert!(asked < MOST_URLS, "{asked}");
    }
}
