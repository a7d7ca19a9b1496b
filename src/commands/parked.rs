//! `hookmill parked`: events that were verified and not understood, and their way back.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Subcommand;
use hookmill_actors::parking::{ParkedEvent, ParkedStore};
use hookmill_actors::sources::{Accepted, Incoming, Received, Source};
use hookmill_schema::Kind;
use serde_json::{Value, json};

use super::Output;
use super::topics::{PATIENCE, not_accepted};
use crate::config::Config;

#[derive(Subcommand)]
pub enum ParkedAction {
    /// Lists what is parked, oldest first.
    List {
        /// Only of this source.
        #[arg(long)]
        source: Option<String>,
    },
    /// Shows one event: reason, headers and body.
    Show {
        /// Its id, as `list` shows it.
        id: String,
    },
    /// Maps events with the present configuration and publishes what is understood now.
    ///
    /// Their signatures were verified when they came, and are not asked again. What is still not understood stays.
    /// Exit code 3 if something stays.
    Replay {
        /// These; or --all.
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// Every event that is parked.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Only of this source.
        #[arg(long)]
        source: Option<String>,
        /// Say what would happen, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Gives events up for good.
    Discard {
        /// Which.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// `hookmill parked`.
pub async fn run(config: &Config, action: ParkedAction, output: Output) -> Result<ExitCode> {
    let store = ParkedStore::new(
        config.kafka()?,
        config.topics.parked.clone(),
        config.ingest.body_limit,
        PATIENCE,
    )
    .map_err(|error| not_accepted(config, &error))?;
    let store = Arc::new(store);
    let reader = store.clone();
    let parked = tokio::task::spawn_blocking(move || reader.read()).await?;
    let parked = parked.with_context(|| {
        format!(
            "the topic {} of parked events cannot be read from {:?}: check that the broker runs, and that `hookmill topics` knows the topic",
            config.topics.parked.name, config.kafka.brokers
        )
    })?;
    let of = |source: Option<String>| {
        let wanted = move |event: &ParkedEvent| source.as_ref().is_none_or(|name| *name == event.source);
        parked.iter().filter(move |event| wanted(event))
    };
    match action {
        ParkedAction::List { source } => {
            list(of(source), output);
            Ok(ExitCode::SUCCESS)
        }
        ParkedAction::Show { id } => {
            show(find(&parked, &id)?, output);
            Ok(ExitCode::SUCCESS)
        }
        ParkedAction::Replay {
            ids,
            all,
            source,
            dry_run,
        } => {
            let chosen: Vec<&ParkedEvent> = match all {
                true => of(source).collect(),
                false => ids.iter().map(|id| find(&parked, id)).collect::<Result<_>>()?,
            };
            replay(config, &store, &chosen, dry_run, output).await
        }
        ParkedAction::Discard { ids } => {
            // All are looked up first, so that a wrong id changes nothing.
            let chosen: Vec<&ParkedEvent> = ids.iter().map(|id| find(&parked, id)).collect::<Result<_>>()?;
            for event in &chosen {
                store.forget(&event.id).await.context("Kafka did not take it")?;
            }
            match output {
                Output::Json => println!("{}", json!({ "discarded": ids })),
                Output::Text => println!("discarded {}", ids.join(", ")),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn find<'a>(parked: &'a [ParkedEvent], id: &str) -> Result<&'a ParkedEvent> {
    parked
        .iter()
        .find(|event| event.id == id)
        .with_context(|| format!("no event {id:?} is parked: `hookmill parked list` shows those that are"))
}

fn view(event: &ParkedEvent) -> Value {
    json!({
        "id": event.id, "source": event.source, "why": event.why, "reason": event.reason,
        "received_at": event.received_at.to_rfc3339(), "bytes": event.body.len(),
    })
}

fn list<'a>(events: impl Iterator<Item = &'a ParkedEvent>, output: Output) {
    let events: Vec<&ParkedEvent> = events.collect();
    match output {
        Output::Json => println!("{}", events.iter().map(|e| view(e)).collect::<Value>()),
        Output::Text if events.is_empty() => println!("nothing is parked"),
        Output::Text => {
            println!(
                "{:<27}{:<14}{:<10}{:<22}{:>7}  reason",
                "id", "source", "why", "received", "bytes"
            );
            for e in events {
                let at = e.received_at.format("%Y-%m-%d %H:%M:%S");
                println!(
                    "{:<27}{:<14}{:<10}{:<22}{:>7}  {}",
                    e.id,
                    e.source,
                    e.why,
                    at,
                    e.body.len(),
                    e.reason
                );
            }
        }
    }
}

fn show(event: &ParkedEvent, output: Output) {
    let body = String::from_utf8_lossy(&event.body);
    match output {
        Output::Json => {
            let mut value = view(event);
            value["headers"] = event.headers.iter().map(|(k, v)| json!([k, v])).collect();
            value["body"] = body.into();
            println!("{value}");
        }
        Output::Text => {
            println!("{} of {}, {} ({})", event.id, event.source, event.reason, event.why);
            println!("received {}", event.received_at.to_rfc3339());
            event
                .headers
                .iter()
                .for_each(|(name, value)| println!("{name}: {value}"));
            println!("\n{body}");
        }
    }
}

/// Something stays; 2 is that of a wrong command line.
const STAYS: u8 = 3;

async fn replay(
    config: &Config,
    store: &ParkedStore,
    events: &[&ParkedEvent],
    dry_run: bool,
    output: Output,
) -> Result<ExitCode> {
    let mut sources: HashMap<&str, Source> = HashMap::new();
    for source in &config.sources {
        let compiled = source
            .clone()
            .compile_unverified()
            .map_err(|error| config.located(error))?;
        sources.insert(&source.name, compiled);
    }
    let (mut replayed, mut stays) = (Vec::new(), Vec::new());
    for (i, event) in events.iter().enumerate() {
        let understood = match sources.get(event.source.as_str()) {
            Some(source) => understand(source, event),
            None => Err(format!("no source is called {:?} any more", event.source)),
        };
        match understood {
            Err(why) => stays.push((event.id.as_str(), why)),
            Ok(accepted) => {
                if !dry_run {
                    for one in &accepted {
                        let topic = match one.kind {
                            Kind::Order => &config.topics.orders.name,
                            Kind::Dispute => &config.topics.disputes.name,
                        };
                        store
                            .publish(topic, one)
                            .await
                            .context("Kafka did not take the event; it stays parked")?;
                    }
                    // Only now: should this fail, the event is replayed again, and its second copy changes nothing.
                    store
                        .forget(&event.id)
                        .await
                        .context("the event was published, and stays listed")?;
                }
                replayed.push((event.id.as_str(), accepted));
            }
        }
        if output == Output::Text && (i + 1) % 1000 == 0 {
            eprintln!("{} of {} …", i + 1, events.len());
        }
    }
    match output {
        Output::Json => {
            let replayed: Vec<Value> = replayed
                .iter()
                .map(|(id, events)| json!({ "id": id, "events": events.iter().map(|e| &e.id).collect::<Vec<_>>() }))
                .collect();
            let stays: Vec<Value> = stays.iter().map(|(id, why)| json!({ "id": id, "why": why })).collect();
            println!(
                "{}",
                json!({ "dry_run": dry_run, "replayed": replayed, "stays": stays })
            );
        }
        Output::Text => {
            let would = if dry_run { "would be replayed" } else { "replayed" };
            println!("{} {would}, {} stay", replayed.len(), stays.len());
            stays.iter().for_each(|(id, why)| println!("{id} stays: {why}"));
        }
    }
    Ok(if stays.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(STAYS)
    })
}

/// What the event means now. It came when it came: that is when it was received.
fn understand(source: &Source, event: &ParkedEvent) -> std::result::Result<Vec<Accepted>, String> {
    match source.map(&Incoming::post(event, &event.body, event.received_at)) {
        Ok(Received::Events { accepted, parked }) => match parked.first() {
            None => Ok(accepted),
            Some(parked) => Err(parked.reason.clone()),
        },
        Ok(Received::Ignored { event_type }) => Err(match event_type {
            Some(event_type) => format!("no rule takes events of type {event_type:?}"),
            None => "no rule takes it".to_owned(),
        }),
        // It is answered today, and needs to be kept no longer.
        Ok(Received::Handshake(_)) => Ok(Vec::new()),
        Err(refusal) => Err(refusal.to_string()),
    }
}
