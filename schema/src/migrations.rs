//! Bringing a shard's tables up to date.

use std::time::{Duration, Instant};

use diesel::dsl::sql;
use diesel::migration::MigrationSource;
use diesel::pg::Pg;
use diesel::sql_types::Bool;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::error::{ErrorClass, ShardError};
use crate::shard::{self, ConnectSettings};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

/// Applies what is pending on the shard at `url`, under a lock that lets one process do it and the others wait. Returns
/// the names of what this call applied.
pub async fn run(url: &str, settings: &ConnectSettings) -> Result<Vec<String>, ShardError> {
    // Most starts find nothing to do, and wait for nobody.
    if pending(url, settings).await?.is_empty() {
        return Ok(Vec::new());
    }
    let mut connection = shard::connect_upkeep(url, settings).await?;
    // A migration of a large table may take its time, and so may the process that is doing it now. One whose host is gone
    // must not keep the others waiting until the server's own patience of hours is over.
    connection
        .batch_execute(
            "SET statement_timeout = 0; SET lock_timeout = '10min'; \
             SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3",
        )
        .await?;
    lock(&mut connection).await?;
    harness(connection, |harness| {
        let pending = harness.pending_migrations(MIGRATIONS)?;
        let began = Instant::now();
        for migration in &pending {
            while let Err(error) = harness.run_migration(migration) {
                if !is_held_up(&*error) || began.elapsed() > MOST {
                    return Err(error);
                }
                tracing::warn!(
                    migration = %migration.name(), %error,
                    "somebody uses the tables that are to be altered (pg_stat_activity, xact_start); trying again, for at most 10 minutes"
                );
                std::thread::sleep(AGAIN);
            }
        }
        Ok(pending.iter().map(|migration| migration.name().to_string()).collect())
    })
    .await
}

/// For so long a migration is tried that waits for a table.
const MOST: Duration = Duration::from_secs(600);

/// After so long it is tried again; writers have their turn meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether a lock could not be had within a migration's own `lock_timeout`, or not at all, as each of two waited for the other.
/// diesel hides the SQLSTATE, so it is the server's message, in English; in another language the migration fails, and is run
/// again by hand.
fn is_held_up(error: &(dyn std::error::Error + 'static)) -> bool {
    let message = error.to_string();
    message.contains("lock timeout") || message.contains("deadlock detected")
}

async fn lock(connection: &mut AsyncPgConnection) -> diesel::QueryResult<()> {
    let mut waiting =
        std::pin::pin!(connection.batch_execute("SELECT pg_advisory_lock(hashtext('hookmill:migrations'))"));
    if let Ok(locked) = tokio::time::timeout(SOON, &mut waiting).await {
        return locked;
    }
    tracing::warn!(
        "another process migrates this shard, or holds the lock for it (pg_locks, locktype advisory); waiting for at most 10 minutes"
    );
    waiting.await
}

/// The names of what [`run`] would apply. Changes nothing.
pub async fn pending(url: &str, settings: &ConnectSettings) -> Result<Vec<String>, ShardError> {
    let mut connection = shard::connect_upkeep(url, settings).await?;
    // The harness makes its table where there is none, and this is only a question.
    let begun = sql::<Bool>("to_regclass('__diesel_schema_migrations') IS NOT NULL");
    let begun: bool = diesel::select(begun).get_result(&mut connection).await?;
    harness(connection, move |harness| {
        if !begun {
            let all = MigrationSource::<Pg>::migrations(&MIGRATIONS)?;
            return Ok(all.iter().map(|migration| migration.name().to_string()).collect());
        }
        let pending = harness.pending_migrations(MIGRATIONS)?;
        Ok(pending.iter().map(|migration| migration.name().to_string()).collect())
    })
    .await
}

/// After so long a wait for the lock is told of.
const SOON: Duration = Duration::from_secs(3);

type Harness = AsyncConnectionWrapper<AsyncPgConnection>;
type Names = diesel::migration::Result<Vec<String>>;

/// diesel's migrations are synchronous, so they run on a thread that may block. The lock goes with the connection.
async fn harness(
    connection: AsyncPgConnection,
    work: impl FnOnce(&mut Harness) -> Names + Send + 'static,
) -> Result<Vec<String>, ShardError> {
    let done = tokio::task::spawn_blocking(move || {
        let mut harness = Harness::from(connection);
        work(&mut harness).map_err(|error| {
            // diesel does not tell a lost server from one that says no.
            let alive = diesel::RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut harness).is_ok();
            ShardError {
                class: if alive {
                    ErrorClass::Schema
                } else {
                    ErrorClass::Connection
                },
                sqlstate: None,
                message: error.to_string(),
            }
        })
    })
    .await;
    match done {
        Ok(answer) => answer,
        Err(error) => Err(ShardError::connection(format!("the migration's thread ended: {error}"))),
    }
}
