//! `hookmill migrate`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use hookmill_schema::migrations;
use serde_json::json;

use super::Output;
use crate::config::Config;

/// Migrates every shard; returns for each the names of what was applied.
pub async fn migrate(config: &Config) -> Result<Vec<Vec<String>>> {
    let urls = config.shard_urls()?;
    let settings = config.connect();
    try_join_all(urls.iter().enumerate().map(|(shard, url)| {
        let settings = settings.clone();
        async move {
            migrations::run(url, &settings)
                .await
                .with_context(|| format!("shard {shard} (postgres.shard_urls) cannot be migrated: check that it runs, its URL, and that the role may create tables"))
        }
    }))
    .await
}

/// `hookmill migrate`.
pub async fn run(config: &Config, output: Output) -> Result<ExitCode> {
    let applied = migrate(config).await?;
    match output {
        Output::Json => println!("{}", json!({ "applied": applied })),
        Output::Text => {
            for (shard, names) in applied.iter().enumerate() {
                match names.as_slice() {
                    [] => println!("shard {shard}: up to date"),
                    names => println!("shard {shard}: applied {}", names.join(", ")),
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
