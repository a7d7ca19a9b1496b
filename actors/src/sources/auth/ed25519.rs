//! Signatures of ed25519 (RFC 8032): the "secret" is the provider's public key.

use ring::signature::{ED25519, UnparsedPublicKey};

use super::envelope::Envelope;
use super::parts::Content;
use super::{AuthError, Key, Keys, key_bytes};
use crate::sources::config::{Fault, SignatureConfig};
use crate::sources::{HeaderLookup, Incoming};

/// A compiled ed25519 scheme with its public keys.
pub(super) struct Ed25519 {
    envelope: Envelope,
    content: Content,
    keys: Keys<UnparsedPublicKey<Vec<u8>>>,
}

/// Bytes of a public key.
const KEY_LEN: usize = 32;
/// Bytes of a signature.
const SIGNATURE_LEN: usize = 64;

/// Whether a text that says no prefix has the length of a public key of this scheme.
pub(super) fn may_be_public_key(config: &SignatureConfig, secret: &Key<'_>) -> bool {
    key_bytes(secret, "", config.secret_encoding).is_ok_and(|bytes| bytes.len() == KEY_LEN)
}

impl Ed25519 {
    pub(super) fn compile(config: &SignatureConfig, url: Option<&str>, secrets: &[Key<'_>]) -> Result<Self, Fault> {
        let envelope = Envelope::compile(config, SIGNATURE_LEN)?;
        let content = Content::of_signature(config, url)?;
        let mut keys = Vec::with_capacity(secrets.len());
        for secret in secrets {
            let bytes = key_bytes(secret, &config.secret_prefix, config.secret_encoding)?;
            if bytes.len() != KEY_LEN {
                let why = format!(
                    "is no public key of ed25519: it has {} bytes, not {KEY_LEN}",
                    bytes.len()
                );
                return Err(secret.fault(&why));
            }
            keys.push((secret.index, UnparsedPublicKey::new(&ED25519, bytes)));
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

    pub(super) fn verify<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
        valid: impl Fn(usize) -> bool,
    ) -> Result<usize, AuthError> {
        let claimed = self.envelope.open(request.headers)?;
        let message = self.content.whole(request, claimed.timestamp, "")?;
        let keys = self.keys.0.iter().filter(|(index, _)| valid(*index));
        let right = keys
            .filter(|(_, key)| claimed.signatures.iter().any(|s| key.verify(&message, s).is_ok()))
            .map(|(index, _)| *index)
            .next();
        let index = right.ok_or(AuthError::Wrong)?;
        self.envelope.check_age(claimed.timestamp, request.now)?;
        Ok(index)
    }
}
