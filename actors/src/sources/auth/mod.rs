//! Who may send: signature schemes and tokens as declarative building blocks, behind one question ([`Auth::verify`]):
//! which of the source's secrets vouches for this request?

mod certificate;
mod ed25519;
mod envelope;
mod hmac;
mod items;
mod parts;
mod token;

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

pub use certificate::{CertificateError, Certificates};

use super::config::{Algorithm, AuthConfig, Fault, SecretConfig, SecretEncoding, Under};
use super::tree::{Found, Tree};
use super::{HeaderLookup, Incoming, Lookup};
use crate::stats::rfc3339;
use certificate::Certificate;
use ed25519::Ed25519;
use hmac::{Hmac, Keyed};
use items::ItemHmac;
use token::Token;

/// Why a request is not authentic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A header that the scheme needs is not there.
    #[error("the header {header} is missing")]
    Missing {
        /// Which one.
        header: String,
    },
    /// A header that the scheme needs is there twice, or not in the scheme's form.
    #[error("the header {header} is not in the form this source signs with")]
    Malformed {
        /// Which one.
        header: String,
    },
    /// An event without the signature that it should carry.
    #[error("the event has no signature at {pointer}")]
    MissingField {
        /// Where it should stand.
        pointer: String,
    },
    /// No signature in the request was made with a secret of this source.
    #[error("the signature does not match")]
    Wrong,
    /// Signed longer ago than the source tolerates.
    #[error("the signature is {seconds} s old, more than this source tolerates")]
    TooOld {
        /// Its age.
        seconds: i64,
    },
    /// Signed in the future.
    #[error("the signature is {seconds} s ahead of the clock here, more than this source tolerates")]
    TooFarAhead {
        /// How far.
        seconds: i64,
    },
    /// Sent from an address that the source does not allow.
    #[error("this source does not take requests from this address")]
    Address,
    /// The certificate that the request names is not at hand; whoever can should fetch it from here and ask again.
    #[error("the certificate of the signature is not known")]
    CertificateNeeded {
        /// Where it is; on a host that the source allows.
        url: String,
    },
}

impl AuthError {
    /// Of several schemes' errors the one is told that came farthest.
    fn rank(&self) -> u8 {
        match self {
            AuthError::Missing { .. } => 0,
            AuthError::Malformed { .. } | AuthError::MissingField { .. } => 1,
            AuthError::Wrong | AuthError::Address => 2,
            AuthError::CertificateNeeded { .. } => 3,
            AuthError::TooOld { .. } | AuthError::TooFarAhead { .. } => 4,
        }
    }
}

/// A secret on its way into a scheme.
struct Key<'a> {
    index: usize,
    text: &'a SecretString,
}

impl Key<'_> {
    /// What is wrong with it; it is named by its place.
    fn fault(&self, why: &str) -> Fault {
        Fault {
            path: vec!["secrets".to_owned(), self.index.to_string()],
            why: format!("has secrets[{}], which {why}", self.index),
        }
    }

    fn keyed(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Keyed, Fault> {
        Keyed::new(algorithm, bytes).ok_or_else(|| self.fault("is no key"))
    }
}

/// Compiled keys, each with the index of its secret.
struct Keys<K>(Vec<(usize, K)>);

enum Scheme {
    Hmac(Hmac),
    Ed25519(Ed25519),
    Certificate(Certificate),
    Token(Token, bool),
    Items(ItemHmac),
    /// Nothing is asked.
    Open {
        /// Whether it was said twice.
        meant: bool,
    },
}

impl Scheme {
    /// The headers that are part of what is signed, in lower case.
    fn signed_headers(&self) -> Vec<String> {
        let owned = |headers: &mut dyn Iterator<Item = &str>| headers.map(str::to_owned).collect();
        match self {
            Scheme::Hmac(scheme) => owned(&mut scheme.signed_headers()),
            Scheme::Ed25519(scheme) => owned(&mut scheme.signed_headers()),
            Scheme::Certificate(scheme) => owned(&mut scheme.signed_headers()),
            Scheme::Token(..) | Scheme::Items(_) | Scheme::Open { .. } => Vec::new(),
        }
    }
}

/// A secret's use: what an operator needs to know before taking an old one out.
struct Secret {
    text: SecretString,
    name: String,
    valid_until: Option<DateTime<Utc>>,
    last_matched_us: AtomicI64,
}

/// How a source's requests are verified, with its secrets.
pub(super) struct Auth {
    schemes: Vec<Scheme>,
    /// For each scheme the headers that others sign and it does not.
    unsigned: Vec<Vec<String>>,
    secrets: Vec<Secret>,
    allow_from: Vec<IpNet>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.secrets.iter().map(|s| s.name.as_str()).collect();
        f.debug_struct("Auth").field("secrets", &names).finish_non_exhaustive()
    }
}

/// Who vouches for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voucher {
    /// A secret, by the scheme with this index.
    Scheme(usize),
    /// Each of its events carries a signature of its own, see [`Auth::verify_item`].
    Items,
    /// Nobody is asked to.
    Open,
}

impl Auth {
    /// Compiles schemes and secrets; what a per-item scheme reads is added to `tree`. `listed` is whether the schemes were written
    /// as a list, to say where a mistake stands.
    pub(super) fn compile(
        schemes: &[AuthConfig],
        listed: bool,
        secrets: &[SecretConfig],
        url: Option<&str>,
        certificates: &Certificates,
        allow_from: Vec<IpNet>,
        tree: &mut Tree,
    ) -> Result<Self, Fault> {
        let secrets = secrets.iter().enumerate().map(|(i, secret)| {
            let text = secret
                .from
                .resolve()
                .map_err(|error| format!("cannot resolve secrets[{i}] = \"{}\": {error}", secret.from))
                .under(i)
                .under("secrets")?;
            Ok(Secret {
                text,
                name: secret.name.clone().unwrap_or_else(|| secret.from.to_string()),
                valid_until: secret.valid_until,
                last_matched_us: AtomicI64::new(0),
            })
        });
        let secrets: Vec<Secret> = secrets.collect::<Result<_, Fault>>()?;
        some(schemes, secrets.len())?;
        let all: Vec<Key<'_>> = (0..)
            .zip(&secrets)
            .map(|(index, s)| Key { index, text: &s.text })
            .collect();
        unambiguous(schemes, &all)?;
        let mut compiled = Vec::with_capacity(schemes.len());
        let mut signed: Vec<Vec<String>> = Vec::with_capacity(schemes.len());
        for (i, config) in schemes.iter().enumerate() {
            let keys = keys_of(config, schemes, &all);
            // A way to sign that none of the secrets is for: nobody can come by it.
            if keys.is_empty() && schemes.len() > 1 && !all.is_empty() {
                continue;
            }
            let scheme = compile_one(config, url, &keys, certificates, tree);
            let scheme = scheme.map_err(|fault| in_scheme(fault, listed, i))?;
            signed.push(scheme.signed_headers());
            compiled.push(scheme);
        }
        let unsigned = signed.iter().map(|own| {
            let others = signed.iter().flatten();
            others.filter(|header| !own.contains(header)).cloned().collect()
        });
        Ok(Self {
            schemes: compiled,
            unsigned: unsigned.collect(),
            secrets,
            allow_from,
        })
    }

    /// What is wrong with the schemes by themselves, as far as it can be told without the secrets, of which there are so many.
    pub(super) fn check(schemes: &[AuthConfig], listed: bool, secrets: usize, url: Option<&str>) -> Result<(), Fault> {
        some(schemes, secrets)?;
        let (certificates, mut tree) = (Certificates::provisioned(&[], None)?, Tree::default());
        for (i, config) in schemes.iter().enumerate() {
            let compiled = compile_one(config, url, &[], &certificates, &mut tree);
            compiled.map_err(|fault| in_scheme(fault, listed, i))?;
        }
        Ok(())
    }

    /// Whether anybody at all may send, and nobody said that this is meant.
    pub(super) fn takes_from_anybody(&self) -> bool {
        let open = |scheme: &Scheme| matches!(scheme, Scheme::Open { meant: false });
        self.schemes.iter().any(open)
    }

    /// Whether the source takes requests from this address; `None` where it is not known, as in tools.
    pub(super) fn allows(&self, peer: Option<IpAddr>) -> Result<(), AuthError> {
        match peer {
            Some(peer) if !self.allow_from.is_empty() => {
                let peer = peer.to_canonical();
                let allowed = self.allow_from.iter().any(|net| net.contains(&peer));
                allowed.then_some(()).ok_or(AuthError::Address)
            }
            _ => Ok(()),
        }
    }

    /// Which secret vouches for the request. The first scheme that is content decides.
    pub(super) fn verify<H: HeaderLookup + ?Sized>(&self, request: &Incoming<'_, H>) -> Result<Voucher, AuthError> {
        let valid = |index| self.is_valid(index, request.now);
        let mut worst: Option<AuthError> = None;
        for (i, scheme) in self.schemes.iter().enumerate() {
            let verified = match scheme {
                Scheme::Hmac(scheme) => scheme.verify(request, valid),
                Scheme::Ed25519(scheme) => scheme.verify(request, valid),
                Scheme::Certificate(scheme) => scheme.verify(request, valid),
                Scheme::Token(scheme, _) => scheme.verify(request, valid),
                Scheme::Items(_) => return Ok(Voucher::Items),
                Scheme::Open { .. } => return Ok(Voucher::Open),
            };
            match verified {
                Ok(index) => {
                    self.matched(index, request.now);
                    return Ok(Voucher::Scheme(i));
                }
                Err(error) if worst.as_ref().is_none_or(|w| w.rank() < error.rank()) => worst = Some(error),
                Err(_) => {}
            }
        }
        Err(worst.unwrap_or(AuthError::Wrong))
    }

    /// Headers that nobody has signed in a request that `voucher` vouches for, though another way to sign would have: they
    /// say nothing.
    pub(super) fn unsigned_headers(&self, voucher: Voucher) -> &[String] {
        match voucher {
            Voucher::Scheme(i) => self.unsigned.get(i).map(Vec::as_slice).unwrap_or_default(),
            Voucher::Items | Voucher::Open => &[],
        }
    }

    /// Verifies one event of a request whose events are signed one by one.
    pub(super) fn verify_item(&self, item: &Found<'_>, now: DateTime<Utc>) -> Result<(), AuthError> {
        for scheme in &self.schemes {
            if let Scheme::Items(scheme) = scheme {
                let index = scheme.verify(item, |index| self.is_valid(index, now))?;
                self.matched(index, now);
            }
        }
        Ok(())
    }

    fn is_valid(&self, index: usize, now: DateTime<Utc>) -> bool {
        let until = self.secrets.get(index).and_then(|s| s.valid_until);
        until.is_none_or(|until| now <= until)
    }

    fn matched(&self, index: usize, now: DateTime<Utc>) {
        if let Some(secret) = self.secrets.get(index) {
            secret.last_matched_us.store(now.timestamp_micros(), Relaxed);
        }
    }

    /// Each secret's name and when it last matched; never the secret.
    pub(super) fn uses(&self) -> impl Iterator<Item = (&str, Option<DateTime<Utc>>)> {
        self.secrets.iter().map(|s| {
            let at = s.last_matched_us.load(Relaxed);
            (
                s.name.as_str(),
                (at > 0).then(|| DateTime::from_timestamp_micros(at)).flatten(),
            )
        })
    }

    /// The same for `/stats`.
    pub(super) fn view(&self) -> Vec<Value> {
        let seen = self.secrets.iter().zip(self.uses());
        seen.map(|(secret, (name, at))| {
            json!({ "name": name, "last_matched": at.map(rfc3339), "valid_until": secret.valid_until.map(rfc3339) })
        })
        .collect()
    }

    /// Whether each event carries a signature of its own.
    pub(super) fn signs_items(&self) -> bool {
        self.schemes.iter().any(|scheme| matches!(scheme, Scheme::Items(_)))
    }

    /// Where each event carries its signature, and the one that this event should have, where events are signed by themselves.
    pub(super) fn sign_item(&self, item: &Found<'_>) -> Option<(&str, String)> {
        self.schemes.iter().find_map(|scheme| match scheme {
            Scheme::Items(items) => Some((items.pointer(), items.sign(item)?)),
            _ => None,
        })
    }

    /// Whether a header, named in lower case, holds a secret itself, not what was made with one.
    pub(super) fn carries_secret(&self, header: &str) -> bool {
        let carries = |scheme: &Scheme| matches!(scheme, Scheme::Token(token, _) if token.is_in(header));
        self.schemes.iter().any(carries)
    }

    /// The headers that the provider would send with this request, where the scheme can be signed with what is at hand.
    pub(super) fn sign<H: HeaderLookup + ?Sized>(&self, request: &Incoming<'_, H>) -> Option<Vec<(String, String)>> {
        self.schemes.iter().find_map(|scheme| match scheme {
            Scheme::Hmac(scheme) => scheme.sign(request, |index| self.is_valid(index, request.now)),
            Scheme::Token(token, basic) => {
                let mut valid = (0..).zip(&self.secrets).filter(|(i, _)| self.is_valid(*i, request.now));
                let (_, secret) = valid.next()?;
                Some(vec![token.header(secret.text.expose_secret(), *basic)])
            }
            Scheme::Open { .. } | Scheme::Items(_) => Some(Vec::new()),
            Scheme::Ed25519(_) | Scheme::Certificate(_) => None,
        })
    }
}

/// That there is a scheme, and a secret where one is needed.
fn some(schemes: &[AuthConfig], secrets: usize) -> Result<(), Fault> {
    if schemes.is_empty() {
        return Err("has an empty list of schemes: name at least one").under("auth");
    }
    if secrets == 0 && !schemes.iter().all(|config| matches!(config, AuthConfig::None { .. })) {
        return Err("has no secrets: set `secrets`, for example to [\"env:NAME\"]".into());
    }
    Ok(())
}

/// Where a mistake in a scheme stands. What is wrong with a secret, or missing elsewhere, has its own place.
fn in_scheme(mut fault: Fault, listed: bool, i: usize) -> Fault {
    if fault.path.first().is_some_and(|key| key != "secrets") {
        let place = ["auth".to_owned()].into_iter().chain(listed.then(|| i.to_string()));
        fault.path.splice(0..0, place);
    }
    fault
}

fn compile_one(
    scheme: &AuthConfig,
    url: Option<&str>,
    keys: &[Key<'_>],
    certificates: &Certificates,
    tree: &mut Tree,
) -> Result<Scheme, Fault> {
    Ok(match scheme {
        AuthConfig::None { anybody } => Scheme::Open {
            meant: match anybody.as_deref() {
                None => false,
                Some(MEANT) => true,
                Some(other) => {
                    let why = format!("has auth.anybody = {other:?}: leave it out, or say {MEANT:?}");
                    return Err(why).under("anybody");
                }
            },
        },
        AuthConfig::Hmac(config) => Scheme::Hmac(Hmac::compile(config, url, keys)?),
        AuthConfig::Ed25519(config) => Scheme::Ed25519(Ed25519::compile(config, url, keys)?),
        AuthConfig::Certificate(config) => Scheme::Certificate(Certificate::compile(config, url, keys, certificates)?),
        AuthConfig::Basic {} => Scheme::Token(Token::basic(keys)?, true),
        AuthConfig::Token(config) => Scheme::Token(Token::compile(config, keys), false),
        AuthConfig::Items(config) => Scheme::Items(ItemHmac::compile(config, tree, keys)?),
    })
}

/// Where several kinds of schemes stand side by side, it must be clear which one a secret is for: a public key that is taken
/// for an HMAC's secret would let anybody sign who knows it, which is everybody.
fn unambiguous(schemes: &[AuthConfig], all: &[Key<'_>]) -> Result<(), Fault> {
    let kind = |config: &AuthConfig| std::mem::discriminant(config);
    let several = schemes.iter().any(|config| kind(config) != kind(&schemes[0]));
    if !several {
        return Ok(());
    }
    if let Some(i) = schemes.iter().position(|config| config.secret_prefix().is_empty()) {
        let why = "stands beside schemes of another kind and says no `secret_prefix`, so nobody could tell which secrets are for it: \
                   set one in each, or make a source of its own for it";
        return Err(why).under(i).under("auth");
    }
    let prefixes: Vec<&str> = schemes.iter().map(AuthConfig::secret_prefix).collect();
    for key in all {
        let text = key.text.expose_secret();
        let marked = prefixes.iter().any(|prefix| text.starts_with(prefix));
        let may_be_public = schemes.iter().any(|config| match config {
            AuthConfig::Ed25519(config) => ed25519::may_be_public_key(config, key),
            _ => false,
        });
        if !marked && may_be_public {
            let mut known = prefixes.clone();
            known.dedup();
            let why = format!(
                "may be a secret or a public key: write it with what it begins with at the provider ({})",
                known.join(", ")
            );
            return Err(key.fault(&why));
        }
    }
    Ok(())
}

/// What somebody says who means that anybody may send.
const MEANT: &str = "i know";

/// The secrets that belong to a scheme. Where several schemes stand side by side, a secret's prefix tells which it is
/// for; one without a prefix that any of them knows is for those of the first one's kind.
fn keys_of<'a>(scheme: &AuthConfig, schemes: &[AuthConfig], all: &[Key<'a>]) -> Vec<Key<'a>> {
    let marked = |config: &AuthConfig, text: &str| {
        let prefix = config.secret_prefix();
        !prefix.is_empty() && text.starts_with(prefix)
    };
    let first_kind = schemes.first().map(std::mem::discriminant);
    all.iter()
        .filter(|key| {
            let text = key.text.expose_secret();
            if schemes.len() == 1 || marked(scheme, text) {
                return true;
            }
            Some(std::mem::discriminant(scheme)) == first_kind && !schemes.iter().any(|s| marked(s, text))
        })
        .map(|key| Key {
            index: key.index,
            text: key.text,
        })
        .collect()
}

fn malformed(header: &str) -> AuthError {
    AuthError::Malformed {
        header: header.to_owned(),
    }
}

/// Longest header in bytes that is looked at: several times what any provider sends. So a header that is only long costs less
/// than one that is only wrong.
const LONGEST_HEADER: usize = 2048;

/// Whether a value is empty, or begins or ends with white space, which HTTP takes off (RFC 9110, 5.5): to look where it ends would
/// cost more than a signature.
fn has_space_around(value: &[u8]) -> bool {
    let space = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
    space(value.first()) || space(value.last())
}

fn required<'a, H: HeaderLookup + ?Sized>(headers: &'a H, name: &str) -> Result<&'a str, AuthError> {
    match headers.lookup(name) {
        Lookup::One(value) if value.len() > LONGEST_HEADER || has_space_around(value) => Err(malformed(name)),
        Lookup::One(value) => std::str::from_utf8(value).map_err(|_| malformed(name)),
        Lookup::Missing => Err(AuthError::Missing {
            header: name.to_owned(),
        }),
        Lookup::Many => Err(malformed(name)),
    }
}

fn key_bytes(secret: &Key<'_>, prefix: &str, encoding: SecretEncoding) -> Result<Vec<u8>, Fault> {
    use base64::Engine as _;
    let whole = secret.text.expose_secret();
    let text = whole.strip_prefix(prefix).unwrap_or(whole);
    let (key, form) = match encoding {
        SecretEncoding::Raw => (Some(text.as_bytes().to_vec()), "a text"),
        SecretEncoding::Hex => (hex::decode(text).ok(), "hexadecimal"),
        SecretEncoding::Base64 => (base64::engine::general_purpose::STANDARD.decode(text).ok(), "base64"),
    };
    key.filter(|key| !key.is_empty())
        .ok_or_else(|| secret.fault(&format!("is not {form}: copy it from the provider again")))
}
