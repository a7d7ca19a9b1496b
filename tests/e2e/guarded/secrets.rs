//! Secrets are planted wherever they can stand, and then everything that anybody can read is searched for them: logs at the
//! level debug, answers, figures, commands, refused starts, records on Kafka, and the tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use dev::process::Signal;
use dev::send::SendArgs;
use rdkafka::message::{Headers as _, Message as _};

use crate::harness::{Instance, World, light, secrets, shared_stack};
use crate::refusals::wire::good_order;

const TOKEN: &str = "planted-token-1f7a";
const BASIC: &str = "planted-user:planted-basic-2e6b";
const ADMIN: &str = "planted-admin-3d5c";
const SHARD: &str = "planted-shard-4c4d";
const SASL: &str = "planted-sasl-5b3e";
const KEY: &str = "planted-key-6a2f";
const COOKIE: &str = "planted-cookie-7910";
/// What is to be found, so that it is known that the search finds.
const MARK: &str = "mark-of-the-parked";

fn planted() -> Vec<String> {
    let mut all: Vec<String> = [TOKEN, BASIC, "planted-basic-2e6b", ADMIN, SHARD, SASL, KEY, COOKIE]
        .map(str::to_owned)
        .to_vec();
    all.push(base64::engine::general_purpose::STANDARD.encode(BASIC));
    all.extend(secrets().into_iter().map(|(_, secret)| secret));
    all
}

/// Everything that was said, with where.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    fn has(&self, word: &str) -> bool {
        self.0.iter().any(|(_, text)| text.contains(word))
    }

    fn holds_no_secret(&self) {
        for secret in planted() {
            for (place, text) in &self.0 {
                let at = text.find(&secret);
                let around = at.map(|at| text.get(at.saturating_sub(200)..at + secret.len()));
                assert!(at.is_none(), "{secret} is said in {place}: {around:?}");
            }
        }
    }
}

fn more_sources(token_file: &Path) -> String {
    format!(
        r#"
[[sources]]
name = "tokened"
preset = "standard"
auth = {{ kind = "token", header = "X-Api-Key" }}
secrets = ["file:{}"]
unmapped = "park"

[[sources]]
name = "basic"
preset = "standard"
auth = {{ kind = "basic" }}
secrets = [{{ from = "env:PLANTED_BASIC", name = "the basic one" }}]
unmapped = "park"
"#,
        token_file.display()
    )
}

async fn post(instance: &Instance, heard: &mut Heard, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let answer = instance.post(path, &headers, body.as_bytes()).await;
    let status = answer.status().as_u16();
    let said = format!("{:?}", answer.headers());
    heard.add(format!("{path}, {status}"), said + &answer.text().await.expect("text"));
    status
}

/// Webhooks of all kinds: good ones, wrong ones, ones that are parked, with secrets of their own.
async fn webhooks(instance: &Instance, heard: &mut Heard) {
    let strange = good_order()
        .replace("order.created", "parcel.lost")
        .replace("\"o1\"", &format!("\"{MARK}\""));
    let cookie = format!("session={COOKIE}");
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(BASIC));
    let tokened = [("x-api-key", TOKEN), ("webhook-id", "m1"), ("cookie", &cookie)];
    let with_password = [
        ("authorization", basic.as_str()),
        ("webhook-id", "m2"),
        ("x-kept", MARK),
    ];
    assert_eq!(
        post(instance, heard, "/webhooks/tokened", &tokened, &strange).await,
        202
    );
    assert_eq!(
        post(instance, heard, "/webhooks/basic", &with_password, &strange).await,
        202
    );
    assert_eq!(
        post(instance, heard, "/webhooks/tokened", &tokened, &good_order()).await,
        202
    );
    for (path, headers, body, status) in [
        ("/webhooks/tokened", vec![("x-api-key", "wrong")], good_order(), 401),
        (
            "/webhooks/basic",
            vec![("authorization", "Basic d3Jvbmc=")],
            good_order(),
            401,
        ),
        ("/webhooks/tokened", tokened.to_vec(), "{".to_owned(), 400),
        (
            "/webhooks/basic",
            with_password.to_vec(),
            good_order().replace("u1", ""),
            422,
        ),
        ("/webhooks/nobody", tokened.to_vec(), good_order(), 404),
    ] {
        assert_eq!(post(instance, heard, path, &headers, &body).await, status, "{path}");
    }
}

async fn pages(instance: &Instance, heard: &mut Heard) {
    for path in ["/health/live", "/health/ready", "/stats", "/metrics", "/", "/nothing"] {
        for token in [None, Some(ADMIN), Some("wrong")] {
            let mut request = instance.client.get(format!("{}{path}", instance.admin));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.expect("an answer");
            let said = format!("{:?}", answer.headers());
            heard.add(path, said + &answer.text().await.expect("text"));
        }
    }
}

async fn commands(world: &World, heard: &mut Heard, body: &Path) {
    let body = body.to_str().expect("text");
    let mut runs: Vec<Vec<&str>> = vec![
        vec!["check"],
        vec!["check", "--output", "json"],
        vec!["sources", "list"],
        vec!["sources", "list", "--output", "json"],
        vec!["topics"],
        vec!["migrate"],
        vec!["parked", "list"],
        vec!["parked", "list", "--output", "json"],
        vec!["parked", "replay", "--all", "--dry-run"],
        vec!["sources", "test", "tokened", "--body", body],
        vec![
            "sources",
            "test",
            "basic",
            "--body",
            body,
            "-H",
            "authorization: Basic wrong",
        ],
    ];
    for name in [
        "stripe", "shopify", "square", "razorpay", "standard", "tokened", "basic",
    ] {
        runs.push(vec!["sources", "show", name]);
        runs.push(vec!["sources", "show", name, "--output", "json"]);
    }
    for command in runs {
        let (_, said) = world.run("command", &command, &[]).await;
        heard.add(command.join(" "), said);
    }
    let (_, list) = world.run("list", &["parked", "list", "--output", "json"], &[]).await;
    let list = list.lines().last().unwrap_or_default().to_owned();
    let parked: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let ids: Vec<&str> = parked
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|p| p["id"].as_str())
        .collect();
    assert_eq!(ids.len(), 2, "{list}");
    for id in ids {
        let (_, said) = world.run("show", &["parked", "show", id], &[]).await;
        heard.add(format!("parked show {id}"), said);
    }
}

/// Starts that are refused because of a mistake beside a secret, or of the secret itself.
async fn refused_starts(world: &World, heard: &mut Heard) {
    let text = std::fs::read_to_string(&world.config).expect("the configuration");
    let token_file = "secrets = [\"file:";
    let edits = [
        // The line with the mistake holds the secret.
        (
            "unclosed",
            "[kafka.properties]",
            format!("[kafka.properties]\n\"sasl.password\" = \"{SASL}"),
        ),
        (
            "misspelt",
            "[kafka.properties]",
            format!("[kafka.properties]\n\"sasl.pasword\" = \"{SASL}\""),
        ),
        (
            "typed",
            "[kafka.properties]",
            format!("[kafka.properties]\n\"ssl.key.password\" = [\"{KEY}\"]"),
        ),
        ("literal", token_file, format!("secrets = [\"{TOKEN}\", \"file:")),
        (
            "no_list",
            "secrets = [\"env:HOOKMILL_SECRET_STRIPE\"]",
            format!("secrets = \"{TOKEN}\""),
        ),
        (
            "table",
            "secrets = [\"env:HOOKMILL_SECRET_STRIPE\"]",
            format!("secrets = [{{ form = \"{TOKEN}\" }}]"),
        ),
        (
            "admin",
            "token = \"env:HOOKMILL_ADMIN_TOKEN\"",
            format!("token = \"{ADMIN}\""),
        ),
        (
            "admin_typed",
            "token = \"env:HOOKMILL_ADMIN_TOKEN\"",
            format!("token = [\"{ADMIN}\"]"),
        ),
        (
            "urls",
            "shard_urls = [\"env:HOOKMILL_SHARD_URLS\"]",
            format!("shard_urls = {{ a = \"{SHARD}\" }}"),
        ),
        (
            "url",
            "shard_urls = [\"env:HOOKMILL_SHARD_URLS\"]",
            format!("shard_urls = [\"mysql://x:{SHARD}@h/y\"]"),
        ),
        (
            "url_port",
            "shard_urls = [\"env:HOOKMILL_SHARD_URLS\"]",
            format!("shard_urls = [\"postgres://x:{SHARD}@127.0.0.1:none/y\"]"),
        ),
        (
            "url_away",
            "shard_urls = [\"env:HOOKMILL_SHARD_URLS\"]",
            format!("shard_urls = [\"postgres://x:{SHARD}@127.0.0.1:1/y\"]"),
        ),
    ];
    for (name, from, to) in edits {
        assert!(text.contains(from), "{from} is not in the configuration");
        let path: PathBuf = world.log_dir().join(format!("{}-{name}.toml", world.name));
        std::fs::write(&path, text.replacen(from, &to, 1)).expect("written");
        let world = world.with_config(&path);
        for command in ["serve", "check"] {
            let (code, said) = world.run(name, &[command], &[]).await;
            assert_eq!(code, 1, "{name}: {said}");
            assert!(!said.contains("panicked"), "{name}: {said}");
            heard.add(format!("{command} refused: {name}"), said);
        }
    }
    let bad_variables = [
        ("HOOKMILL_ADMIN__TOKEN", format!("[{ADMIN}]")),
        ("HOOKMILL_KAFKA__PROPERTIES__SASL_PASWORD", SASL.to_owned()),
        (
            "HOOKMILL_POSTGRES__SHARD_URLS",
            format!("postgres://x:{SHARD}@127.0.0.1:1/y"),
        ),
        ("PLANTED_BASIC", "planted-basic-2e6b".to_owned()),
    ];
    for (name, value) in bad_variables {
        let (code, said) = world.run("bad_variable", &["serve"], &[(name, &value)]).await;
        assert_eq!(code, 1, "{name}: {said}");
        heard.add(format!("serve refused: {name}"), said);
    }
}

async fn records_and_rows(world: &World, heard: &mut Heard) {
    let mut topics = world.topics();
    topics.push((world.parked(), 1));
    for (topic, partitions) in topics {
        for record in world.records(&topic, partitions).await {
            let mut text = format!("{:?}", record.key().map(String::from_utf8_lossy));
            for header in record.headers().into_iter().flat_map(|headers| headers.iter()) {
                let value = header.value.map(String::from_utf8_lossy);
                text.push_str(&format!("\n{}: {value:?}", header.key));
            }
            text.push_str(&String::from_utf8_lossy(record.payload().unwrap_or_default()));
            heard.add(format!("a record of {topic}"), text);
        }
    }
    for shard in world.stack.shards() {
        let client = shard.connect(&world.name).await.expect("a shard");
        for table in [
            "orders",
            "order_events",
            "dead_letters",
            "consumer_offsets",
            "shard_identity",
        ] {
            let rows = client
                .query(&format!("SELECT t::text FROM {table} t"), &[])
                .await
                .expect("rows");
            for row in rows {
                heard.add(table, row.get::<_, String>(0));
            }
        }
    }
}

#[test]
fn no_secret_is_said_anywhere() {
    light(async {
        let world = World::new(&shared_stack().await, "planted").await;
        let dir = world.log_dir().join("planted");
        std::fs::create_dir_all(&dir).expect("a folder");
        let (token_file, body) = (dir.join("token"), dir.join("body.json"));
        std::fs::write(&token_file, format!("{TOKEN}\n")).expect("written");
        std::fs::write(&body, good_order()).expect("written");
        let with_password = |url: &String| url.replace("hookmill@", &format!("hookmill:{SHARD}@"));
        let mut world = world
            .configured(|text| {
                let kafka = format!(
                    "[kafka.properties]\n\"sasl.password\" = \"env:PLANTED_SASL\"\n\"ssl.key.password\" = \"{KEY}\""
                );
                text.replacen("[kafka.properties]", &kafka, 1) + &more_sources(&token_file)
            })
            .set("PLANTED_SASL", SASL)
            .set("PLANTED_BASIC", BASIC)
            .set("HOOKMILL_ADMIN_TOKEN", ADMIN)
            .set("HOOKMILL_LOG__FILTER", "debug");
        world.shard_urls = world.shard_urls.iter().map(with_password).collect();

        let port = dev::stack::free_ports(1).expect("a port")[0];
        let mut instance = world.spawn_listening("only", &format!("0.0.0.0:{port}"), &[]);
        instance.admin = format!("http://127.0.0.1:{port}");
        instance.ready().await;
        let mut heard = Heard::default();
        webhooks(&instance, &mut heard).await;
        let args = SendArgs {
            count: 100,
            poison: 3,
            ..SendArgs::default()
        };
        world.send(&[&instance], args).await;
        world.landed(Duration::from_secs(60)).await;
        pages(&instance, &mut heard).await;
        commands(&world, &mut heard, &body).await;
        records_and_rows(&world, &mut heard).await;
        instance.process.signal(Signal::SIGHUP);
        refused_starts(&world, &mut heard).await;
        instance.stop().await;
        heard.add("the log", instance.log());

        for word in [
            MARK,
            "env:PLANTED_BASIC",
            "the basic one",
            "dlq.",
            "shard_writer.0.0",
            "webhook-id",
            "x-kept",
        ] {
            assert!(
                heard.has(word),
                "{word} should be found: the search looks into the wrong places"
            );
        }
        assert!(heard.has("DEBUG"), "the log is at the level debug");
        heard.holds_no_secret();
    });
}
