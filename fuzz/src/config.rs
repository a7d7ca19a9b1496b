//! The configuration. Input: the text of a config.toml.
//!
//! Whatever it is, reading and compiling it does not panic, and an error says where the mistake is: a line, or a key.

use std::path::PathBuf;
use std::sync::LazyLock;

use hookmill::config::Config;

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("hookmill-fuzz-{}.toml", std::process::id())));

const SECTIONS: [&str; 13] = [
    "services",
    "ingest",
    "admin",
    "kafka",
    "topics",
    "postgres",
    "events",
    "writers",
    "supervision",
    "shutdown",
    "log",
    "sources",
    "line ",
];

pub fn run(input: &[u8]) {
    // A secret or a certificate may be any file; a device would never end.
    if input.windows(5).any(|part| part == b"/dev/") {
        return;
    }
    std::fs::write(&*FILE, input).expect("a temporary file");
    let told = Config::load(&FILE).and_then(|config| {
        config.shard_urls()?;
        config.admin_token()?;
        config.event_window()?;
        config.sources()
    });
    if let Err(error) = told {
        let text = format!("{error:#}");
        // Some text that is no TOML has no line: the parser's own word must do.
        let path = FILE.display().to_string();
        let told = text.replace(&path, "");
        assert!(
            SECTIONS.iter().any(|section| told.contains(section)),
            "this error names no key and no line: {text}"
        );
    }
}
