//! How `auth` is read.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, IntoDeserializer as _, SeqAccess, Visitor};

use super::{
    Algorithm, AuthConfig, CertificateConfig, Encoding, ItemHmacConfig, SecretEncoding, SignatureConfig, TokenConfig,
};

/// All keys of all kinds: read in one go, so that a mistake is told by its own key and line. (An enum that is told by a tag
/// would only say that something within is wrong.)
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: AuthKind,
    header: Option<String>,
    separator: Option<char>,
    prefix: Option<String>,
    encoding: Option<Encoding>,
    content: Option<String>,
    timestamp: Option<String>,
    #[serde(default, with = "humantime_serde::option")]
    tolerance: Option<Duration>,
    algorithm: Option<AlgorithmForm>,
    secret_encoding: Option<SecretEncoding>,
    secret_prefix: Option<String>,
    url_header: Option<String>,
    hosts: Option<Vec<String>>,
    subject: Option<String>,
    signature: Option<String>,
    anybody: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AuthKind {
    Hmac,
    Ed25519,
    Certificate,
    Basic,
    Token,
    Items,
    None,
}

/// A hash by its name; or, of a certificate's, a header and what it must say.
enum AlgorithmForm {
    Hash(Algorithm),
    Header(String, String),
}

impl<'de> Deserialize<'de> for AlgorithmForm {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = AlgorithmForm;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a hash such as \"sha256\", or a header and what it must say")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<AlgorithmForm, E> {
                Algorithm::deserialize(text.into_deserializer()).map(AlgorithmForm::Hash)
            }
            fn visit_seq<S: SeqAccess<'de>>(self, seq: S) -> Result<AlgorithmForm, S::Error> {
                let (header, says) = Deserialize::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(AlgorithmForm::Header(header, says))
            }
        }
        input.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for AuthConfig {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut table = Table::deserialize(input)?;
        let config = table.take().map_err(D::Error::custom)?;
        match table.left() {
            None => Ok(config),
            Some(key) => Err(D::Error::custom(format!(
                "`{key}` means nothing to auth of this kind: take it out, or say another `kind`"
            ))),
        }
    }
}

/// The value of a key that its kind needs.
fn needed<T>(value: &mut Option<T>, key: &str) -> Result<T, String> {
    value.take().ok_or_else(|| format!("auth of this kind needs `{key}`"))
}

impl Table {
    /// Takes what its kind reads.
    fn take(&mut self) -> Result<AuthConfig, String> {
        Ok(match self.kind {
            AuthKind::Hmac => AuthConfig::Hmac(self.signature()?),
            AuthKind::Ed25519 => AuthConfig::Ed25519(self.signature()?),
            AuthKind::Certificate => AuthConfig::Certificate(CertificateConfig {
                header: needed(&mut self.header, "header")?,
                url_header: needed(&mut self.url_header, "url_header")?,
                hosts: needed(&mut self.hosts, "hosts")?,
                subject: needed(&mut self.subject, "subject")?,
                algorithm: match self.algorithm.take() {
                    None => None,
                    Some(AlgorithmForm::Header(header, says)) => Some((header, says)),
                    Some(AlgorithmForm::Hash(_)) => {
                        return Err("`algorithm` of a certificate is a header and what it must say, such as [\"x-algorithm\", \"SHA256withRSA\"]".to_owned());
                    }
                },
                content: needed(&mut self.content, "content")?,
            }),
            AuthKind::Basic => AuthConfig::Basic {},
            AuthKind::Token => AuthConfig::Token(TokenConfig {
                header: self.header.take().unwrap_or_else(|| "authorization".to_owned()),
                prefix: self.prefix.take().unwrap_or_default(),
            }),
            AuthKind::Items => AuthConfig::Items(ItemHmacConfig {
                signature: needed(&mut self.signature, "signature")?,
                content: needed(&mut self.content, "content")?,
                algorithm: self.hash()?,
                encoding: needed(&mut self.encoding, "encoding")?,
                secret_encoding: self.secret_encoding.take().unwrap_or(SecretEncoding::Raw),
            }),
            AuthKind::None => AuthConfig::None {
                anybody: self.anybody.take(),
            },
        })
    }

    fn signature(&mut self) -> Result<SignatureConfig, String> {
        Ok(SignatureConfig {
            header: needed(&mut self.header, "header")?,
            separator: self.separator.take(),
            prefix: self.prefix.take().unwrap_or_default(),
            encoding: needed(&mut self.encoding, "encoding")?,
            content: self.content.take().unwrap_or_else(|| "{body}".to_owned()),
            timestamp: self.timestamp.take(),
            tolerance: self.tolerance.take().unwrap_or(Duration::from_secs(300)),
            algorithm: self.hash()?,
            secret_encoding: self.secret_encoding.take().unwrap_or(SecretEncoding::Raw),
            secret_prefix: self.secret_prefix.take().unwrap_or_default(),
        })
    }

    fn hash(&mut self) -> Result<Algorithm, String> {
        match self.algorithm.take() {
            None => Ok(Algorithm::Sha256),
            Some(AlgorithmForm::Hash(hash)) => Ok(hash),
            Some(AlgorithmForm::Header(..)) => Err("`algorithm` is a hash: sha1, sha256 or sha512".to_owned()),
        }
    }

    /// A key that was not taken.
    fn left(&self) -> Option<&'static str> {
        let Table {
            kind: _,
            header,
            separator,
            prefix,
            encoding,
            content,
            timestamp,
            tolerance,
            algorithm,
            secret_encoding,
            secret_prefix,
            url_header,
            hosts,
            subject,
            signature,
            anybody,
        } = self;
        let keys = [
            ("header", header.is_some()),
            ("separator", separator.is_some()),
            ("prefix", prefix.is_some()),
            ("encoding", encoding.is_some()),
            ("content", content.is_some()),
            ("timestamp", timestamp.is_some()),
            ("tolerance", tolerance.is_some()),
            ("algorithm", algorithm.is_some()),
            ("secret_encoding", secret_encoding.is_some()),
            ("secret_prefix", secret_prefix.is_some()),
            ("url_header", url_header.is_some()),
            ("hosts", hosts.is_some()),
            ("subject", subject.is_some()),
            ("signature", signature.is_some()),
            ("anybody", anybody.is_some()),
        ];
        keys.iter().find(|(_, there)| *there).map(|(key, _)| *key)
    }
}
