//! Reads config.toml and the environment over it, and says of each mistake what it is, where it stands, and what may have
//! been meant. What stands there is never repeated: it may be a secret on the wrong line.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Error, Result, anyhow, bail};
use figment::error::{Actual, Kind};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use hookmill_actors::sources::nearest;

use super::{Config, locate};

/// The file, and the environment over it.
pub(super) fn read(path: &Path, text: &str, variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Config> {
    let file = Layer {
        name: FILE,
        values: toml::from_str(text).map_err(|error| malformed(path, text, &error))?,
    };
    let mut layers = [file, environment(variables)?];
    let mut told: Vec<String> = Vec::new();
    loop {
        let merged = layers.iter().fold(Figment::new(), |merged, layer| merged.merge(layer));
        let error = match merged.extract_lossy::<Config>() {
            Ok(config) if told.is_empty() => return Ok(config),
            Ok(_) => break,
            Err(error) => error,
        };
        // What misses only now misses because it was wrong.
        if !told.is_empty() && matches!(error.kind, Kind::MissingField(_)) {
            break;
        }
        told.push(explain(path, text, &error));
        // Without it the next one is found.
        if told.len() >= MOST_TOLD || !layers.iter_mut().any(|layer| layer.remove(&error)) {
            break;
        }
    }
    bail!(
        "{}; the commented config.toml of the distribution explains every key",
        told.join("\n")
    )
}

/// So many mistakes are enough for one message.
const MOST_TOLD: usize = 20;
const FILE: &str = "the file";
const ENVIRONMENT: &str = "the environment";
const PREFIX: &str = "hookmill_";
/// Variables that sources' secrets are in by custom; nothing in their names is a key.
const SECRETS: &str = "secret_";
/// What has an override for each of its keys.
const SECTIONS: &[&str] = &[
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
];

/// One source of values.
struct Layer {
    name: &'static str,
    values: Dict,
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Layer {
    /// Takes out what `error` is about, if it stands here, and if what remains is still told of by the same path.
    fn remove(&mut self, error: &figment::Error) -> bool {
        if error.metadata.as_ref().is_some_and(|m| m.name != self.name) {
            return false;
        }
        let mut path = error.path.clone();
        if let Kind::UnknownField(name, _) = &error.kind
            && path.last() != Some(name)
        {
            path.push(name.clone());
        }
        let Some((last, parents)) = path.split_last() else {
            return false;
        };
        let mut level = &mut self.values;
        let mut parents = parents.iter();
        while let Some(part) = parents.next() {
            level = match level.get_mut(part) {
                Some(Value::Dict(_, inner)) => inner,
                Some(Value::Array(_, items)) => {
                    let index = parents.next().and_then(|part| part.parse::<usize>().ok());
                    match index.and_then(|index| items.get_mut(index)) {
                        Some(Value::Dict(_, inner)) => inner,
                        _ => return false,
                    }
                }
                _ => return false,
            };
        }
        level.remove(last).is_some()
    }
}

/// `HOOKMILL_<SECTION>__<KEY>` for every key but those of sources. A value is text until its key says otherwise; only lists
/// and tables, and text in quotation marks, are read as such.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Layer> {
    let mut values = Dict::new();
    for (variable, value) in variables {
        let Some(key) = variable.to_str().map(str::to_ascii_lowercase) else {
            continue;
        };
        let Some(key) = key.strip_prefix(PREFIX).filter(|key| !key.starts_with(SECRETS)) else {
            continue;
        };
        let variable = variable.to_string_lossy();
        if key == "sources" || key.starts_with("sources__") {
            bail!(
                "{variable}: [[sources]] have no override by the environment: write them in a file of your own (--config, or HOOKMILL_CONFIG); \
                 their secrets can be references such as \"env:HOOKMILL_SECRET_SHOP\""
            );
        }
        if SECTIONS.contains(&key) {
            bail!(
                "{variable} names a whole section, and has no effect: set its keys, as {}__<KEY>",
                variable.to_uppercase()
            );
        }
        if !key.contains("__") {
            continue;
        }
        let Ok(value) = value.into_string() else {
            bail!("{variable} is not UTF-8 text: correct it");
        };
        let path: Vec<&str> = key.split("__").collect();
        insert(&mut values, &path, typed(&path, value));
    }
    Ok(Layer {
        name: ENVIRONMENT,
        values,
    })
}

fn typed(path: &[&str], text: String) -> Value {
    // librdkafka's values are text, whatever it looks like.
    let is_property = matches!(path, ["kafka", "properties" | "producer" | "consumer", _]);
    if !is_property && text.trim_start().starts_with(['[', '{', '"']) {
        // It cannot fail: what is none of these is text.
        let parsed = text.parse::<Value>().unwrap_or_else(|never| match never {});
        if matches!(parsed, Value::Array(..) | Value::Dict(..) | Value::String(..)) {
            return parsed;
        }
    }
    Value::from(text)
}

fn insert(level: &mut Dict, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => {
            level.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let below = level
                .entry((*first).to_owned())
                .or_insert_with(|| Value::from(Dict::new()));
            if !matches!(below, Value::Dict(..)) {
                *below = Value::from(Dict::new());
            }
            if let Value::Dict(_, below) = below {
                insert(below, rest, value);
            }
        }
    }
}

/// What is no TOML. The parser's own message would quote the line, and a password in it.
fn malformed(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let (line, column) = error.span().map_or((1, 1), |span| locate::position(text, span.start));
    anyhow!(
        "{}, line {line}, column {column}: {}; this is no TOML",
        path.display(),
        error.message()
    )
}

/// A mistake in a line: key, what is wrong, what may have been meant, and place.
fn explain(path: &Path, text: &str, error: &figment::Error) -> String {
    let key = error.path.join(".");
    let unknown = match &error.kind {
        Kind::UnknownField(name, _) => Some(name.as_str()),
        _ => None,
    };
    let place = if error.metadata.as_ref().is_some_and(|m| m.name == ENVIRONMENT) {
        format!("{ENVIRONMENT} (HOOKMILL_{})", key.to_uppercase().replace('.', "__"))
    } else {
        let file = relative(path);
        // figment's path leads to the stranger itself.
        let stranger = unknown.is_some_and(|name| error.path.last().is_some_and(|last| last == name));
        let parents = &error.path[..error.path.len() - usize::from(stranger)];
        match locate::locate(text, parents, unknown) {
            Some((line, column)) => format!("{}, line {line}, column {column}", file.display()),
            None => file.display().to_string(),
        }
    };
    let meant = match &error.kind {
        Kind::UnknownField(name, known) | Kind::UnknownVariant(name, known) => nearest(name, known.iter().copied()),
        _ => None,
    };
    let meant = meant
        .map(|word| format!("; did you mean `{word}`?"))
        .unwrap_or_default();
    let subject = if key.is_empty() {
        String::new()
    } else {
        format!("{key}: ")
    };
    format!("{subject}{}{meant} (in {place})", what_is_wrong(&error.kind))
}

fn what_is_wrong(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, expected) => format!("expected {expected}, and found {}", kind_of(found)),
        Kind::InvalidValue(found, expected) => format!("expected {expected}, and this {} is none", kind_of(found)),
        Kind::InvalidLength(_, expected) => format!("expected {expected}, and found another number of values"),
        Kind::UnknownVariant(_, known) => format!("expected one of {}", listed(known)),
        Kind::UnknownField(name, known) => format!("there is no key `{name}`, but {}", listed(known)),
        Kind::Unsupported(_) | Kind::UnsupportedKey(..) | Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => {
            "this value cannot be used".to_owned()
        }
        Kind::Message(_) | Kind::MissingField(_) | Kind::DuplicateField(_) => kind.to_string(),
    }
}

fn listed(words: &[&str]) -> String {
    match words {
        [] => "none".to_owned(),
        words => words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn kind_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "number",
        Actual::Char(_) | Actual::Str(_) | Actual::Bytes(_) => "text",
        Actual::Seq => "list",
        Actual::Map => "table",
        _ => "something else",
    }
}

fn relative(file: &Path) -> &Path {
    std::env::current_dir()
        .ok()
        .and_then(|here| file.strip_prefix(here).ok())
        .unwrap_or(file)
}
