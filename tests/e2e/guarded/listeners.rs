//! TLS of the two listeners: the certificate is shown, replaced while connections are open and on SIGHUP, and kept when its
//! successor is broken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use dev::process::Signal;
use dev::tls::{Authority, Issued};
use reqwest::Certificate;

use crate::harness::{Instance, World, light, shared_stack, signed, until};
use crate::refusals::wire::good_order;

const SOON: Duration = Duration::from_secs(15);

/// A client that trusts `authority` and nobody else, and opens a connection for each request.
fn client(authority: &Authority) -> reqwest::Client {
    trusting(authority).pool_max_idle_per_host(0).build().expect("a client")
}

fn trusting(authority: &Authority) -> reqwest::ClientBuilder {
    let root = Certificate::from_pem(authority.certificate().as_bytes()).expect("a certificate");
    reqwest::Client::builder()
        .tls_built_in_root_certs(false)
        .add_root_certificate(root)
}

async fn post(client: &reqwest::Client, url: &str) -> Result<u16, String> {
    let body = good_order();
    let mut request = client.post(format!("{url}/webhooks/standard"));
    for (name, value) in signed("standard", body.as_bytes(), "msg_tls", Utc::now()) {
        request = request.header(name, value);
    }
    let answer = request
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await;
    answer
        .map(|answer| answer.status().as_u16())
        .map_err(|error| format!("{error:?}"))
}

/// The port behind a URL, under the name that certificates are for.
fn by_name(url: &str) -> String {
    url.replace("http://127.0.0.1", "https://localhost")
}

fn replace(with: &Issued, target: &Issued) {
    // As a deployment does it: the new file is made beside the old one and takes its place.
    for (from, to) in [(&with.certificate, &target.certificate), (&with.key, &target.key)] {
        let beside = to.with_extension("new");
        std::fs::copy(from, &beside).expect("copied");
        std::fs::rename(&beside, to).expect("renamed");
    }
}

fn folder(world: &World) -> PathBuf {
    let dir = world.log_dir().join(format!("{}-tls", world.name));
    std::fs::create_dir_all(&dir).expect("a folder");
    dir
}

/// A world whose listeners have TLS, by environment as an operator would set it.
fn with_tls(world: World, shown: &Issued) -> World {
    let path = |path: &Path| path.to_str().expect("text").to_owned();
    let (certificate, key) = (path(&shown.certificate), path(&shown.key));
    world
        .set("HOOKMILL_INGEST__TLS__CERTIFICATE", &certificate)
        .set("HOOKMILL_INGEST__TLS__KEY", &key)
        .set("HOOKMILL_ADMIN__TLS__CERTIFICATE", &certificate)
        .set("HOOKMILL_ADMIN__TLS__KEY", &key)
}

async fn ready(instance: &Instance, client: &reqwest::Client) {
    let url = format!("{}/health/ready", by_name(&instance.admin));
    until("ready by TLS", Duration::from_secs(60), async || {
        assert!(instance.process.is_running(), "{}", instance.process.obituary());
        client
            .get(&url)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
    })
    .await;
}

#[test]
fn certificates_are_shown_replaced_and_kept() {
    light(async {
        let world = World::new(&shared_stack().await, "tls_listeners").await;
        let dir = folder(&world);
        let (old, new) = (
            Authority::new("old").expect("made"),
            Authority::new("new").expect("made"),
        );
        let shown = old.issue(&dir, "shown", &["localhost"]).expect("issued");
        let world = with_tls(world, &shown);
        let instance = world.spawn("only", &[]);
        let (by_old, by_new) = (client(&old), client(&new));
        ready(&instance, &by_old).await;
        let (url, admin) = (by_name(&instance.url), by_name(&instance.admin));
        assert_eq!(post(&by_old, &url).await, Ok(202));
        let stats = by_old.get(format!("{admin}/stats")).send().await.expect("an answer");
        let stats = stats.text().await.expect("text");
        assert!(stats.contains("certificate_valid_until"), "{stats}");

        // Who trusts somebody else, asks for another name, or does not speak TLS, gets nothing; and alarms nobody.
        let stranger = post(&by_new, &url).await.expect_err("another authority");
        assert!(stranger.contains("UnknownIssuer"), "{stranger}");
        let elsewhere = post(&by_old, &url.replace("localhost", "127.0.0.1"))
            .await
            .expect_err("another name");
        assert!(elsewhere.contains("NotValidForName"), "{elsewhere}");
        post(&reqwest::Client::new(), &instance.url).await.expect_err("no TLS");

        // A connection that is open goes on over every change.
        let open = trusting(&old).build().expect("a client");
        assert_eq!(post(&open, &url).await, Ok(202));

        // A key that belongs to another certificate: the old pair stays, and the log says why.
        let next = new.issue(&dir, "next", &["localhost"]).expect("issued");
        std::fs::copy(&next.certificate, &shown.certificate).expect("copied");
        until("the log says that the pair is broken", SOON, async || {
            instance.log().contains("the certificate stays as it was")
        })
        .await;
        let log = instance.log();
        assert!(
            log.contains("cannot be used together") && log.contains("shown.key"),
            "the log says what to do: {log}"
        );
        assert_eq!(post(&by_old, &url).await, Ok(202), "the old one is still shown");
        assert_eq!(post(&open, &url).await, Ok(202));

        // The right key: from now on the new one is shown, to new connections.
        replace(&next, &shown);
        until("the new certificate is shown", SOON, async || {
            post(&by_new, &url).await == Ok(202)
        })
        .await;
        // (A client that knows the server from before resumes its session, and is shown nothing.)
        let stranger = post(&client(&old), &url).await;
        stranger.expect_err("the old authority did not sign this one");
        assert_eq!(post(&open, &url).await, Ok(202), "what was open goes on");
        until("the same on the admin listener", SOON, async || {
            by_new.get(format!("{admin}/health/live")).send().await.is_ok()
        })
        .await;

        // Told by SIGHUP it looks at once, also where nothing changed; it ends nothing.
        let before = instance.log().matches("as it is now").count();
        instance.process.signal(Signal::SIGHUP);
        until("it has looked again", SOON, async || {
            instance.log().matches("as it is now").count() >= before + 2
        })
        .await;
        assert_eq!(post(&open, &url).await, Ok(202));
        world.landed(Duration::from_secs(60)).await;
        instance.stop().await;
    });
}

#[test]
fn a_pair_that_cannot_be_used_refuses_the_start_and_check_tells_the_end() {
    light(async {
        let world = World::new(&shared_stack().await, "tls_refused").await;
        let dir = folder(&world);
        let authority = Authority::new("test").expect("made");
        let one = authority.issue(&dir, "one", &["localhost"]).expect("issued");
        let two = authority.issue(&dir, "two", &["localhost"]).expect("issued");
        std::fs::write(dir.join("empty.crt"), "").expect("written");
        let missing = Issued {
            certificate: dir.join("missing.crt"),
            ..one.clone()
        };
        let empty = Issued {
            certificate: dir.join("empty.crt"),
            ..one.clone()
        };
        let of_another = Issued {
            key: two.key.clone(),
            ..one.clone()
        };
        let no_key = Issued {
            key: one.certificate.clone(),
            ..one.clone()
        };
        for (name, pair, says) in [
            ("missing", missing, ["ingest.tls", "missing.crt", "PEM file"]),
            ("empty", empty, ["ingest.tls", "empty.crt", "PEM file"]),
            (
                "other_key",
                of_another,
                ["ingest.tls", "two.key", "belongs to the certificate"],
            ),
            ("no_key", no_key, ["ingest.tls", "one.crt", "PEM file"]),
        ] {
            let (code, said) = with_tls(world.clone(), &pair).run(name, &["serve"], &[]).await;
            assert_eq!(code, 1, "{name}: {said}");
            for word in says {
                assert!(said.contains(word), "{name}: {word} is not in: {said}");
            }
            let (code, said) = with_tls(world.clone(), &pair).run(name, &["check"], &[]).await;
            assert!(code == 1 && said.contains("FAIL  ingest.tls: "), "{name}: {said}");
        }
        let (code, said) = with_tls(world.clone(), &one).run("good", &["check"], &[]).await;
        assert_eq!(code, 0, "{said}");
        for line in ["ok    ingest.tls: the certificate is valid until", "ok    admin.tls: "] {
            assert!(said.contains(line), "{line} is not in: {said}");
        }
    });
}
