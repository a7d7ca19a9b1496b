//! Starts that must not happen: each ends in time, with a code, and with one message that names the key, where it stands and
//! what to do; nothing half-started stays.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dev::stack::free_ports;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::harness::{World, light, secrets, shared_stack, until};

/// A start that must be refused: what is wrong with it, and what its message must name.
struct Bad<'a> {
    name: &'a str,
    env: Vec<(&'a str, String)>,
    /// Text of the shipped configuration, and what stands there instead.
    edit: Option<(&'a str, &'a str)>,
    says: &'a [&'a str],
}

fn with_env<'a>(name: &'a str, key: &'a str, value: impl Into<String>, says: &'a [&'a str]) -> Bad<'a> {
    Bad {
        name,
        env: vec![(key, value.into())],
        edit: None,
        says,
    }
}

fn with_edit<'a>(name: &'a str, from: &'a str, to: &'a str, says: &'a [&'a str]) -> Bad<'a> {
    Bad {
        name,
        env: Vec::new(),
        edit: Some((from, to)),
        says,
    }
}

/// The configuration of `world` as `bad` wants it, in a file that its message must name.
fn config(world: &World, bad: &Bad<'_>) -> PathBuf {
    let Some((from, to)) = bad.edit else {
        return world.config.clone();
    };
    let text = std::fs::read_to_string(&world.config).expect("the configuration");
    assert!(text.contains(from), "{from} is not in the configuration");
    let path = world.log_dir().join(format!("{}-{}.toml", world.name, bad.name));
    std::fs::write(&path, text.replacen(from, to, 1)).expect("written");
    path
}

/// Starts it and checks how it is refused.
async fn is_refused(world: &World, bad: &Bad<'_>) {
    let ports = free_ports(2).expect("ports");
    let [ingest, admin] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
    let mut env = vec![
        ("HOOKMILL_INGEST__LISTEN", ingest.as_str()),
        ("HOOKMILL_ADMIN__LISTEN", admin.as_str()),
    ];
    env.extend(bad.env.iter().map(|(name, value)| (*name, value.as_str())));
    let config = config(world, bad);
    let begun = Instant::now();
    let (code, said) = world.with_config(&config).run(bad.name, &["serve"], &env).await;
    let took = begun.elapsed();
    let name = bad.name;
    assert_eq!(code, 1, "{name}: {said}");
    assert!(took < Duration::from_secs(15), "{name}: {took:?}");
    let messages: Vec<&str> = said.lines().filter(|line| line.starts_with("hookmill: ")).collect();
    let [message] = messages[..] else {
        panic!("{name}: one message, not {}: {said}", messages.len());
    };
    let words = bad.says.iter().map(|word| (*word).to_owned());
    let file = bad.edit.map(|_| format!("{}.toml", bad.name));
    for word in words.chain(file) {
        assert!(said.contains(&word), "{name}: {word} is not in: {said}");
    }
    assert!(
        !message.contains("panicked") && !said.contains("panicked"),
        "{name}: {said}"
    );
    assert!(!said.contains("ERROR"), "{name}: said once, not logged as well: {said}");
    for (_, secret) in secrets() {
        assert!(!said.contains(&secret), "{name}: a secret is said");
    }
    for address in [&ingest, &admin] {
        assert!(
            std::net::TcpStream::connect(address).is_err(),
            "{name}: something listens on {address}"
        );
    }
}

/// That no start has made a topic or a table.
async fn nothing_was_made(world: &World) {
    let brokers = world.stack.brokers();
    let names: Vec<String> = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .create()
            .expect("a consumer");
        let metadata = consumer
            .fetch_metadata(None, Duration::from_secs(20))
            .expect("metadata");
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    })
    .await
    .expect("no panic");
    for (topic, _) in world.topics() {
        assert!(!names.contains(&topic), "{topic} was made by a start that was refused");
    }
    let tables = world
        .sum("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .await;
    assert_eq!(tables, 0, "tables were made by a start that was refused");
}

#[test]
fn wrong_configurations() {
    light(async {
        let world = World::new(&shared_stack().await, "bad_config").await;
        let bad = [
            with_env(
                "misspelt_variable",
                "HOOKMILL_INGEST__LISTNE",
                "x",
                &["ingest", "listne", "listen", "environment"],
            ),
            with_edit(
                "misspelt_key",
                "[kafka]\n",
                "[kafka]\nbroker = \"x\"\n",
                &["kafka", "broker", "`brokers`"],
            ),
            with_edit("misspelt_section", "[writers]", "[writer]", &["writer", "`writers`"]),
            with_edit(
                "misspelt_in_source",
                "preset = \"stripe\"",
                "presets = \"stripe\"",
                &["sources", "presets", "`preset`"],
            ),
            with_edit(
                "wrong_type",
                "create_topics = true ",
                "create_topics = \"perhaps\" ",
                &["kafka.create_topics", "text"],
            ),
            with_env(
                "wrong_type_variable",
                "HOOKMILL_TOPICS__ORDERS__PARTITIONS",
                "twelve",
                &["topics.orders.partitions", "HOOKMILL_TOPICS__ORDERS__PARTITIONS"],
            ),
            with_edit(
                "wrong_unit",
                "# body_timeout = \"5s\"",
                "body_timeout = \"5 sheep\"",
                &["ingest.body_timeout", "duration"],
            ),
            with_edit("broken_toml", "[kafka]\n", "[kafka\n", &["line"]),
            with_env(
                "no_partitions",
                "HOOKMILL_TOPICS__DISPUTES__PARTITIONS",
                "0",
                &["topics.disputes.partitions", "at least 1", "config.toml"],
            ),
            with_edit(
                "all_off",
                "[services]",
                "[services]\ningest = false\norders = false\ndisputes = false\n#",
                &["[services]", "switch at least one", "on"],
            ),
            with_edit(
                "promise_broken",
                "[kafka.producer]",
                "[kafka.producer]\nacks = 1",
                &["kafka.producer.\"acks\"", "remove the line"],
            ),
            with_edit(
                "unknown_property",
                "[kafka.properties]",
                "[kafka.properties]\n\"no.such.property\" = 1",
                &["[kafka]", "no.such.property"],
            ),
            with_env(
                "no_such_producer_property",
                "HOOKMILL_KAFKA__PRODUCER__NO_SUCH",
                "abc",
                &["[kafka.producer]", "no.such"],
            ),
            with_env(
                "no_number_for_the_consumer",
                "HOOKMILL_KAFKA__CONSUMER__SESSION_TIMEOUT_MS",
                "abc",
                &["[kafka.consumer]", "session.timeout.ms"],
            ),
            with_env(
                "transactional",
                "HOOKMILL_KAFKA__PRODUCER__TRANSACTIONAL_ID",
                "x",
                &["transactional_id", "remove the line"],
            ),
            with_env("no_deadline", "HOOKMILL_INGEST__DEADLINE", "0s", &["ingest.deadline"]),
            with_env(
                "nothing_in_flight",
                "HOOKMILL_INGEST__MAX_IN_FLIGHT",
                "0",
                &["ingest.max_in_flight"],
            ),
            with_env("no_body", "HOOKMILL_INGEST__BODY_LIMIT", "0", &["ingest.body_limit"]),
            with_env(
                "parked_among_orders",
                "HOOKMILL_TOPICS__PARKED__NAME",
                world.orders(),
                &["topics.parked.name", "topics.orders.name"],
            ),
            with_env(
                "impossible_topic",
                "HOOKMILL_TOPICS__ORDERS__NAME",
                "a b/c",
                &["topics.orders.name", "letters"],
            ),
            with_env("no_filter", "HOOKMILL_LOG__FILTER", "foo=bar=baz", &["log.filter"]),
            Bad {
                name: "one_port_for_both",
                env: vec![
                    ("HOOKMILL_INGEST__LISTEN", "127.0.0.1:9".to_owned()),
                    ("HOOKMILL_ADMIN__LISTEN", "127.0.0.1:9".to_owned()),
                ],
                edit: None,
                says: &["ingest.listen", "admin.listen", "one each"],
            },
            with_edit(
                "unknown_preset",
                "preset = \"stripe\"",
                "preset = \"strip\"",
                &["stripe", "\"strip\"", "razorpay, shopify"],
            ),
            with_edit(
                "same_name_twice",
                "name = \"shopify\"",
                "name = \"stripe\"",
                &["\"stripe\"", "each needs its own"],
            ),
            with_edit(
                "no_url",
                "url = \"https://hooks",
                "# url = \"https://hooks",
                &["\"square\"", "`url`"],
            ),
            with_edit(
                "unset_secret",
                "env:HOOKMILL_SECRET_STRIPE",
                "env:HOOKMILL_SECRET_NOWHERE",
                &["\"stripe\"", "secrets[0]", "HOOKMILL_SECRET_NOWHERE", "export"],
            ),
            with_edit(
                "no_secret_file",
                "env:HOOKMILL_SECRET_STRIPE",
                "file:/no/such/file",
                &["\"stripe\"", "secrets[0]", "/no/such/file", "check the path"],
            ),
            with_env(
                "empty_secret",
                "HOOKMILL_SECRET_STRIPE",
                "",
                &["\"stripe\"", "HOOKMILL_SECRET_STRIPE", "is empty"],
            ),
            with_env(
                "secret_of_another_form",
                "HOOKMILL_SECRET_STANDARD",
                "whsec_???",
                &["\"standard\"", "base64"],
            ),
            // The secret itself instead of a reference is a mistake that must not end in a log.
            with_edit(
                "literal_secret",
                "env:HOOKMILL_SECRET_STRIPE",
                "whsec_test_stripe",
                &["sources", "secrets", "env:NAME"],
            ),
            with_env(
                "no_shard",
                "HOOKMILL_SHARD_URLS",
                " , ",
                &["postgres.shard_urls", "one URL for each"],
            ),
            with_env(
                "no_shard_url",
                "HOOKMILL_SHARD_URLS",
                "localhost:5432",
                &["postgres.shard_urls", "shard 0", "postgres://"],
            ),
            Bad {
                name: "admin_without_token",
                env: vec![("HOOKMILL_ADMIN__LISTEN", "0.0.0.0:1".to_owned())],
                edit: None,
                says: &["admin.token", "HOOKMILL_ADMIN_TOKEN", "export"],
            },
        ];
        for bad in &bad {
            is_refused(&world, bad).await;
        }
        let nowhere = world.with_config(&PathBuf::from("/no/such/config.toml"));
        let (code, said) = nowhere.run("no_config", &["serve"], &[]).await;
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains("/no/such/config.toml") && said.contains("--config"),
            "{said}"
        );
        nothing_was_made(&world).await;
    });
}

#[test]
fn servers_and_ports_that_cannot_be_used() {
    light(async {
        let world = World::new(&shared_stack().await, "bad_servers").await;
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = taken.local_addr().expect("its address").to_string();
        let ingest_taken = ["ingest.listen", &taken, "HOOKMILL_INGEST__LISTEN"];
        let admin_taken = ["admin.listen", &taken, "HOOKMILL_ADMIN__LISTEN"];
        let urls = &world.shard_urls;
        let one_away = format!("{},postgres://postgres@127.0.0.1:1/x", urls[0]);
        let none_such = format!("{},{}", urls[0], urls[1].replace("bad_servers", "nowhere"));
        let bad = [
            with_env(
                "shard_away",
                "HOOKMILL_SHARD_URLS",
                one_away,
                &["shard 1", "postgres.shard_urls", "check that it runs"],
            ),
            with_env(
                "no_such_database",
                "HOOKMILL_SHARD_URLS",
                none_such,
                &["shard 1", "postgres.shard_urls", "nowhere"],
            ),
            with_env(
                "kafka_away",
                "HOOKMILL_KAFKA__BROKERS",
                "127.0.0.1:1",
                &["kafka.brokers", "127.0.0.1:1", "check that it runs"],
            ),
            with_env(
                "ingest_port_taken",
                "HOOKMILL_INGEST__LISTEN",
                taken.clone(),
                &ingest_taken,
            ),
            with_env(
                "admin_port_taken",
                "HOOKMILL_ADMIN__LISTEN",
                taken.clone(),
                &admin_taken,
            ),
            with_env(
                "no_topics",
                "HOOKMILL_KAFKA__CREATE_TOPICS",
                "false",
                &["bad_servers.orders", "hookmill topics create", "kafka.create_topics"],
            ),
            with_env(
                "no_tables",
                "HOOKMILL_POSTGRES__MIGRATE_ON_START",
                "false",
                &["shard 0", "hookmill migrate", "postgres.migrate_on_start"],
            ),
        ];
        for bad in &bad {
            is_refused(&world, bad).await;
        }
        nothing_was_made(&world).await;
    });
}

#[test]
fn what_does_not_fit_what_is_there() {
    light(async {
        let world = World::new(&shared_stack().await, "bad_fit").await;
        let instance = world.start("good").await;
        instance.stop().await;
        let [one, two] = &world.shard_urls[..] else {
            panic!("two shards");
        };
        let swapped = format!("{two},{one}");
        let twice = format!("{one},{two},{one}");
        let bad = [
            with_env(
                "other_partitions",
                "HOOKMILL_TOPICS__ORDERS__PARTITIONS",
                "6",
                &["bad_fit.orders", "12 partitions", "says 6", "[topics]"],
            ),
            with_env(
                "larger_bodies",
                "HOOKMILL_INGEST__BODY_LIMIT",
                "2097152",
                &[
                    "bad_fit.orders",
                    "ingest.body_limit",
                    "2097152",
                    "max.message.bytes",
                    "kafka-configs.sh",
                ],
            ),
            with_env(
                "shards_swapped",
                "HOOKMILL_SHARD_URLS",
                swapped,
                &["shard 0", "it is shard 1", "place 0", "correct the configuration"],
            ),
            with_env(
                "a_shard_less",
                "HOOKMILL_SHARD_URLS",
                one.clone(),
                &["shard 0", "one of 2 shards", "has 1"],
            ),
            with_env(
                "a_shard_more",
                "HOOKMILL_SHARD_URLS",
                twice,
                &["shard 0", "one of 2 shards", "has 3"],
            ),
        ];
        for bad in &bad {
            is_refused(&world, bad).await;
        }
        let recorded = "SELECT count(*) FROM shard_identity WHERE shards = 2 AND (topics->>'bad_fit.orders')::int = 12";
        assert_eq!(
            world.sum(recorded).await,
            2,
            "what the shards say of themselves has not changed"
        );
        // And what is right still starts.
        let instance = world.start("good_again").await;
        instance.stop().await;

        // A topic that somebody made anew, and the configuration with it: only the shards know where users are.
        let topics = [world.orders(), format!("{}.DLQ", world.orders())];
        let client: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", world.stack.brokers())
            .create()
            .expect("a client");
        let names = topics.each_ref().map(String::as_str);
        client
            .delete_topics(&names, &AdminOptions::new())
            .await
            .expect("deleted");
        let nine = [("HOOKMILL_TOPICS__ORDERS__PARTITIONS", "9")];
        until("the topics are made anew", Duration::from_secs(20), async || {
            world.run("made_anew", &["topics", "create"], &nine).await.0 == 0
        })
        .await;
        let says = [
            "shard 0",
            "topic bad_fit.orders with 12 partitions",
            "says 9",
            "moving data",
        ];
        is_refused(&world, &with_env("topic_made_anew", nine[0].0, nine[0].1, &says)).await;
    });
}
