//! Signing a body as the provider would.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hookmill_actors::sources::{Incoming, Source, SourceConfig};
use serde_json::{Value, json};

use super::request::RequestArgs;
use crate::commands::Output;

/// Prints the headers that the provider would send with a body, and a curl line that sends it.
pub(super) fn run(source: &SourceConfig, args: &RequestArgs, url: &str, output: Output) -> Result<ExitCode> {
    let compiled = super::compile(source, true)?;
    let (headers, body) = (args.headers(), args.body()?);
    let incoming = Incoming::post(&headers, &body, args.at()?);
    let Some(signed) = compiled.sign(&incoming) else {
        bail!(
            "{} cannot be signed for here: only the provider has the key",
            source.name
        );
    };
    let given = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let mut all: Vec<(String, String)> = given.collect();
    if !all.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        all.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    all.extend(signed);
    let signatures = compiled.item_signatures(&incoming)?;
    let signed_body = match signatures.is_empty() {
        true => None,
        false => Some(with_signatures(&compiled, &body, &signatures)?),
    };
    match output {
        Output::Json => println!(
            "{}",
            json!({ "headers": all, "path": compiled.path(), "body": signed_body })
        ),
        Output::Text => {
            for (name, value) in &all {
                println!("{name}: {value}");
            }
            let data = match &signed_body {
                Some(body) => quoted(body),
                None => quoted(&format!("@{}", args.body_path())),
            };
            let flags: Vec<String> = all
                .iter()
                .map(|(name, value)| format!("-H {}", quoted(&format!("{name}: {value}"))))
                .collect();
            let target = quoted(&format!("{}{}", url.trim_end_matches('/'), compiled.path()));
            println!("\ncurl -i {} --data-binary {data} {target}", flags.join(" "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The body with a signature in each of its events.
fn with_signatures(source: &Source, body: &[u8], signatures: &[(String, String)]) -> Result<String> {
    let mut whole: Value = serde_json::from_slice(body)?;
    let events: Vec<&mut Value> = match source.each() {
        None => vec![&mut whole],
        Some(each) => {
            let array = whole.pointer_mut(each).and_then(Value::as_array_mut);
            array.into_iter().flatten().collect()
        }
    };
    for (event, (pointer, signature)) in events.into_iter().zip(signatures) {
        set(event, pointer, signature)
            .with_context(|| format!("an event has no place for a signature at {pointer}"))?;
    }
    Ok(whole.to_string())
}

/// Sets a text; objects on the way are made where they are missing.
fn set(event: &mut Value, pointer: &str, text: &str) -> Option<()> {
    let mut place = event;
    for token in pointer.split('/').skip(1) {
        let key = token.replace("~1", "/").replace("~0", "~");
        place = place.as_object_mut()?.entry(key).or_insert_with(|| json!({}));
    }
    *place = text.into();
    Some(())
}

/// A word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
