//! `hookmill sources`: what a source is, and what it makes of a request, without Kafka or Postgres.

mod coverage;
mod request;
mod sign;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::Subcommand;
use hookmill_actors::sources::{
    self, EffectiveSource, Incoming, Received, Refusal, ShownSecret, Source, SourceConfig, Trace, Traced,
};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Output;
use crate::config::Config;
use request::RequestArgs;

#[derive(Subcommand)]
pub enum SourcesAction {
    /// Lists the configured sources.
    List,
    /// Lists the presets that come with Hookmill, and what to know about each.
    Presets,
    /// Shows a source as it works, after preset and overrides; secrets by reference only.
    Show {
        /// Its name in the configuration.
        name: String,
    },
    /// Verifies and maps a request, and says which rule and place gave each field.
    ///
    /// Exit code 0: accepted, or answered as a handshake. 1: refused. 3: verified, and ignored or parked. 2: the command
    /// line is wrong.
    Test {
        /// The source's name.
        name: String,
        #[command(flatten)]
        request: RequestArgs,
        /// Map it whatever its signature is; the source's secrets are not needed then.
        #[arg(long)]
        no_verify: bool,
    },
    /// Signs a body as the provider would, and prints the headers and a curl line.
    ///
    /// Ids that are signed and not given get stand-ins. Where each event carries its own signature, the body is printed with
    /// them.
    Sign {
        /// The source's name.
        name: String,
        #[command(flatten)]
        request: RequestArgs,
        /// Where the curl line posts to.
        #[arg(long, env = "HOOKMILL_URL", default_value = "http://127.0.0.1:8080")]
        url: String,
    },
    /// Maps every file of a folder, and shows what becomes of each. Exit code 1 if one is refused.
    ///
    /// Headers come from a file beside it (`<file>.headers`, lines of `Name: value`); where a provider says the type of an
    /// event in a header, it is read from the file's name, such as shopify-orders-create.json; ids get stand-ins.
    Coverage {
        /// The source's name, or nothing with --preset.
        #[arg(required_unless_present = "preset")]
        name: Option<String>,
        /// A preset instead of a configured source.
        #[arg(long, conflicts_with = "name")]
        preset: Option<String>,
        /// The folder.
        #[arg(long)]
        dir: PathBuf,
        /// Only files whose names begin so; unless said otherwise those of the preset, or all where none is called like it.
        #[arg(long)]
        prefix: Option<String>,
    },
}

/// Whether an action needs no configuration.
pub fn needs_no_config(action: &SourcesAction) -> bool {
    matches!(
        action,
        SourcesAction::Presets | SourcesAction::Coverage { preset: Some(_), .. }
    )
}

/// `hookmill sources`, without a configuration.
pub fn run_without(action: &SourcesAction, output: Output) -> Result<ExitCode> {
    match action {
        SourcesAction::Presets => presets(output),
        SourcesAction::Coverage {
            preset: Some(preset),
            dir,
            prefix,
            ..
        } => coverage::run(
            &SourceConfig::of_preset(preset).compile_unverified()?,
            dir,
            prefix.as_deref(),
            output,
        ),
        _ => bail!("this needs a configuration: name it with --config"),
    }
}

/// `hookmill sources`.
pub fn run(config: &Config, action: &SourcesAction, output: Output) -> Result<ExitCode> {
    match action {
        SourcesAction::List => list(config, output),
        SourcesAction::Presets | SourcesAction::Coverage { preset: Some(_), .. } => run_without(action, output),
        SourcesAction::Show { name } => show(config, named(config, name)?, output),
        SourcesAction::Test {
            name,
            request,
            no_verify,
        } => test(&compile(config, named(config, name)?, !no_verify)?, request, output),
        SourcesAction::Sign { name, request, url } => {
            sign::run(&compile(config, named(config, name)?, true)?, request, url, output)
        }
        SourcesAction::Coverage { name, dir, prefix, .. } => {
            let source = named(config, name.as_deref().unwrap_or_default())?;
            coverage::run(&compile(config, source, false)?, dir, prefix.as_deref(), output)
        }
    }
}

fn named<'a>(config: &'a Config, name: &str) -> Result<&'a SourceConfig> {
    config.sources.iter().find(|s| s.name == name).with_context(|| {
        let names: Vec<&str> = config.sources.iter().map(|s| s.name.as_str()).collect();
        let meant = sources::nearest(name, names.iter().copied());
        let meant = meant
            .map(|word| format!(" (did you mean {word:?}?)"))
            .unwrap_or_default();
        match names.is_empty() {
            true => format!(
                "no source is called {name:?}: {} has no [[sources]]",
                config.path.display()
            ),
            false => format!("no source is called {name:?}{meant}: there are {}", names.join(", ")),
        }
    })
}

fn list(config: &Config, output: Output) -> Result<ExitCode> {
    let mut rows = Vec::new();
    for source in &config.sources {
        let effective = effective(config, source)?;
        let same = |row: &&Value| row["name"] == *effective.name || row["path"] == *effective.path;
        if let Some(other) = rows.iter().find(same) {
            bail!(
                "source {:?} has the name or the path ({}) of source {}: each needs its own",
                effective.name,
                effective.path,
                other["name"]
            );
        }
        // A secret that is missing here may be there where the source runs.
        let missing: Vec<String> = source
            .secrets
            .iter()
            .filter_map(|s| s.from.resolve().err())
            .map(|error| error.to_string())
            .collect();
        rows.push(json!({
            "name": effective.name, "preset": effective.preset, "path": effective.path,
            "secrets": effective.secrets.iter().map(ShownSecret::reference).collect::<Vec<_>>(), "rules": effective.map.len(), "missing": missing,
        }));
    }
    match output {
        Output::Json => println!("{}", Value::from(rows)),
        Output::Text => {
            println!("{:<16}{:<14}{:<28}{:>5}  secrets", "name", "preset", "path", "rules");
            for row in &rows {
                let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
                let all = |key: &str| -> Vec<String> {
                    let values = row[key].as_array().into_iter().flatten();
                    values.filter_map(Value::as_str).map(str::to_owned).collect()
                };
                let secrets = all("secrets").join(", ");
                println!(
                    "{:<16}{:<14}{:<28}{:>5}  {secrets}",
                    text("name"),
                    text("preset"),
                    text("path"),
                    row["rules"]
                );
                all("missing").iter().for_each(|why| println!("  {why}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn presets(output: Output) -> Result<ExitCode> {
    let mut all = Vec::new();
    for (name, about) in sources::presets() {
        all.push((name, about.map_err(anyhow::Error::msg)?));
    }
    match output {
        Output::Json => {
            let rows: Vec<Value> = all
                .iter()
                .map(|(name, about)| json!({ "name": name, "about": about }))
                .collect();
            println!("{}", Value::from(rows));
        }
        Output::Text => {
            for (name, about) in all {
                println!("{name}");
                about.lines().for_each(|line| println!("    {line}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(config: &Config, source: &SourceConfig, output: Output) -> Result<ExitCode> {
    let effective = effective(config, source)?;
    match output {
        Output::Json => println!("{}", serde_json::to_string(&effective)?),
        Output::Text => print!("{}", toml::to_string(&effective)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// A source that works, as far as that can be told without its secrets.
fn effective(config: &Config, source: &SourceConfig) -> Result<EffectiveSource> {
    compile(config, source, false)?;
    source.check_auth().map_err(|error| config.located(error))?;
    source.effective().map_err(|error| config.located(error))
}

fn compile(config: &Config, source: &SourceConfig, verify: bool) -> Result<Source> {
    let compiled = match verify {
        true => source.clone().compile(),
        false => source.clone().compile_unverified(),
    };
    compiled.map_err(|error| config.located(error))
}

/// Verified, and no event; 2 is that of a wrong command line.
const NOT_TAKEN: u8 = 3;

fn test(source: &Source, args: &RequestArgs, output: Output) -> Result<ExitCode> {
    let (headers, body) = (args.headers(), args.body()?);
    let incoming = Incoming {
        method: args.method(),
        query: args.query(),
        ..Incoming::post(&headers, &body, args.at()?)
    };
    let received = source.receive(&incoming);
    let (outcome, code) = match &received {
        Ok(Received::Events { accepted, .. }) if !accepted.is_empty() => ("accepted", ExitCode::SUCCESS),
        Ok(Received::Handshake(_)) => ("handshake", ExitCode::SUCCESS),
        Ok(Received::Events { .. }) => ("parked", ExitCode::from(NOT_TAKEN)),
        Ok(Received::Ignored { .. }) => ("ignored", ExitCode::from(NOT_TAKEN)),
        Err(_) => ("refused", ExitCode::FAILURE),
    };
    // Also of what is refused: a field that is missing is best seen beside those that are there.
    let traces = match &received {
        Err(Refusal::Unauthorized(_) | Refusal::NotJson(_)) | Ok(Received::Handshake(_)) => Vec::new(),
        // What cannot be read has no trace.
        _ => source.trace(&incoming).unwrap_or_default(),
    };
    // Each attribute in its own text: a number that was read and written again could have lost digits.
    let events: Vec<BTreeMap<&str, &RawValue>> = match &received {
        Ok(Received::Events { accepted, .. }) => accepted
            .iter()
            .map(|event| serde_json::from_slice(&event.value))
            .collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    let why = match &received {
        Err(refusal) => Some(refusal.to_string()),
        Ok(Received::Ignored { event_type }) => Some(match event_type {
            Some(event_type) => format!("no rule takes events of type {event_type:?}"),
            None => "no rule takes it".to_owned(),
        }),
        Ok(Received::Events { parked, .. }) => parked.first().map(|p| p.reason.clone()),
        Ok(Received::Handshake(answer)) => Some(format!("answered {} {:?}", answer.status, answer.body)),
    };
    match output {
        Output::Json => {
            #[derive(Serialize)]
            struct Told<'a> {
                outcome: &'a str,
                why: Option<String>,
                traces: Vec<Option<Trace>>,
                events: Vec<BTreeMap<&'a str, &'a RawValue>>,
            }
            let told = Told {
                outcome,
                why,
                traces,
                events,
            };
            println!("{}", serde_json::to_string(&told)?);
        }
        Output::Text => {
            println!("{outcome}{}", why.map(|why| format!(": {why}")).unwrap_or_default());
            for trace in &traces {
                print_trace(trace.as_ref());
            }
            for event in &events {
                println!("{}", serde_json::to_string_pretty(event)?);
            }
        }
    }
    Ok(code)
}

fn print_trace(trace: Option<&Trace>) {
    let Some(Trace { rule, fields }) = trace else {
        println!("no rule takes it");
        return;
    };
    println!("taken by {rule}");
    for Traced { field, place, value } in fields {
        let value = value.as_deref().unwrap_or("(nothing)");
        println!("  {field:<12} {value:<44} {}", place.as_deref().unwrap_or("-"));
    }
}

/// A time as a person writes it: RFC 3339, or seconds since 1970.
fn time(text: &str) -> Result<DateTime<Utc>> {
    if let Ok(seconds) = text.parse::<i64>() {
        return DateTime::from_timestamp(seconds, 0).context("there is no such time");
    }
    let parsed = DateTime::parse_from_rfc3339(text);
    Ok(parsed
        .with_context(|| format!("{text:?} is no time: write it like 2026-11-24T12:00:00Z, or as seconds since 1970"))?
        .to_utc())
}
