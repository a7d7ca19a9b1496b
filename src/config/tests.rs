use super::*;

fn load(text: &str) -> Result<Config> {
    let dir = std::env::temp_dir().join(format!(
        "hookmill-config-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&dir)?;
    let path = dir.join("config.toml");
    std::fs::write(&path, text)?;
    let loaded = Config::load(&path);
    std::fs::remove_dir_all(&dir)?;
    loaded
}

const SMALLEST: &str = "[postgres]\nshard_urls = \"postgres://a@h/x, postgres://a@h/y\"\n";

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
        (complete("amount = §{ from = \"/a\", unit = \"minor\" }"), "`currency`"),
        (
            complete("amount = { from = \"/a\", unit = \"minor\", digits = §{ ABC = 2 } }\ncurrency = \"/c\""),
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
    // Words of a scheme: its table is read as a whole, so it is the scheme that is told.
    for (auth, word) in [
        ("{ kind = \"hmc\" }", "`hmac`"),
        ("{ kind = \"hmac\", header = \"x\", encoding = \"base46\" }", "`base64`"),
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
