//! What is in the tables, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio_postgres::NoTls;

/// Whether this module, which speaks no TLS, cannot look into a shard.
pub(super) fn only_by_tls(url: &str) -> bool {
    ["sslmode=require", "sslmode=verify"]
        .iter()
        .any(|mode| url.contains(mode))
}

async fn connect(url: &str, shard: usize) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .with_context(|| format!("cannot look into shard {shard}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Events on all shards.
pub(super) async fn count(shards: &[String]) -> Result<i64> {
    let mut sum = 0;
    for (i, url) in shards.iter().enumerate() {
        let sql = "SELECT (SELECT count(*) FROM order_events) + (SELECT count(*) FROM dispute_events)";
        sum += connect(url, i).await?.query_one(sql, &[]).await?.get::<_, i64>(0);
    }
    Ok(sum)
}

/// Waits until there are so many.
pub(super) async fn wait(shards: &[String], wanted: i64, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let there = count(shards).await?;
        if there >= wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "only {there} of {wanted} events are in the tables after {} s: see the logs and /stats",
                patience.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Events of each source on each shard.
pub(super) async fn table(shards: &[String]) -> Result<String> {
    let mut rows: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    for (i, url) in shards.iter().enumerate() {
        let client = connect(url, i).await?;
        for (table, column) in [
            ("order_events", "source"),
            ("dispute_events", "source"),
            ("orders", "source"),
            ("disputes", "source"),
            ("dead_letters", "topic"),
        ] {
            let sql = format!("SELECT {column}, count(*) FROM {table} GROUP BY 1");
            for row in client.query(&sql, &[]).await? {
                let counts = rows
                    .entry((table.to_owned(), row.get(0)))
                    .or_insert_with(|| vec![0; shards.len()]);
                counts[i] += row.get::<_, i64>(1);
            }
        }
    }
    let mut text = format!("{:<16}{:<24}", "table", "source");
    for i in 0..shards.len() {
        write!(text, "{:>10}", format!("shard {i}"))?;
    }
    text.push('\n');
    for ((table, source), counts) in rows {
        write!(text, "{table:<16}{source:<24}")?;
        for count in counts {
            write!(text, "{count:>10}")?;
        }
        text.push('\n');
    }
    Ok(text)
}
