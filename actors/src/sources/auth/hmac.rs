//! Signatures of the HMAC family.

use hmac::Mac;
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::envelope::Envelope;
use super::parts::Content;
use super::{AuthError, Key, Keys, key_bytes};
use crate::sources::config::{Algorithm, Fault, SignatureConfig};
use crate::sources::{HeaderLookup, Incoming};

/// A keyed MAC: the key's schedule is computed once, and copied for every request.
#[derive(Clone)]
pub(super) enum Keyed {
    Sha1(hmac::Hmac<Sha1>),
    Sha256(hmac::Hmac<Sha256>),
    Sha512(hmac::Hmac<Sha512>),
}

impl Keyed {
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Sha1 => Keyed::Sha1(hmac::Hmac::new_from_slice(key).ok()?),
            Algorithm::Sha256 => Keyed::Sha256(hmac::Hmac::new_from_slice(key).ok()?),
            Algorithm::Sha512 => Keyed::Sha512(hmac::Hmac::new_from_slice(key).ok()?),
        })
    }

    /// Bytes of a MAC.
    pub(super) fn length(algorithm: Algorithm) -> usize {
        match algorithm {
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    pub(super) fn update(&mut self, part: &[u8]) {
        match self {
            Keyed::Sha1(mac) => mac.update(part),
            Keyed::Sha256(mac) => mac.update(part),
            Keyed::Sha512(mac) => mac.update(part),
        }
    }

    /// In constant time.
    pub(super) fn matches(&self, signature: &[u8]) -> bool {
        match self.clone() {
            Keyed::Sha1(mac) => mac.verify_slice(signature).is_ok(),
            Keyed::Sha256(mac) => mac.verify_slice(signature).is_ok(),
            Keyed::Sha512(mac) => mac.verify_slice(signature).is_ok(),
        }
    }

    /// The MAC itself, for those who sign.
    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Keyed::Sha1(mac) => mac.finalize().into_bytes().to_vec(),
            Keyed::Sha256(mac) => mac.finalize().into_bytes().to_vec(),
            Keyed::Sha512(mac) => mac.finalize().into_bytes().to_vec(),
        }
    }
}

/// A compiled HMAC scheme with its keys.
pub(super) struct Hmac {
    envelope: Envelope,
    content: Content,
    keys: Keys<Keyed>,
}

impl Hmac {
    /// Compiles a scheme. `url` is what `{url}` stands for.
    pub(super) fn compile(config: &SignatureConfig, url: Option<&str>, secrets: &[Key<'_>]) -> Result<Self, Fault> {
        let envelope = Envelope::compile(config, Keyed::length(config.algorithm))?;
        let content = Content::of_signature(config, url)?;
        let mut keys = Vec::with_capacity(secrets.len());
        for secret in secrets {
            let bytes = key_bytes(secret, &config.secret_prefix, config.secret_encoding)?;
            keys.push((secret.index, secret.keyed(config.algorithm, &bytes)?));
        }
        Ok(Self {
            envelope,
            content,
            keys: Keys(keys),
        })
    }

    /// The headers that are part of what is signed.
    pub(super) fn signed_headers(&self) -> impl Iterator<Item = &str> {
        self.content.headers().chain(self.envelope.timestamp_header())
    }

    /// Verifies the signature first and its age after that, so that a stranger learns nothing from the difference.
    /// Returns the secret that it was made with.
    pub(super) fn verify<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
        valid: impl Fn(usize) -> bool,
    ) -> Result<usize, AuthError> {
        let claimed = self.envelope.open(request.headers)?;
        let mut right = None;
        for (index, key) in self.keys.0.iter().filter(|(index, _)| valid(*index)) {
            let mut mac = key.clone();
            self.content
                .feed(request, claimed.timestamp, "", |piece| mac.update(piece))?;
            // All are compared, so the time does not tell which one it was.
            for signature in &claimed.signatures {
                if mac.matches(signature) {
                    right = Some(*index);
                }
            }
        }
        let index = right.ok_or(AuthError::Wrong)?;
        self.envelope.check_age(claimed.timestamp, request.now)?;
        Ok(index)
    }

    /// The headers that the provider would send with this request, made with the first secret that is valid. What is signed of headers that
    /// the request lacks gets a stand-in, which is among them.
    pub(super) fn sign<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
        valid: impl Fn(usize) -> bool,
    ) -> Option<Vec<(String, String)>> {
        let (_, key) = self.keys.0.iter().find(|(index, _)| valid(*index))?;
        let time = request.now.timestamp().to_string();
        let mut mac = key.clone();
        let mut headers = Vec::new();
        let signed = self
            .content
            .feed_lenient(request, Some(&time), &mut headers, |piece| mac.update(piece));
        signed.ok()?;
        headers.extend(self.envelope.seal(&mac.finish(), &time));
        Some(headers)
    }
}
