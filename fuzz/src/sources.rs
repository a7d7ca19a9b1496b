//! Sources with secrets that no input can know, for all targets.

use std::hash::{BuildHasher, RandomState};

use hookmill_actors::sources::{SourceConfig, Sources, presets};

/// Every preset that is verified by a secret alone, and sources that try the ways of signing which no preset uses.
pub fn all() -> Sources {
    let mut text = String::new();
    for (name, _) in presets() {
        let more = match name {
            "square" => "url = \"https://hooks.example.com/webhooks/square\"\n",
            _ => "",
        };
        let secret = match name {
            "standard" | "svix" | "bigcommerce" => "BASE64",
            "chargebee" => "BASIC",
            _ => "HEX",
        };
        text += &format!("[[sources]]\nname = {name:?}\npreset = {name:?}\nsecrets = [{secret}]\n{more}");
    }
    text += r#"
        [[sources]]
        name = "bearer"
        secrets = [HEX]
        auth = { kind = "token" }
        RULES
        [[sources]]
        name = "open"
        auth = { kind = "none", anybody = "i know" }
        unmapped = "park"
        invalid = "park"
        each = "/events"
        handshake = [{ when = { "/type" = "ping" }, answer = { body = "pong" } }]
        RULES
    "#;
    compile(&text.replace("RULES", RULE))
}

const RULE: &str = r#"map = [{ name = "any", when = { "/type" = ["paid", "open"] }, kind = "order", event_id = ["/id", "header:x-id"], event_type = "/type",
    occurred_at = { from = "/at", as = "rfc3339" }, order_id = "/order", user_id = ["/user", "o:{/order}"],
    amount = { from = "/amount", unit = "major" }, currency = "/currency", version = "/version",
    status = [{ from = "/status", map = { paid = "paid", open = "pending" } }] }]"#;

fn compile(text: &str) -> Sources {
    #[derive(Debug)]
    struct Files(Vec<std::path::PathBuf>);
    impl Drop for Files {
        fn drop(&mut self) {
            for file in &self.0 {
                let _ = std::fs::remove_file(file);
            }
        }
    }
    let secret = format!("{:016x}{:016x}", random(), random());
    let mut text = text.to_owned();
    let mut files = Files(Vec::new());
    for (kind, secret) in [
        ("HEX", secret.clone()),
        ("BASE64", format!("whsec_{secret}")),
        ("BASIC", format!("user:{secret}")),
    ] {
        let path = std::env::temp_dir().join(format!("hookmill-fuzz-{}-{kind}", std::process::id()));
        std::fs::write(&path, secret).expect("a temporary file");
        text = text.replace(kind, &format!("\"file:{}\"", path.display()));
        files.0.push(path);
    }
    let mut document: toml::Table = toml::from_str(&text).expect("the sources are TOML");
    let sources = document.remove("sources").expect("there are sources");
    let configs: Vec<SourceConfig> = sources.try_into().expect("the sources are sources");
    Sources::compile(configs).expect("the sources compile")
}

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Headers and body of a request as an input gives them: lines of `Name: value`, an empty line, the body.
pub fn request(input: &[u8]) -> (Vec<(&str, &str)>, &[u8]) {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = match end {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (&[][..], input),
    };
    let head = std::str::from_utf8(head).unwrap_or_default();
    (head.lines().filter_map(|line| line.split_once(": ")).collect(), body)
}
