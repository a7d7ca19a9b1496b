//! What becomes of each file of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use chrono::Utc;
use hookmill_actors::sources::{Incoming, Received, Source};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::request::Headers;
use crate::commands::Output;

/// Maps every file of `dir` whose name begins with `prefix`; or else those that are called like the preset, or all.
pub(super) fn run(source: &Source, dir: &Path, prefix: Option<&str>, output: Output) -> Result<ExitCode> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "json") && path.is_file())
        .collect();
    files.sort();
    let called = |begins: &str| files.iter().any(|path| name_of(path).starts_with(begins));
    let prefix = match (prefix, source.preset()) {
        (Some(prefix), _) => prefix,
        (None, Some(preset)) if called(preset) => preset,
        (None, _) => "",
    };
    files.retain(|path| name_of(path).starts_with(prefix));
    if files.is_empty() {
        bail!("no file in {} is called {prefix}*.json", dir.display());
    }
    let preset = source.preset().unwrap_or_default();
    let mut rows = Vec::with_capacity(files.len());
    let mut refused = 0;
    for path in files {
        let body = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let given = headers(&path, preset)?;
        let headers = Headers(given.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect());
        let file = name_of(&path);
        let row = |outcome: &str, why: Option<String>| json!({ "file": file, "outcome": outcome, "why": why });
        match source.map(&Incoming::post(&headers, &body, Utc::now())) {
            Ok(Received::Events { accepted, parked }) => {
                for event in accepted {
                    // The body is stepped over: not every reader takes all that is JSON.
                    let event: BTreeMap<&str, &RawValue> = serde_json::from_slice(&event.value)?;
                    let said = |name: &str| {
                        event
                            .get(name)
                            .map_or(Ok(Value::Null), |raw| serde_json::from_str(raw.get()))
                    };
                    rows.push(json!({
                        "file": file, "outcome": "accepted", "kind": said("kind")?, "event": said("id")?,
                        "type": said("type")?, "key": said("userid")?, "status": said("status")?, "time": said("time")?,
                        "order": said("orderid")?, "dispute": said("disputeid")?, "amount": said("amountminor")?,
                        "currency": said("currency")?,
                    }));
                }
                rows.extend(parked.into_iter().map(|p| row("parked", Some(p.reason))));
            }
            Ok(Received::Ignored { event_type }) => rows.push(row(
                "ignored",
                Some(match event_type {
                    Some(event_type) => format!("no rule takes events of type {event_type:?}"),
                    None => "no rule takes it, and it says no type".to_owned(),
                }),
            )),
            Ok(Received::Handshake(answer)) => rows.push(row("handshake", Some(answer.body))),
            Err(refusal) => {
                refused += 1;
                rows.push(row("refused", Some(refusal.to_string())));
            }
        }
    }
    match output {
        Output::Json => println!("{}", Value::from(rows)),
        Output::Text => print(&rows),
    }
    Ok(if refused > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print(rows: &[Value]) {
    const COLUMNS: [&str; 5] = ["file", "outcome", "kind", "status", "key"];
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let widths = COLUMNS.map(|column| {
        let cells = rows.iter().map(|row| text(row, column).chars().count());
        cells.chain([column.len()]).max().unwrap_or_default()
    });
    let line = |cells: [String; 5], last: &str| {
        for (cell, width) in cells.iter().zip(widths) {
            print!("{cell:<width$}  ");
        }
        println!("{last}");
    };
    line(COLUMNS.map(str::to_owned), "event");
    for row in rows {
        let last = match row["why"].as_str() {
            Some(why) => why.to_owned(),
            None => text(row, "event"),
        };
        line(COLUMNS.map(|column| text(row, column)), &last);
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The headers of a file: those beside it, else what its name says and stand-ins for the ids that providers send.
fn headers(path: &Path, preset: &str) -> Result<Vec<(String, String)>> {
    let beside = path.with_extension("json.headers");
    if beside.exists() {
        let text = std::fs::read_to_string(&beside).with_context(|| format!("cannot read {}", beside.display()))?;
        let pair = |line: &str| {
            line.split_once(':')
                .map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned()))
        };
        return Ok(text.lines().filter_map(pair).collect());
    }
    let name = name_of(path);
    let stem = name.trim_end_matches(".json");
    let kind = stem
        .strip_prefix(preset)
        .unwrap_or(stem)
        .trim_start_matches(['-', '_', '.']);
    // Topics are resource and action; a file's name cannot have the slash.
    let parted = kind.split_once('-').or_else(|| kind.rsplit_once(['_', '.']));
    let joined = |by: &str| parted.map_or(kind.to_owned(), |(resource, action)| format!("{resource}{by}{action}"));
    let slashed = joined("/");
    let stand_in = format!("sample-{kind}");
    let time = "2026-01-02T03:04:05.678Z";
    Ok([
        ("x-shopify-topic", slashed.as_str()),
        ("x-shopify-event-id", &stand_in),
        ("x-shopify-webhook-id", &stand_in),
        ("x-shopify-shop-domain", "sample.myshopify.com"),
        ("x-shopify-triggered-at", time),
        ("x-razorpay-event-id", &stand_in),
        ("x-wc-webhook-topic", &joined(".")),
        ("x-wc-webhook-source", "https://sample.example/"),
        ("x-wc-webhook-delivery-id", &stand_in),
        ("x-github-event", kind),
        ("x-github-delivery", &stand_in),
        ("webhook-id", &stand_in),
        ("svix-id", &stand_in),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec())
}
