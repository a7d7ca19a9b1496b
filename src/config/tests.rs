use super::*;

fn load(text: impl AsRef<[u8]>) -> Result<Config> {
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

fn refusal(text: impl AsRef<[u8]>) -> String {
    format!("{:#}", load(text).expect_err("the configuration is wrong"))
}

#[test]
fn the_smallest_one_has_defaults_for_the_rest() {
    let config = load(SMALLEST).expect("it is complete");
    assert_eq!(config.topics.orders.partitions, 12);
    assert_eq!(config.shard_urls().expect("two literal URLs").len(), 2);
}

#[test]
fn bytes_that_are_no_text_are_told_with_their_line() {
    let message = refusal(b"[kafka]\n# caf\xe9\n");
    assert!(message.contains("line 2") && message.contains("UTF-8"), "{message}");
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
        message.contains("line 4") && message.contains("\"stripe\""),
        "{message}"
    );
}
