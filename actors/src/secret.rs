//! Secrets are named in the configuration, never written there: `env:NAME` or `file:PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Where a secret is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable.
    Env(String),
    /// In a file, without the line break at its end; its path is relative to the working directory.
    File(PathBuf),
}

/// Why a secret cannot be had. Names the reference and the remedy, never a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Neither `env:` nor `file:`. What was written there may be the secret itself, so it is not repeated.
    #[error("a secret is given as \"env:NAME\" or \"file:PATH\", not as its own text")]
    NotAReference,
    /// No such variable.
    #[error("the environment variable {0} is not set: export it before the start")]
    Unset(String),
    /// Set, with nothing in it.
    #[error("{0} is empty: put the secret there")]
    Empty(String),
    /// The file cannot be read as text.
    #[error("the secret file {path} cannot be read ({why}): check the path and its permissions")]
    Unreadable {
        /// Which file.
        path: String,
        /// What the system said.
        why: String,
    },
}

impl FromStr for SecretRef {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(SecretRef::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(SecretRef::File(PathBuf::from(path))),
            _ => Err(SecretError::NotAReference),
        }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "env:{name}"),
            SecretRef::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl SecretRef {
    /// The secret itself.
    pub fn resolve(&self) -> Result<SecretString, SecretError> {
        let text = match self {
            SecretRef::Env(name) => std::env::var(name).map_err(|_| SecretError::Unset(name.clone()))?,
            SecretRef::File(path) => {
                let wrong = |error: std::io::Error| SecretError::Unreadable {
                    // It may be relative to a working directory that is not the one that was meant.
                    path: std::path::absolute(path)
                        .as_deref()
                        .unwrap_or(path)
                        .display()
                        .to_string(),
                    why: error.to_string(),
                };
                let text = std::fs::read_to_string(path).map_err(wrong)?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        if text.is_empty() {
            Err(SecretError::Empty(self.to_string()))
        } else {
            Ok(text.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn references_resolve_and_errors_name_them_without_the_secret() {
        let path = std::env::temp_dir().join(format!("hookmill-secret-{}", std::process::id()));
        std::fs::write(&path, "s3cret\n").expect("a temporary file");
        let reference: SecretRef = format!("file:{}", path.display()).parse().expect("a reference");
        assert_eq!(
            reference.resolve().expect("the file is there").expose_secret(),
            "s3cret"
        );
        std::fs::remove_file(&path).expect("the temporary file");
        assert!(matches!(reference.resolve(), Err(SecretError::Unreadable { .. })));
        let literal = "whsec_s3cret"
            .parse::<SecretRef>()
            .expect_err("no reference")
            .to_string();
        assert!(!literal.contains("s3cret"));
        let unset = "env:HOOKMILL_TEST_UNSET"
            .parse::<SecretRef>()
            .expect("a reference")
            .resolve()
            .expect_err("not set");
        assert!(unset.to_string().contains("HOOKMILL_TEST_UNSET"));
    }
}
