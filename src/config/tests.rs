use super::*;

fn load(text: &str) -> Result<Config> {
    load_with(text, &[])
}

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Config> {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    Config::read(Path::new("config.toml"), text.to_owned(), variables)
}

const SMALLEST: &str = "[postgres]\nshard_urls = \"postgres://a@h/x, postgres://a@h/y\"\n";

/// The same with topics, whose keys can be overridden one by one then.
const WITH_TOPICS: &str = "[postgres]\nshard_urls = \"postgres://a@h/x\"\n[topics]\n\
    orders = { name = \"orders.webhooks\", partitions = 12 }\n\
    disputes = { name = \"disputes.webhooks\", partitions = 6 }\n\
    parked = { name = \"webhooks.parked\", partitions = 1 }\n";

fn refusal(text: &str) -> String {
    format!("{:#}", load(text).expect_err("the configuration is wrong"))
}

#[test]
fn the_smallest_one_has_defaults_for_the_rest() {
    let config = load(SMALLEST).expect("it is complete");
    assert_eq!(config.topics.orders.partitions, 12);
    assert_eq!(config.shard_urls().expect("two literal URLs").len(), 2);
}

#[test]
fn a_misspelt_key_is_named_with_its_file() {
    let message = refusal(&format!("{SMALLEST}[kafka]\nbroker = \"x\"\n"));
    assert!(
        message.contains("broker") && message.contains("brokers") && message.contains("config.toml"),
        "{message}"
    );
}

#[test]
fn a_value_of_the_wrong_type_names_its_key() {
    let message = refusal(&format!("{SMALLEST}[ingest]\nbody_limit = \"large\"\n"));
    assert!(message.contains("ingest.body_limit"), "{message}");
}

#[test]
fn an_unset_reference_names_the_key_and_the_variable() {
    let config =
        load("[postgres]\nshard_urls = [\"env:HOOKMILL_TEST_NOT_SET\"]\n").expect("references are resolved later");
    let message = format!("{:#}", config.shard_urls().expect_err("the variable is not set"));
    assert!(
        message.contains("postgres.shard_urls") && message.contains("HOOKMILL_TEST_NOT_SET"),
        "{message}"
    );
}

#[test]
fn an_admin_listener_off_loopback_needs_a_token() {
    let message = refusal(&format!("{SMALLEST}[admin]\nlisten = \"0.0.0.0:8081\"\n"));
    assert!(message.contains("admin.token"), "{message}");
}

#[test]
fn a_property_that_a_promise_stands_on_is_refused_with_its_reason() {
    let message = refusal(&format!("{SMALLEST}[kafka.producer]\nacks = 1\n"));
    assert!(message.contains("acks") && message.contains("202"), "{message}");
}

#[test]
fn the_shipped_configuration_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let config = Config::load(&path).expect("the shipped config.toml is right");
    assert_eq!(config.sources.len(), 5);
}

#[test]
fn a_source_that_asks_for_nothing_is_taken_on_loopback_or_if_said_twice() {
    let load = |listen: &str, auth: &str| {
        let text = format!(
            "{SMALLEST}[ingest]\nlisten = \"{listen}\"\n[[sources]]\nname = \"open\"\npreset = \"stripe\"\nauth = {{ kind = \"none\"{auth} }}\n"
        );
        load(&text)
            .expect("it can be read")
            .sources()
            .map(|_| ())
            .map_err(|error| format!("{error:#}"))
    };
    assert_eq!(load("127.0.0.1:8080", ""), Ok(()));
    assert_eq!(load("0.0.0.0:8080", ", anybody = \"i know\""), Ok(()));
    let message = load("0.0.0.0:8080", "").expect_err("anybody could write");
    assert!(
        message.contains("ingest.listen") && message.contains("i know"),
        "{message}"
    );
}

#[test]
fn a_mistake_in_a_source_names_its_line_and_what_may_have_been_meant() {
    let message = refusal(&format!(
        "{SMALLEST}[[sources]]\nname = \"s\"\npreset = \"stripe\"\nsecret = [\"env:X\"]\n"
    ));
    assert!(message.contains("line 6") && message.contains("`secrets`"), "{message}");
    let message = refusal(&format!(
        "{SMALLEST}[[sources]]\nname = \"s\"\nauth = {{ kind = \"hmc\" }}\n"
    ));
    assert!(message.contains("line 5") && message.contains("`hmac`"), "{message}");
    let config = load(&format!(
        "{SMALLEST}[[sources]]\nname = \"s\"\npreset = \"strip\"\nsecrets = [\"env:X\"]\n"
    ));
    let message = format!(
        "{:#}",
        config.expect("it can be read").sources().expect_err("no such preset")
    );
    assert!(
        message.contains("line 5, column 10") && message.contains("\"stripe\""),
        "{message}"
    );
}

/// Each configuration has `§` where its mistake stands, and comes with what the message must say.
#[test]
fn every_mistake_in_a_source_says_where_it_stands_and_what_would_be_right() {
    let own = "[[sources]]\nname = \"s\"\npreset = \"stripe\"\nauth = { kind = \"none\" }\n";
    let signed = |lines: &str| format!("[[sources]]\nname = \"s\"\nsecrets = [\"env:PATH\"]\n{lines}\n");
    let change = |line: &str| format!("{own}[[sources.map]]\nname = \"dispute\"\n{line}\n");
    let rule = "name = \"mine\"\nkind = \"order\"\nwhen = { \"/type\" = \"x\" }\nevent_id = \"/id\"\nevent_type = \"/type\"\noccurred_at = { from = \"/at\", as = \"unix\" }\norder_id = \"/id\"\n";
    let complete = |line: &str| format!("{own}[[sources.map]]\n{rule}user_id = \"/u\"\n{line}\n");
    for (text, word) in [
        // Keys, and words of a list, at every depth.
        (format!("{own}§secret = []\n"), "`secrets`"),
        (format!("{own}§tolerence = \"5m\"\n"), "`tolerance`"),
        (format!("{own}unmapped = §\"parked\"\n"), "`park`"),
        (change("§userid = \"/u\""), "`user_id`"),
        (change("kind = §\"disputes\""), "`dispute`"),
        (
            change("occurred_at = { from = \"/at\", as = §\"rfc339\" }"),
            "`rfc3339`",
        ),
        (
            complete("amount = { from = \"/a\", unit = §\"majors\" }\ncurrency = \"/c\""),
            "`major`",
        ),
        (
            format!("{own}[[sources.handshake]]\nwhen = {{ \"query:a\" = \"*\" }}\n§ansver = {{ body = \"ok\" }}\n"),
            "`answer`",
        ),
        (
            signed("auth = { kind = \"hmac\", §heder = \"x\", encoding = \"hex\" }"),
            "`header`",
        ),
        // What the words mean together.
        (signed("preset = §\"strip\""), "\"stripe\""),
        (
            "[[sources]]\nname = §\"a b\"\npreset = \"stripe\"\n".to_owned(),
            "letters",
        ),
        (
            "[[sources]]\nname = §\"s\"\nsecrets = [\"env:PATH\"]\n".to_owned(),
            "preset",
        ),
        (
            "[[sources]]\nname = §\"s\"\npreset = \"stripe\"\n".to_owned(),
            "secrets",
        ),
        (
            "[[sources]]\nname = §\"s\"\npreset = \"square\"\nsecrets = [\"env:PATH\"]\n".to_owned(),
            "`url`",
        ),
        (
            "[[sources]]\nname = \"s\"\npreset = \"stripe\"\nsecrets = [\"env:PATH\", §\"env:HOOKMILL_TEST_UNSET\"]\n"
                .to_owned(),
            "HOOKMILL_TEST_UNSET",
        ),
        (format!("{own}path = §\"webhooks\"\n"), "begin with '/'"),
        (format!("{own}each = §\"notificationItems\"\n"), "JSON Pointer"),
        (change("user_id = §\"data/id\""), "/pointer"),
        (change("user_id = §[\"/a\", \"heder:x\"]"), "\"header\""),
        (change("user_id = §[]"), "empty list"),
        (change("when = { \"/type\" = §[] }"), "never fit"),
        (change("user_id = §\"/a~2b\""), "~0"),
        (change("user_id = §\"u:{/a\""), "not closed"),
        (change("when = { type = §\"x\" }"), "/pointer"),
        (
            change("status = [{ from = \"/s\", map = { a = \"won\", b = §\"loste\" } }]"),
            "\"lost\"",
        ),
        (
            change("status = [{ from = \"/s\", present = §\"payed\" }]"),
            "there are",
        ),
        (complete("§amount = { from = \"/a\", unit = \"minor\" }"), "`currency`"),
        (
            complete("amount = { from = \"/a\", unit = \"minor\", §digits = { ABC = 2 } }\ncurrency = \"/c\""),
            "ISO 4217",
        ),
        (
            format!("{own}§[[sources.map]]\nname = \"disputes\"\nuser_id = \"/a\"\n"),
            "\"dispute\"",
        ),
        (format!("{own}§[[sources.map]]\n{rule}"), "`user_id`"),
        (format!("{own}§[[sources.map_after]]\nname = \"late\"\n"), "`kind`"),
        (
            format!(
                "{own}[[sources.handshake]]\nsigned = false\nwhen = {{ \"/type\" = §\"x\" }}\nanswer = {{ body = \"ok\" }}\n"
            ),
            "unsigned",
        ),
        (
            signed(
                "preset = \"stripe\"\nauth = { kind = \"hmac\", header = \"x\", encoding = \"hex\", content = §\"{bdy}\" }",
            ),
            "\"body\"",
        ),
        (
            signed(
                "preset = \"stripe\"\nauth = { kind = \"hmac\", header = \"x\", encoding = \"hex\", timestamp = §\"heder:x\" }",
            ),
            "\"header\"",
        ),
        (
            signed("preset = \"stripe\"\nauth = { kind = \"none\", anybody = §\"yes\" }"),
            "i know",
        ),
        (signed("preset = \"stripe\"\nauth = { kind = §\"hmc\" }"), "`hmac`"),
        (
            signed("preset = \"stripe\"\nauth = { kind = \"hmac\", header = \"x\", encoding = §\"base46\" }"),
            "`base64`",
        ),
        (
            signed(
                "preset = \"stripe\"\nauth = [{ kind = \"hmac\", header = \"x\", encoding = \"hex\", algorithm = §\"sha265\" }]",
            ),
            "`sha256`",
        ),
        (
            signed("preset = \"stripe\"\nauth = { kind = \"hmac\", §headr = \"x\", encoding = \"hex\" }"),
            "`header`",
        ),
        (
            format!("{own}[[sources]]\nname = §\"s\"\npreset = \"stripe\"\nauth = {{ kind = \"none\" }}\n"),
            "each needs its own",
        ),
    ] {
        let text = format!("{SMALLEST}{text}");
        let (before, behind) = text.split_once('§').expect("a mark");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let text = format!("{before}{behind}");
        let message = match load(&text) {
            Err(error) => format!("{error:#}"),
            Ok(config) => match config.sources() {
                Err(error) => format!("{error:#}"),
                Ok(_) => panic!("nothing is wrong with\n{text}"),
            },
        };
        let place = format!("line {line}, column {column}");
        assert!(
            message.contains(&place) && message.contains(word),
            "{place}, {word}\n{text}\n{message}"
        );
    }
    // A key of another kind: it is the scheme that is told, and the key.
    for (auth, word) in [
        ("{ kind = \"basic\", header = \"x\" }", "`header`"),
        ("{ kind = \"none\", tolerance = \"5m\" }", "`tolerance`"),
        ("{ kind = \"hmac\", header = \"x\" }", "`encoding`"),
    ] {
        let message = refusal(&format!("{SMALLEST}{}", signed(&format!("auth = {auth}"))));
        assert!(
            message.contains("line 6, column ") && message.contains(word),
            "{message}"
        );
    }
}

#[test]
fn sources_alone_are_a_configuration_for_tools() {
    let config =
        load("[[sources]]\nname = \"s\"\npreset = \"stripe\"\nsecrets = [\"env:PATH\"]\n").expect("it can be read");
    assert!(config.sources().is_ok());
    let message = format!("{:#}", config.shard_urls().expect_err("no shard"));
    assert!(message.contains("postgres.shard_urls"), "{message}");
}

#[test]
fn several_mistakes_are_told_at_once_with_their_places() {
    let text = format!("{SMALLEST}[kafka]\nbroker = \"x\"\n[ingest]\ndeadlin = \"1s\"\nbody_limit = \"large\"\n");
    let error = load_with(&text, &[("HOOKMILL_ADMIN__LISTNE", "x")]).expect_err("four mistakes");
    let message = format!("{error:#}");
    for part in [
        "`broker`",
        "did you mean `brokers`",
        "line 4",
        "`deadlin`",
        "line 6",
        "ingest.body_limit",
        "line 7",
        "HOOKMILL_ADMIN__LISTNE",
        "`listen`",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}

#[test]
fn what_stands_in_a_wrong_place_is_never_repeated() {
    let source = format!("{SMALLEST}[[sources]]\nname = \"s\"\npreset = \"stripe\"\n");
    for text in [
        format!("{source}secrets = \"hunter2\"\n"),
        format!("{source}secrets = [\"hunter2\"]\n"),
        format!("{source}secrets = [\"hunter2]\n"),
        format!("{source}auth = \"hunter2\"\n"),
        format!("{source}tolerance = \"hunter2\"\n"),
        format!("{source}auth = {{ kind = \"hunter2\" }}\n"),
        format!("{SMALLEST}[admin]\ntoken = \"hunter2\"\n"),
        format!("{SMALLEST}[kafka]\nproperties = \"sasl.password=hunter2\"\n"),
        format!("{SMALLEST}[ingest]\nlisten = \"hunter2\"\n"),
        format!("{SMALLEST}[topics]\non_gap = \"hunter2\"\n"),
        "postgres = \"hunter2\"\n".to_owned(),
    ] {
        let message = refusal(&text);
        assert!(!message.contains("hunter2") && message.contains("line"), "{message}");
    }
    for name in [
        "HOOKMILL_KAFKA__PROPERTIES",
        "HOOKMILL_POSTGRES__LANES",
        "HOOKMILL_ADMIN__TOKEN",
        "HOOKMILL_KAFKA",
        "HOOKMILL_SOURCES__0__SECRETS",
    ] {
        let error = load_with(SMALLEST, &[(name, "hunter2")]).expect_err("it is none");
        let message = format!("{error:#}");
        assert!(!message.contains("hunter2") && message.contains(name), "{message}");
    }
}

#[test]
fn a_variable_is_text_where_text_is_wanted_and_a_number_where_that_is() {
    let config = load_with(
        WITH_TOPICS,
        &[
            ("HOOKMILL_TOPICS__ORDERS__NAME", "0123"),
            ("HOOKMILL_TOPICS__ORDERS__PARTITIONS", "9"),
            ("HOOKMILL_KAFKA__PROPERTIES__SASL_PASSWORD", "007"),
            ("HOOKMILL_KAFKA__PRODUCER__SASL_USERNAME", "[x]"),
            ("HOOKMILL_KAFKA__CREATE_TOPICS", "true"),
            ("HOOKMILL_INGEST__TRUSTED_PROXIES", "[\"10.0.0.0/8\"]"),
            ("HOOKMILL_POSTGRES__LANES", "3"),
            ("HOOKMILL_LOG__FILTER", "\"debug\""),
        ],
    )
    .expect("all are right");
    assert_eq!(config.topics.orders.name, "0123");
    assert_eq!(config.topics.orders.partitions, 9);
    assert_eq!(config.kafka.properties["sasl_password"], "007");
    assert_eq!(config.kafka.producer["sasl_username"], "[x]");
    assert!(config.kafka.create_topics);
    assert_eq!(config.ingest.trusted_proxies.len(), 1);
    assert_eq!(config.postgres.lanes.get(), 3);
    assert_eq!(config.log.filter, "debug");
}

#[test]
fn variables_that_cannot_be_overrides_are_refused_and_secrets_are_no_keys() {
    load_with(
        SMALLEST,
        &[
            ("HOOKMILL_SECRET_MY__SHOP", "x"),
            ("HOOKMILL_SHARD_URLS", "x"),
            ("HOOKMILL_ADMIN_TOKEN", "x"),
            ("HOOKMILL_CONFIG", "x"),
            ("OTHER__THING", "x"),
        ],
    )
    .expect("none of these is a key");
    for (name, says) in [
        ("HOOKMILL_POSTGRES", "HOOKMILL_POSTGRES__<KEY>"),
        ("HOOKMILL_SOURCES", "--config"),
        ("HOOKMILL_SOURCES__0__NAME", "--config"),
    ] {
        let error = load_with(SMALLEST, &[(name, "x")]).expect_err("it would have no effect");
        let message = format!("{error:#}");
        assert!(message.contains(name) && message.contains(says), "{message}");
    }
}

#[test]
fn what_could_only_refuse_everything_or_overflow_is_refused_by_its_key() {
    for (name, value) in [
        ("INGEST__DEADLINE", "0s"),
        ("INGEST__MAX_IN_FLIGHT", "0"),
        ("INGEST__BODY_LIMIT", "0"),
        ("INGEST__KEEP_ALIVE", "500000years"),
        ("ADMIN__MAX_CONNECTIONS", "0"),
        ("POSTGRES__LANES", "65"),
        ("POSTGRES__CONNECT_TIMEOUT", "0s"),
        ("POSTGRES__START_TIMEOUT", "500000years"),
        ("POSTGRES__STATEMENT_TIMEOUT", "0s"),
        ("POSTGRES__LOCK_TIMEOUT", "1us"),
        ("WRITERS__BATCH_ROWS", "0"),
        ("WRITERS__BATCH_BYTES", "0"),
        ("WRITERS__STATEMENT_ROWS", "100000000000"),
        ("SUPERVISION__WITHIN", "0s"),
        ("EVENTS__AHEAD_MONTHS", "5000"),
        ("EVENTS__WINDOW_PAST", "500000years"),
        ("SHUTDOWN__TIMEOUT", "0s"),
        ("TOPICS__ORDERS__PARTITIONS", "0"),
        ("TOPICS__DISPUTES__PARTITIONS", "2000000000"),
        ("TOPICS__PARKED__PARTITIONS", "-1"),
        ("KAFKA__REPLICATION", "0"),
        ("KAFKA__BROKERS", " "),
        ("KAFKA__GROUP_PREFIX", ""),
        ("LOG__FILTER", "foo=bar=baz"),
    ] {
        let variable = format!("HOOKMILL_{name}");
        let error = load_with(WITH_TOPICS, &[(&variable, value)]).expect_err(name);
        let (message, key) = (format!("{error:#}"), name.to_lowercase().replace("__", "."));
        assert!(message.contains(&key), "{key} is not in {message}");
    }
}

#[test]
fn listeners_need_a_port_each() {
    let both = |ingest, admin| {
        let variables = [
            ("HOOKMILL_INGEST__LISTEN", ingest),
            ("HOOKMILL_ADMIN__LISTEN", admin),
            ("HOOKMILL_ADMIN__TOKEN", "env:HOOKMILL_ADMIN_TOKEN"),
        ];
        load_with(SMALLEST, &variables)
            .map(|_| ())
            .map_err(|e| format!("{e:#}"))
    };
    for (ingest, admin) in [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::1]:1", "0.0.0.0:1"),
    ] {
        let message = both(ingest, admin).expect_err("the same port");
        assert!(
            message.contains("ingest.listen") && message.contains("admin.listen"),
            "{message}"
        );
    }
    assert_eq!(both("127.0.0.1:0", "127.0.0.1:0"), Ok(()));
    assert_eq!(both("127.0.0.1:1", "127.0.0.2:1"), Ok(()));
}

#[test]
fn topics_have_possible_names_and_one_each() {
    let named = |key: &str, name: &str| {
        let variable = format!("HOOKMILL_TOPICS__{}__NAME", key.to_uppercase());
        load_with(WITH_TOPICS, &[(&variable, name)])
            .map(|_| ())
            .map_err(|e| format!("{e:#}"))
    };
    for (key, name) in [
        ("parked", "orders.webhooks"),
        ("parked", "orders_webhooks"),
        ("parked", "orders.webhooks.DLQ"),
        ("disputes", "orders.webhooks"),
        ("disputes", "orders.webhooks.DLQ"),
        ("orders", "a b/c"),
        ("orders", ""),
        ("orders", ".."),
        ("orders", "ümlaut"),
        ("orders", "other.DLQ"),
    ] {
        let message = named(key, name).expect_err(name);
        assert!(message.contains(&format!("topics.{key}.name")), "{message}");
    }
    let long = "x".repeat(245);
    assert_eq!(named("orders", &long), Ok(()));
    assert!(named("orders", &format!("{long}x")).is_err_and(|e| e.contains("245")));
}
