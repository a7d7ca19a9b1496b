//! TLS and passwords towards Kafka and Postgres, on real servers that ask for both. What is wrong refuses the start, with a
//! message that says what to do; what is right carries webhooks through.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dev::send::SendArgs;
use dev::stack::{Options, Secure, Stack};
use dev::tls::Authority;

use crate::harness::{World, light, scratch};

const USER: &str = "mill";
const PASSWORD: &str = "correct-horse-9";

/// One broker and one shard that ask for TLS under the name localhost, and the files of two authorities, of which the
/// servers know one.
struct Guarded {
    stack: Arc<Stack>,
    authority: PathBuf,
    stranger: PathBuf,
}

impl Guarded {
    async fn start() -> Self {
        let dir = scratch().join("guarded");
        std::fs::create_dir_all(&dir).expect("a folder");
        let ours = Authority::new("ours").expect("made");
        let (authority, stranger) = (dir.join("ours.crt"), dir.join("stranger.crt"));
        ours.write_certificate(&authority).expect("written");
        let other = Authority::new("stranger").expect("made");
        other.write_certificate(&stranger).expect("written");
        let secure = Secure {
            issued: ours.issue(&dir, "servers", &["localhost"]).expect("issued"),
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
        };
        let options = Options {
            brokers: 1,
            shards: 1,
            dir: Some(dir.join("stack")),
            secure: Some(secure),
            ..Options::default()
        };
        Self {
            stack: Arc::new(Stack::start(options).await.expect("the stack starts")),
            authority,
            stranger,
        }
    }

    /// The shard's URL under the name `host`.
    fn shard(&self, world: &World, password: &str, host: &str, query: &str) -> String {
        self.stack.shard(0).url_of(USER, password, host, &world.name, query)
    }

    fn verified(&self) -> String {
        format!("sslmode=verify-full&sslrootcert={}", self.authority.display())
    }

    /// What reaches Kafka as it should be reached.
    fn kafka(&self, mechanism: &str) -> Vec<(&'static str, String)> {
        vec![
            ("HOOKMILL_KAFKA__BROKERS", self.stack.secure_brokers("localhost")),
            ("HOOKMILL_KAFKA__PROPERTIES__SECURITY_PROTOCOL", "sasl_ssl".to_owned()),
            ("HOOKMILL_KAFKA__PROPERTIES__SASL_MECHANISM", mechanism.to_owned()),
            ("HOOKMILL_KAFKA__PROPERTIES__SASL_USERNAME", USER.to_owned()),
            (
                "HOOKMILL_KAFKA__PROPERTIES__SASL_PASSWORD",
                "env:MILL_PASSWORD".to_owned(),
            ),
            ("MILL_PASSWORD", PASSWORD.to_owned()),
            (
                "HOOKMILL_KAFKA__PROPERTIES__SSL_CA_LOCATION",
                self.authority.display().to_string(),
            ),
        ]
    }
}

fn replaced(env: &[(&'static str, String)], name: &str, value: impl Into<String>) -> Vec<(&'static str, String)> {
    let mut env = env.to_vec();
    let (_, place) = env.iter_mut().find(|(key, _)| *key == name).expect("it is there");
    *place = value.into();
    env
}

/// Starts it and expects one message with all of `says`, and without the password.
async fn is_refused(world: &World, name: &str, env: &[(&'static str, String)], says: &[&str]) {
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let (code, said) = world.run(name, &["serve"], &env).await;
    assert_eq!(code, 1, "{name}: {said}");
    for word in says {
        assert!(said.contains(word), "{name}: {word} is not in: {said}");
    }
    for secret in [PASSWORD, "wrong-horse"] {
        assert!(!said.contains(secret), "{name}: {secret} is said: {said}");
    }
}

#[test]
fn what_is_right_carries_webhooks_and_what_is_wrong_says_what_to_do() {
    light(async {
        let guarded = Guarded::start().await;
        let mut world = World::new(&guarded.stack, "guarded_servers").await;
        world.shard_urls = vec![guarded.shard(&world, PASSWORD, "localhost", &guarded.verified())];
        let right = guarded.kafka("SCRAM-SHA-512");

        // Kafka: another authority, another name, another password, a mechanism that is none, no TLS at all.
        let stranger = guarded.stranger.display().to_string();
        is_refused(
            &world,
            "kafka_other_ca",
            &replaced(&right, "HOOKMILL_KAFKA__PROPERTIES__SSL_CA_LOCATION", stranger),
            &["kafka.brokers", "certificate verify failed", "ssl.ca.location"],
        )
        .await;
        is_refused(
            &world,
            "kafka_other_name",
            &replaced(
                &right,
                "HOOKMILL_KAFKA__BROKERS",
                guarded.stack.secure_brokers("127.0.0.1"),
            ),
            &[
                "kafka.brokers",
                "certificate verify failed",
                "names each host as its certificate does",
            ],
        )
        .await;
        for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
            is_refused(
                &world,
                "kafka_other_password",
                &replaced(&guarded.kafka(mechanism), "MILL_PASSWORD", "wrong-horse"),
                &["Authentication failed", "sasl.username and sasl.password"],
            )
            .await;
        }
        is_refused(
            &world,
            "kafka_no_tls",
            &replaced(&right, "HOOKMILL_KAFKA__PROPERTIES__SECURITY_PROTOCOL", "plaintext"),
            &["kafka.brokers", "security.protocol"],
        )
        .await;
        is_refused(
            &world,
            "kafka_no_password",
            &replaced(&right, "HOOKMILL_KAFKA__PROPERTIES__SASL_PASSWORD", "env:MILL_NOWHERE"),
            &["sasl_password", "MILL_NOWHERE", "export it"],
        )
        .await;

        // Postgres, the same way.
        let verified = guarded.verified();
        let by_stranger = format!("sslmode=verify-full&sslrootcert={}", guarded.stranger.display());
        for (name, url, says) in [
            (
                "shard_other_ca",
                guarded.shard(&world, PASSWORD, "localhost", &by_stranger),
                ["shard 0", "UnknownIssuer", "sslrootcert=FILE"],
            ),
            (
                "shard_public_ca",
                guarded.shard(&world, PASSWORD, "localhost", "sslmode=verify-full"),
                ["shard 0", "UnknownIssuer", "sslrootcert=FILE"],
            ),
            (
                "shard_other_name",
                guarded.shard(&world, PASSWORD, "127.0.0.1", &verified),
                ["shard 0", "not valid for name", "use a host name in the URL"],
            ),
            (
                "shard_other_password",
                guarded.shard(&world, "wrong-horse", "localhost", &verified),
                [
                    "shard 0",
                    "password authentication failed",
                    "check the user and the password",
                ],
            ),
            (
                "shard_no_tls",
                guarded.shard(&world, PASSWORD, "localhost", "sslmode=disable"),
                ["shard 0", "pg_hba.conf", "verify-full for TLS"],
            ),
            (
                "shard_no_file",
                guarded.shard(
                    &world,
                    PASSWORD,
                    "localhost",
                    "sslmode=verify-full&sslrootcert=/no/such/file",
                ),
                ["shard 0", "/no/such/file", "cannot be used"],
            ),
        ] {
            let mut env = right.clone();
            env.push(("HOOKMILL_SHARD_URLS", url));
            is_refused(&world, name, &env, &says).await;
        }

        // Right, by both mechanisms: webhooks go all the way, and every client of it is the user who may.
        for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
            let env = guarded.kafka(mechanism);
            let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
            let (code, said) = world.run("check", &["check"], &env).await;
            assert_eq!(code, 0, "{mechanism}: {said}");
            let instance = world.start_with(mechanism, &env).await;
            let args = SendArgs {
                count: 50,
                connections: 8,
                ..SendArgs::default()
            };
            let (summary, acked) = world.send(&[&instance], args).await;
            let all = summary.given_up + summary.refused == 0 && !acked.is_empty();
            assert!(all, "{mechanism}: {summary:?}");
            world.landed(Duration::from_secs(60)).await;
            let others = "SELECT count(*) FROM pg_stat_activity a LEFT JOIN pg_stat_ssl s USING (pid)
                          WHERE a.application_name = 'hookmill' AND NOT (coalesce(s.ssl, false) AND a.usename = 'mill')";
            assert_eq!(world.sum(others).await, 0, "{mechanism}: connections without TLS");
            let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hookmill'";
            assert!(world.sum(ours).await > 0);
            let log = instance.log();
            assert!(!log.contains(PASSWORD) && !log.contains("ERROR"), "{log}");
            instance.stop().await;
        }
    });
}
