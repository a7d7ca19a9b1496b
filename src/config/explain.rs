//! A configuration that cannot be used, told so that it can be mended; and so that no secret is told with it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use hookmill_actors::sources::nearest;

use super::locate;

/// A file's text; TOML is UTF-8.
pub fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow::anyhow!(
            "{}, line {line}: a byte there is not UTF-8; save the file as UTF-8",
            path.display()
        )
    })
}

/// That the file is TOML. The parser would quote the line, and a password in it.
pub fn well_formed(path: &Path, text: &str) -> Result<()> {
    let Err(error) = toml::de::DeTable::parse(text) else {
        return Ok(());
    };
    let (line, column) = error.span().map_or((1, 1), |span| locate::position(text, span.start));
    bail!(
        "{}, line {line}, column {column}: {}; this is no TOML",
        path.display(),
        error.message()
    );
}

/// What stands there is repeated only where it is no secret by its place.
fn what_is_wrong(error: &figment::Error) -> String {
    use figment::error::Kind;
    let private = error.path.iter().any(|part| PRIVATE.contains(&part.as_str()));
    match &error.kind {
        Kind::InvalidType(_, expected) if private => format!("expected {expected}, and found something else"),
        Kind::InvalidValue(_, expected) if private => format!("expected {expected}, and found another value"),
        kind => kind.to_string(),
    }
}

/// Keys below which secrets stand, or are put by mistake.
const PRIVATE: &[&str] = &["secrets", "token", "shard_urls", "properties", "producer", "consumer"];

/// All that is wrong in one message: key, place, what is wrong, and what may have been meant.
pub fn explain(path: &Path, errors: figment::Error) -> String {
    let file_text = std::fs::read_to_string(path).unwrap_or_default();
    let mut text = String::new();
    for error in errors {
        let key = error.path.join(".");
        let metadata = error.metadata.as_ref();
        let unknown = match &error.kind {
            figment::error::Kind::UnknownField(name, _) => Some(name.as_str()),
            _ => None,
        };
        let place = match metadata {
            Some(m) if m.name.contains("environment") => {
                format!("the environment (HOOKMILL_{})", key.to_uppercase().replace('.', "__"))
            }
            _ => {
                let file = match metadata.and_then(|m| m.source.as_ref()) {
                    Some(figment::Source::File(file)) => relative(file),
                    _ => path.to_owned(),
                };
                // figment's path leads to the stranger itself.
                let stranger = unknown.is_some_and(|name| error.path.last().is_some_and(|last| last == name));
                let parents = &error.path[..error.path.len() - usize::from(stranger)];
                match locate::locate(&file_text, parents, unknown) {
                    Some((line, column)) => format!("{}, line {line}, column {column}", file.display()),
                    None => file.display().to_string(),
                }
            }
        };
        let meant = match &error.kind {
            figment::error::Kind::UnknownField(name, known) | figment::error::Kind::UnknownVariant(name, known) => {
                let meant = nearest(name, known.iter().copied());
                meant
                    .map(|word| format!("; did you mean `{word}`?"))
                    .unwrap_or_default()
            }
            _ => String::new(),
        };
        let separator = if text.is_empty() { "" } else { "\n" };
        let subject = if key.is_empty() {
            String::new()
        } else {
            format!("{key}: ")
        };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{separator}{subject}{}{meant} (in {place}); the commented config.toml of the distribution explains every key",
            what_is_wrong(&error)
        );
    }
    text
}

fn relative(file: &Path) -> PathBuf {
    std::env::current_dir()
        .ok()
        .and_then(|here| file.strip_prefix(here).ok().map(Path::to_path_buf))
        .unwrap_or_else(|| file.to_path_buf())
}
