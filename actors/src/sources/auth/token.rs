//! Shared secrets that are sent as they are: basic authentication (RFC 7617) and tokens in a header.

use base64::Engine as _;
use hmac::{Hmac, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;

use super::{AuthError, Key, Keys, malformed, required};
use crate::sources::config::{Fault, TokenConfig};
use crate::sources::{HeaderLookup, Incoming};

/// Tokens in a header.
pub(super) struct Token {
    header: String,
    /// What stands before the token; compared without regard to case, as schemes of `Authorization` are.
    prefix: String,
    keys: Keys<Vec<u8>>,
}

impl Token {
    /// A token in a header of its own, or `Authorization: Bearer …`.
    pub(super) fn compile(config: &TokenConfig, secrets: &[Key<'_>]) -> Self {
        let keys = secrets
            .iter()
            .map(|s| (s.index, digest(s.text.expose_secret().as_bytes())));
        Self {
            header: config.header.to_ascii_lowercase(),
            prefix: config.prefix.clone(),
            keys: Keys(keys.collect()),
        }
    }

    /// `user:password` by basic authentication.
    pub(super) fn basic(secrets: &[Key<'_>]) -> Result<Self, Fault> {
        let mut keys = Vec::with_capacity(secrets.len());
        for secret in secrets {
            let text = secret.text.expose_secret();
            if !text.contains(':') {
                return Err(secret.fault("is not of the form user:password"));
            }
            let encoded = base64::engine::general_purpose::STANDARD.encode(text);
            keys.push((secret.index, digest(encoded.as_bytes())));
        }
        Ok(Self {
            header: "authorization".to_owned(),
            prefix: "Basic ".to_owned(),
            keys: Keys(keys),
        })
    }

    pub(super) fn verify<H: HeaderLookup + ?Sized>(
        &self,
        request: &Incoming<'_, H>,
        valid: impl Fn(usize) -> bool,
    ) -> Result<usize, AuthError> {
        let line = required(request.headers, &self.header)?.trim();
        let given = match line.split_at_checked(self.prefix.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(&self.prefix) => rest.trim(),
            _ => return Err(malformed(&self.header)),
        };
        let given = digest(given.as_bytes());
        let keys = self.keys.0.iter().filter(|(index, _)| valid(*index));
        // Digests under a key that nobody knows beforehand are compared, so the time tells nothing of the token.
        keys.filter(|(_, key)| *key == given)
            .map(|(index, _)| *index)
            .last()
            .ok_or(AuthError::Wrong)
    }

    /// Whether the token stands in this header.
    pub(super) fn is_in(&self, header: &str) -> bool {
        self.header == header
    }

    /// The header as the provider would send it, with the first secret. The secret is what it says.
    pub(super) fn header(&self, secret: &str, basic: bool) -> (String, String) {
        let text = match basic {
            true => base64::engine::general_purpose::STANDARD.encode(secret),
            false => secret.to_owned(),
        };
        (self.header.clone(), format!("{}{text}", self.prefix))
    }
}

/// A MAC under a key that is made anew for each process.
fn digest(text: &[u8]) -> Vec<u8> {
    static KEY: std::sync::LazyLock<[u8; 32]> = std::sync::LazyLock::new(rand::random);
    let mac = Hmac::<Sha256>::new_from_slice(&*KEY).map(|mac| mac.chain_update(text));
    mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}
