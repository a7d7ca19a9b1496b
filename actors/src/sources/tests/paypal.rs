//! Signatures with a certificate. Root, chain and signatures were made with openssl for these tests.

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};

use super::super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/paypal").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).expect("a fixture")
}

/// A source whose certificates are given beforehand, or not.
fn source(root: &str, certificate: Option<&str>) -> Source {
    let id = std::env::temp_dir().join(format!(
        "hookmill-paypal-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&id, "8PT597110X687430LKGECATA").expect("a temporary file");
    let given = certificate
        .map(|c| format!("certificates = [{:?}]\n", fixture(c)))
        .unwrap_or_default();
    let config = format!(
        "name = \"paypal\"\npreset = \"paypal\"\nsecrets = [\"file:{}\"]\ncertificate_roots = {:?}\n{given}",
        id.display(),
        fixture(root)
    );
    let config: SourceConfig = toml::from_str(&config).expect("a source");
    let source = config.compile().expect("it compiles");
    std::fs::remove_file(&id).expect("the temporary file");
    source
}

const URL: &str = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77";

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

struct Request {
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    at: DateTime<Utc>,
}

impl Request {
    fn new() -> Self {
        Self {
            headers: vec![
                (
                    "paypal-transmission-id",
                    "69cd13f0-d67a-11e5-baa3-778b53f4ae55".to_owned(),
                ),
                ("paypal-transmission-time", "2026-01-02T03:04:06Z".to_owned()),
                ("paypal-transmission-sig", text("leaf.sig")),
                ("paypal-cert-url", URL.to_owned()),
                ("paypal-auth-algo", "SHA256withRSA".to_owned()),
            ],
            body: text("dispute-created.json").into_bytes(),
            at: now(),
        }
    }

    fn with(mut self, header: &str, value: &str) -> Self {
        let place = self
            .headers
            .iter_mut()
            .find(|(name, _)| *name == header)
            .expect("a header");
        value.clone_into(&mut place.1);
        self
    }

    fn to(&self, source: &Source) -> Result<Received, Refusal> {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        source.receive(&Incoming::post(&headers[..], &self.body, self.at))
    }
}

fn refused(result: Result<Received, Refusal>) -> AuthError {
    match result.expect_err("it is refused") {
        Refusal::Unauthorized(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn a_provisioned_certificate_verifies_offline() {
    let source = source("root.pem", Some("chain.pem"));
    let Ok(Received::Events { accepted, .. }) = Request::new().to(&source) else {
        panic!("{:?}", Request::new().to(&source))
    };
    let event: Value = serde_json::from_slice(&accepted[0].value).expect("JSON");
    assert_eq!(event["disputeid"], "PP-D-5623");
    assert_eq!(event["userid"], "capture:00D10444LD479031K");
    assert_eq!(event["status"], "inquiry_needs_response");
    assert_eq!(event["amountminor"], "300");

    let mut other_body = Request::new();
    other_body.body[10] ^= 1;
    assert_eq!(refused(other_body.to(&source)), AuthError::Wrong);
    for (header, value) in [
        ("paypal-transmission-id", "another"),
        ("paypal-transmission-time", "2026-01-02T03:04:07Z"),
    ] {
        assert_eq!(
            refused(Request::new().with(header, value).to(&source)),
            AuthError::Wrong,
            "{header}"
        );
    }
    for (header, value) in [
        ("paypal-transmission-sig", "no base64!"),
        ("paypal-auth-algo", "SHA1withRSA"),
        ("paypal-cert-url", "https://evil.example/cert"),
        ("paypal-cert-url", "http://api.paypal.com/cert"),
        ("paypal-cert-url", "https://api.paypal.com@evil.example/cert"),
    ] {
        let why = refused(Request::new().with(header, value).to(&source));
        assert!(matches!(why, AuthError::Malformed { .. }), "{header}: {value}: {why}");
    }
    // Long after the certificate ended.
    let late = Request {
        at: now() + TimeDelta::days(100 * 365),
        ..Request::new()
    };
    assert_eq!(refused(late.to(&source)), AuthError::Wrong);
}

#[test]
fn a_chain_to_another_root_or_for_another_name_verifies_nothing() {
    assert_eq!(
        refused(Request::new().to(&source("other.pem", Some("chain.pem")))),
        AuthError::Wrong
    );
    let stranger = Request::new().with("paypal-transmission-sig", &text("stranger.sig"));
    assert_eq!(
        refused(stranger.to(&source("root.pem", Some("stranger.pem")))),
        AuthError::Wrong
    );
}

#[test]
fn what_is_not_known_is_asked_for_and_then_believed_if_it_is_right() {
    let source = source("root.pem", None);
    let needed = AuthError::CertificateNeeded { url: URL.to_owned() };
    assert_eq!(refused(Request::new().to(&source)), needed);
    let certificates = source.certificates();
    let pem = |name: &str| text(name).into_bytes();
    assert!(matches!(
        certificates.add(URL, &pem("stranger.pem"), now()),
        Err(CertificateError::Subject(_))
    ));
    assert!(matches!(
        certificates.add(URL, &pem("other.pem"), now()),
        Err(CertificateError::Chain(_))
    ));
    assert_eq!(certificates.add(URL, b"<html>", now()), Err(CertificateError::NotPem));
    assert_eq!(refused(Request::new().to(&source)), needed);
    certificates.add(URL, &pem("chain.pem"), now()).expect("it is right");
    assert!(Request::new().to(&source).is_ok());
    let elsewhere = "https://api.paypal.com/other";
    let why = refused(Request::new().with("paypal-cert-url", elsewhere).to(&source));
    assert_eq!(
        why,
        AuthError::CertificateNeeded {
            url: elsewhere.to_owned()
        }
    );
}
