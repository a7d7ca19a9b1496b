//! TLS to Postgres by the URL's `sslmode`. Where TLS is used the server's certificate is always verified, against
//! `sslrootcert` or the public roots: an encrypted connection to whoever answers protects nothing.

use std::error::Error;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::ShardError;

/// The configuration and the connector for a URL. `sslmode` may be `disable`, `prefer` (the default), `require`,
/// `verify-ca` or `verify-full`; the last three mean the same, as the name is always checked too.
pub(crate) fn configure(url: &str) -> Result<(Config, MakeRustlsConnect), ShardError> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut roots, mut rest) = (SslMode::Prefer, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", "disable")) => mode = SslMode::Disable,
            Some(("sslmode", "prefer" | "allow")) => mode = SslMode::Prefer,
            Some(("sslmode", "require" | "verify-ca" | "verify-full")) => mode = SslMode::Require,
            Some(("sslmode", other)) => {
                return Err(ShardError::connection(format!(
                    "sslmode={other} is unknown: use disable, prefer, require or verify-full"
                )));
            }
            Some(("sslrootcert", path)) => roots = Some(path),
            _ => rest.push(pair),
        }
    }
    let clean = if rest.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", rest.join("&"))
    };
    // The parser's own message could quote the URL, and with it the password.
    let mut config: Config = clean.parse().map_err(|_| {
        ShardError::connection(
            "the URL cannot be read: it should look like postgres://user:password@host:port/database",
        )
    })?;
    config.ssl_mode(mode);
    let store = match roots {
        Some(path) => read_roots(path)?,
        None => RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
    };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ShardError::connection(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok((config, MakeRustlsConnect::new(tls)))
}

/// What to do about a connection that could not be made, where that is known.
pub(crate) fn advice(error: &tokio_postgres::Error) -> Option<&'static str> {
    if let Some(said) = error.as_db_error() {
        return match said.code().code() {
            "28P01" => Some("check the user and the password in the URL"),
            "28000" => Some(
                "the server does not take this user so: check the user, and sslmode in the URL (verify-full for TLS)",
            ),
            _ => None,
        };
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>().or_else(|| inside_io(error)) {
            return advice_on_tls(error);
        }
        if error.to_string().contains("server does not support TLS") {
            return Some("switch TLS on there (ssl = on), or do without by sslmode=disable in the URL");
        }
        cause = error.source();
    }
    None
}

/// rustls' errors come wrapped by I/O, which does not show them as its source.
fn inside_io<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref()
}

fn advice_on_tls(error: &rustls::Error) -> Option<&'static str> {
    use rustls::CertificateError as Why;
    match error {
        rustls::Error::InvalidCertificate(Why::UnknownIssuer | Why::BadSignature) => Some(
            "the CA that signed the server's certificate is not trusted: name its file in the URL, as sslrootcert=FILE",
        ),
        rustls::Error::InvalidCertificate(Why::NotValidForName | Why::NotValidForNameContext { .. }) => {
            Some("use a host name in the URL that the server's certificate holds")
        }
        rustls::Error::InvalidCertificate(Why::Expired | Why::ExpiredContext { .. }) => {
            Some("renew the server's certificate, and check the clocks")
        }
        _ => None,
    }
}

fn read_roots(path: &str) -> Result<RootCertStore, ShardError> {
    let wrong = |why: String| ShardError::connection(format!("sslrootcert={path} cannot be used: {why}"));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        store.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_and_no_message_quotes_the_password() {
        let (config, _) = configure("postgres://u:pw@h/db?sslmode=verify-full&application_name=x").expect("a good URL");
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
        assert_eq!(config.get_application_name(), Some("x"));
        for bad in [
            "postgres://u:secretpw@h/db?sslmode=maybe",
            "postgres://u:secretpw@h:port/db",
            "postgres://u:secretpw@h/db?sslrootcert=/nowhere",
        ] {
            let message = configure(bad).map(|_| ()).expect_err(bad).to_string();
            assert!(!message.contains("secretpw"), "{message}");
        }
    }
}
