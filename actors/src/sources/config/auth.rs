//! How requests are signed: the forms of `auth`.

mod written;

use std::fmt;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// One scheme, or several.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum AuthConfigs {
    /// The only one.
    One(Box<AuthConfig>),
    /// Any of these will do.
    Many(Vec<AuthConfig>),
}

/// By hand, as a derived "either, or" would not say what is wrong inside.
impl<'de> Deserialize<'de> for AuthConfigs {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = AuthConfigs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a scheme, or a list of schemes")
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<AuthConfigs, M::Error> {
                let one = AuthConfig::deserialize(MapAccessDeserializer::new(map))?;
                Ok(AuthConfigs::One(Box::new(one)))
            }
            fn visit_seq<S: SeqAccess<'de>>(self, seq: S) -> Result<AuthConfigs, S::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(AuthConfigs::Many)
            }
        }
        input.deserialize_any(Form)
    }
}

impl AuthConfigs {
    pub(in crate::sources) fn list(&self) -> &[AuthConfig] {
        match self {
            AuthConfigs::One(one) => std::slice::from_ref(one),
            AuthConfigs::Many(many) => many,
        }
    }
}

/// How a request shows that it is the provider's.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AuthConfig {
    /// An HMAC over the request's parts.
    Hmac(SignatureConfig),
    /// An ed25519 signature over the request's parts; `secrets` are public keys.
    Ed25519(SignatureConfig),
    /// An RSA signature with a certificate.
    Certificate(CertificateConfig),
    /// Basic authentication; a secret is `user:password`.
    Basic {},
    /// A token in a header.
    Token(TokenConfig),
    /// An HMAC in each of the request's events.
    Items(ItemHmacConfig),
    /// Nothing: anybody who reaches the listener can write. Taken only on loopback, or if said twice.
    None {
        /// The second time: `"i know"`.
        anybody: Option<String>,
    },
}

impl AuthConfig {
    pub(in crate::sources) fn secret_prefix(&self) -> &str {
        match self {
            AuthConfig::Hmac(config) | AuthConfig::Ed25519(config) => &config.secret_prefix,
            AuthConfig::Certificate(_)
            | AuthConfig::Basic {}
            | AuthConfig::Token(_)
            | AuthConfig::Items(_)
            | AuthConfig::None { .. } => "",
        }
    }

    pub(super) fn set_tolerance(&mut self, tolerance: Duration) {
        match self {
            AuthConfig::Hmac(config) | AuthConfig::Ed25519(config) => config.tolerance = tolerance,
            AuthConfig::Certificate(_)
            | AuthConfig::Basic {}
            | AuthConfig::Token(_)
            | AuthConfig::Items(_)
            | AuthConfig::None { .. } => {}
        }
    }
}

/// Where a signature stands, what it is made over, and with what key.
#[derive(Clone, Debug, Serialize)]
pub struct SignatureConfig {
    /// The header that holds it.
    pub header: String,
    /// Between several items in that header.
    pub separator: Option<char>,
    /// What an item begins with that is a signature; other items are passed over.
    pub prefix: String,
    /// How it is written.
    pub encoding: Encoding,
    /// What is signed, of `{body}`, `{timestamp}`, `{url}`, `{header:NAME}`, `{crc32}` (of the body, in decimal) and text between.
    pub content: String,
    /// Where the time of signing stands, in seconds since 1970: `header:NAME`, or `item:PREFIX` of the signature's header.
    pub timestamp: Option<String>,
    /// How old, and how far ahead, it may be.
    #[serde(with = "humantime_serde")]
    pub tolerance: Duration,
    /// The hash of an HMAC.
    pub algorithm: Algorithm,
    /// How the secret, or the public key, is written.
    pub secret_encoding: SecretEncoding,
    /// What is taken off its beginning, if it is there, before it is decoded.
    pub secret_prefix: String,
}

/// RSA-SHA256 (PKCS #1 v1.5) with a certificate that the request names.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateConfig {
    /// The header that holds the signature, in base64.
    pub header: String,
    /// The header that holds the certificate's URL.
    pub url_header: String,
    /// Hosts that a certificate may be fetched from; `*.example.com` for all below a name.
    pub hosts: Vec<String>,
    /// The name that the certificate must be for, or `*.example.com`.
    pub subject: String,
    /// A header that names the algorithm, and what it must say.
    pub algorithm: Option<(String, String)>,
    /// What is signed; `{secret}` is the source's secret, as an id that the provider gave.
    pub content: String,
}

/// A token in a header.
#[derive(Clone, Debug, Serialize)]
pub struct TokenConfig {
    /// The header that holds it.
    pub header: String,
    /// What stands before it, such as `"Bearer "`.
    pub prefix: String,
}

/// An HMAC in each event, over some of its fields.
#[derive(Clone, Debug, Serialize)]
pub struct ItemHmacConfig {
    /// Where it stands in the event.
    pub signature: String,
    /// What it is made over: pointers in braces, and text between. A missing field is empty.
    pub content: String,
    /// The hash.
    pub algorithm: Algorithm,
    /// How it is written.
    pub encoding: Encoding,
    /// How the secret is written.
    pub secret_encoding: SecretEncoding,
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Encoding {
    /// In small letters; in capitals it is another text, and no signature.
    Hex,
    /// In capitals.
    #[serde(rename = "HEX")]
    HexUpper,
    Base64,
}

/// How a secret is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum SecretEncoding {
    Raw,
    Hex,
    Base64,
}
