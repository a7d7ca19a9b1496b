//! Faults inside a shard that runs.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use dev::process::Signal;
use dev::stack::Shard;
use tokio_postgres::Client;

use crate::plan::Fault;
use crate::world::World;

/// Kills a backend that is connected to the product, if there is one: the server ends all sessions and recovers.
pub(super) async fn crash_backend(shard: &Shard) -> Result<bool> {
    let client = shard.connect("postgres").await?;
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'hookmill' ORDER BY backend_start LIMIT 1";
    let Some(row) = client.query_opt(sql, &[]).await? else {
        return Ok(false);
    };
    let pid = row.try_get::<_, i32>(0)?.unsigned_abs();
    if !shard.process().descendants().contains(&pid) {
        bail!("the server's process {pid} is none of ours");
    }
    shard.process().signal_descendant(pid, Signal::SIGKILL);
    Ok(true)
}

/// Takes every connection slot there is, then ends the sessions of all others, who find none when they come back.
pub(super) async fn take_all_slots(shard: &Shard) -> Result<Vec<Client>> {
    let mut held = vec![shard.connect("postgres").await?];
    while let Ok(client) = shard.connect("postgres").await {
        held.push(client);
        if held.len() > 1000 {
            bail!("a shard takes more than 1000 connections");
        }
    }
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hookmill'";
    for _ in 0..5 {
        held[0].batch_execute(others).await?;
        // Whoever was quick gets a slot: take it too.
        while let Ok(client) = shard.connect("postgres").await {
            held.push(client);
        }
    }
    Ok(held)
}

/// Locks a table against everybody.
pub(super) async fn lock_table(shard: &Shard, database: &str, which: i64) -> Result<Vec<Client>> {
    let tables = ["orders", "order_events", "consumer_offsets", "dispute_events"];
    let table = tables[usize::try_from(which)? % tables.len()];
    let sql = format!("BEGIN; SET LOCAL lock_timeout = '5s'; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    begun(shard, database, &sql).await
}

/// Locks every offset row, so that nothing can be claimed or written.
pub(super) async fn lock_rows(shard: &Shard, database: &str) -> Result<Vec<Client>> {
    let sql = "BEGIN; SET LOCAL lock_timeout = '5s'; SELECT count(*) FROM (SELECT FROM consumer_offsets FOR UPDATE) AS locked";
    begun(shard, database, sql).await
}

/// A transaction with an old snapshot that holds a row of each state table.
pub(super) async fn long_transaction(shard: &Shard, database: &str) -> Result<Vec<Client>> {
    let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = '5s';
        SELECT count(*) FROM order_events;
        SELECT count(*) FROM (SELECT FROM orders ORDER BY updated_at DESC LIMIT 20 FOR UPDATE SKIP LOCKED) AS locked;
        SELECT count(*) FROM (SELECT FROM disputes ORDER BY updated_at DESC LIMIT 20 FOR UPDATE SKIP LOCKED) AS locked";
    begun(shard, database, sql).await
}

/// A lock that is not to be had in time, on a busy shard, is no failure: then there is no session, and no fault.
async fn begun(shard: &Shard, database: &str, sql: &str) -> Result<Vec<Client>> {
    let client = shard.connect(database).await?;
    Ok(match client.batch_execute(sql).await {
        Ok(()) => vec![client],
        Err(error) if error.as_db_error().is_some() => Vec::new(),
        Err(error) => return Err(error).context("a lock cannot be taken"),
    })
}

/// `hookmill migrate` while a table is being altered in a transaction that takes its time.
pub(super) async fn migrate(fault: &Fault, world: &World) -> Result<()> {
    let shard = world.stack.shard(fault.shard);
    let database = &world.deployment.name;
    let alter = async {
        let client = shard.connect(database).await?;
        let seconds = fault.hold.as_secs_f64();
        let sql = format!(
            "BEGIN; ALTER TABLE orders ADD COLUMN being_migrated text; SELECT pg_sleep({seconds}); COMMIT;
             BEGIN; ALTER TABLE orders DROP COLUMN being_migrated; COMMIT;
             CREATE INDEX IF NOT EXISTS being_migrated ON order_events (user_id);
             DROP INDEX IF EXISTS being_migrated"
        );
        for part in sql.split_inclusive("COMMIT;") {
            for _ in 0..20 {
                match client.batch_execute(part).await {
                    Ok(()) => break,
                    // A deadlock with a statement of the product, which is told so too and comes again.
                    Err(error) if error.as_db_error().is_some() => client.batch_execute("ROLLBACK").await?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        anyhow::Ok(())
    };
    let name = format!("migrate-{}", world.number());
    let command = world.deployment.run(&world.stack, &name, &["migrate"]);
    let (altered, migrated) = tokio::join!(alter, command);
    altered?;
    if let Err(error) = migrated {
        world.complain(format!("`hookmill migrate` beside running instances: {error:#}"));
    }
    Ok(())
}

/// Detaches this month's partition of the order events, if it is there and can be locked: what is written next finds none.
pub(super) async fn detach_month(shard: &Shard, database: &str) -> Result<bool> {
    let client = shard.connect(database).await?;
    let month = chrono::Utc::now().format("order_events_y%Ym%m");
    let sql = format!("SET lock_timeout = '5s'; ALTER TABLE order_events DETACH PARTITION {month}");
    tokio::time::sleep(Duration::from_millis(10)).await;
    match client.batch_execute(&sql).await {
        Ok(()) => Ok(true),
        Err(error) if error.as_db_error().is_some() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
