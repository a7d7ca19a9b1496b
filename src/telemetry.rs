//! Logs: one line an event, as text for people or JSON for machines, on standard error.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// `[log]` of config.toml.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a level, or directives such as `info,rdkafka=debug`.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            // actix-http calls it an error when a stranger sends no HTTP; actix-server tells of every worker, and
            // tokio-postgres of every table that is there already.
            filter: "info,actix_server=warn,actix_http=off,tokio_postgres=warn".to_owned(),
        }
    }
}

/// What is to be logged. Fails on a filter that is none.
pub fn filter(settings: &LogSettings) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&settings.filter).map_err(|error| {
        anyhow::anyhow!(
            "log.filter = {:?} is no filter ({error}): use a level such as \"info\"",
            settings.filter
        )
    })
}

/// Starts logging; also panics are logged, with their place, where they happen. Fails on a filter that is none.
pub fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = filter(settings)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let formatted = payload.downcast_ref::<String>().map(String::as_str);
        let message = formatted.or_else(|| payload.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("a panic without a message");
        tracing::error!(place, thread = std::thread::current().name(), message, "panic");
    }));
    Ok(())
}
