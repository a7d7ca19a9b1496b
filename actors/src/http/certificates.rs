//! Fetching the certificates that signatures name, from the hosts that a source allows.

use std::sync::LazyLock;
use std::time::Duration;

use chrono::Utc;
use reqwest::redirect::Policy;
use tokio::sync::Semaphore;

use crate::sources::{CertificateError, Certificates};

/// How long the provider may take. It sits in a webhook's own time, which ends after a few seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest answer that is read; a chain has a few thousand bytes.
const MOST_BYTES: usize = 64 << 10;
/// Fetches at once.
static FETCHES: Semaphore = Semaphore::const_new(4);

fn client() -> Result<&'static reqwest::Client, CertificateError> {
    static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
        reqwest::Client::builder()
            .https_only(true)
            // Where it leads to has not been allowed.
            .redirect(Policy::none())
            .timeout(PATIENCE)
            .user_agent(concat!("hookmill/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())
    });
    CLIENT.as_ref().map_err(|why| CertificateError::Fetch(why.clone()))
}

/// Fetches the certificate at `url` and adds it to those known, if its chain and name are right.
pub(super) async fn fetch(certificates: &Certificates, url: &str) -> Result<(), CertificateError> {
    let Ok(_turn) = FETCHES.try_acquire() else {
        return Err(CertificateError::TooSoon);
    };
    if !certificates.may_fetch(url, Utc::now()) {
        return Err(CertificateError::TooSoon);
    }
    let failed = |error: reqwest::Error| CertificateError::Fetch(error.without_url().to_string());
    let mut response = client()?.get(url).send().await.map_err(failed)?;
    if response.status().is_client_error() {
        return Err(CertificateError::Unknown(response.status().as_u16()));
    }
    if !response.status().is_success() {
        return Err(CertificateError::Fetch(format!(
            "the provider answered {}",
            response.status()
        )));
    }
    let mut pem = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if pem.len() + chunk.len() > MOST_BYTES {
            return Err(CertificateError::Fetch(format!("it is larger than {MOST_BYTES} bytes")));
        }
        pem.extend_from_slice(&chunk);
    }
    certificates.add(url, &pem, Utc::now())
}
