//! A shard: which one a partition belongs to, how to connect to it, and whether it is the one it should be.

use std::collections::HashMap;
use std::time::Duration;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::FutureExt;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

use crate::error::ShardError;
use crate::tables::shard_identity;
use crate::tls;

/// The shard of a partition, of `shards` in all.
pub fn shard_of(partition: i32, shards: usize) -> usize {
    usize::try_from(partition).unwrap_or(0) % shards.max(1)
}

/// The lane of a partition on its shard, always the same one.
pub fn lane_of(partition: i32, shards: usize, lanes: usize) -> usize {
    usize::try_from(partition).unwrap_or(0) / shards.max(1) % lanes.max(1)
}

/// Time-outs of a connection.
#[derive(Clone, Debug)]
pub struct ConnectSettings {
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// After this the server gives up a statement.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Duration,
}

impl Default for ConnectSettings {
    fn default() -> Self {
        Self {
            application_name: "hookmill".to_owned(),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
        }
    }
}

/// After so long without an answer from the other side's kernel a connection counts as broken.
const DEAD_PEER: Duration = Duration::from_secs(10);

/// A connection to the shard at `url`, with its own task, and time-outs kept by the server.
pub(crate) async fn client(url: &str, settings: &ConnectSettings) -> Result<Client, ShardError> {
    let (mut config, connector) = tls::configure(url)?;
    let ms = |d: Duration| d.as_millis();
    config
        .application_name(&settings.application_name)
        .connect_timeout(settings.connect_timeout)
        .keepalives(true)
        .keepalives_idle(DEAD_PEER / 2)
        .keepalives_interval(Duration::from_secs(1))
        .tcp_user_timeout(DEAD_PEER)
        .options(format!(
            "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={}",
            ms(settings.statement_timeout),
            ms(settings.lock_timeout),
            ms(settings.statement_timeout),
        ));
    // connect_timeout is that of the TCP connection; a peer that then says nothing must not hold us either.
    let connecting = tokio::time::timeout(settings.connect_timeout * 2, config.connect(connector)).await;
    let (client, connection) = connecting
        .map_err(|_| ShardError::connection("no answer to the connection's start"))?
        .map_err(advised)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a shard's connection ended");
        }
    });
    Ok(client)
}

fn advised(error: tokio_postgres::Error) -> ShardError {
    let advice = tls::advice(&error);
    let mut error = ShardError::from(error);
    if let Some(advice) = advice {
        error.message = format!("{}; {advice}", error.message);
    }
    error
}

/// A writer's connection. It is not diesel's, because that hides the SQLSTATE, which decides between a row's fault and
/// the shard's, and has no COPY; its few statements are prepared once.
pub struct Connection {
    client: Client,
    statements: HashMap<&'static str, Statement>,
    given_up: bool,
}

/// Connects a writer to the shard at `url`.
pub async fn connect(url: &str, settings: &ConnectSettings) -> Result<Connection, ShardError> {
    Ok(Connection {
        client: client(url, settings).await?,
        statements: HashMap::new(),
        given_up: false,
    })
}

impl Connection {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Nothing may be asked over it any more: whoever owns it has to make another one.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
    }

    /// Whether it was given up.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// The statement `sql`, prepared on first use; `types` are those of its parameters.
    pub(crate) async fn prepared(
        &mut self,
        sql: &'static str,
        types: impl FnOnce() -> Vec<Type>,
    ) -> Result<Statement, ShardError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare_typed(sql, &types()).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    /// Runs a statement that answers with partitions.
    pub(crate) async fn query_partitions(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<i32>, ShardError> {
        let rows = self.client.query(statement, params).await?;
        rows.iter()
            .map(|row| row.try_get(0).map_err(ShardError::from))
            .collect()
    }
}

/// Connects for upkeep: reads, migrations, event partitions.
pub async fn connect_upkeep(url: &str, settings: &ConnectSettings) -> Result<AsyncPgConnection, ShardError> {
    let client = client(url, settings).await?;
    AsyncPgConnection::try_from(client)
        .await
        .map_err(|error| ShardError::connection(error.to_string()))
}

/// A small pool for reads and upkeep; writers own their connections outside of it.
pub type Pool = bb8::Pool<AsyncDieselConnectionManager<AsyncPgConnection>>;

/// The pool of the shard at `url`; it connects when somebody asks.
pub fn pool(url: &str, settings: &ConnectSettings) -> Pool {
    let mut manager = ManagerConfig::default();
    let setup = settings.clone();
    manager.custom_setup = Box::new(move |url| {
        let (url, settings) = (url.to_owned(), setup.clone());
        async move {
            let client = client(&url, &settings)
                .await
                .map_err(|error| diesel::ConnectionError::BadConnection(error.to_string()))?;
            AsyncPgConnection::try_from(client).await
        }
        .boxed()
    });
    bb8::Pool::builder()
        .max_size(2)
        .min_idle(Some(0))
        .connection_timeout(settings.connect_timeout)
        .idle_timeout(Some(Duration::from_secs(60)))
        .build_unchecked(AsyncDieselConnectionManager::new_with_config(url, manager))
}

/// What a shard is, once and for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its place among the shards.
    pub index: usize,
    /// How many there are.
    pub shards: usize,
    /// The Kafka cluster whose offsets it holds.
    pub cluster_id: String,
    /// The topics of events with their partition counts.
    pub topics: Vec<(String, i32)>,
}

/// Why a shard cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It was set up as something else.
    #[error("{0}")]
    Mismatch(String),
    /// It could not be asked.
    #[error("the shard's identity cannot be read: {0}")]
    Shard(#[from] ShardError),
}

impl From<diesel::result::Error> for IdentityError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Shard(error.into())
    }
}

#[derive(Queryable, Insertable)]
#[diesel(table_name = shard_identity)]
struct IdentityRow {
    shard_index: i32,
    shards: i32,
    cluster_id: String,
    topics: serde_json::Value,
}

/// Compares the shard's record of itself with what the configuration takes it for; one that has no record, or no tables
/// yet, fits.
pub async fn check_identity(connection: &mut AsyncPgConnection, expected: &Identity) -> Result<(), IdentityError> {
    let there = sql::<Bool>("to_regclass('shard_identity') IS NOT NULL");
    if !diesel::select(there).get_result::<bool>(connection).await? {
        return Ok(());
    }
    read_identity(connection)
        .await?
        .map_or(Ok(()), |row| compare(&row, expected).map(|_| ()))
}

/// The same, and leaves the record where there is none yet, or topics that it does not know.
pub async fn check_or_record_identity(
    connection: &mut AsyncPgConnection,
    expected: &Identity,
) -> Result<(), IdentityError> {
    diesel::insert_into(shard_identity::table)
        .values(row_of(expected))
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    let Some(row) = read_identity(connection).await? else {
        return Ok(());
    };
    let known = compare(&row, expected)?;
    if known != row.topics {
        diesel::update(shard_identity::table)
            .set(shard_identity::topics.eq(known))
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn read_identity(connection: &mut AsyncPgConnection) -> Result<Option<IdentityRow>, diesel::result::Error> {
    use shard_identity::{cluster_id, shard_index, shards, topics};
    shard_identity::table
        .select((shard_index, shards, cluster_id, topics))
        .first(connection)
        .await
        .optional()
}

fn row_of(identity: &Identity) -> IdentityRow {
    let topics: serde_json::Map<String, serde_json::Value> = identity
        .topics
        .iter()
        .map(|(name, n)| (name.clone(), (*n).into()))
        .collect();
    IdentityRow {
        shard_index: i32::try_from(identity.index).unwrap_or(i32::MAX),
        shards: i32::try_from(identity.shards).unwrap_or(i32::MAX),
        cluster_id: identity.cluster_id.clone(),
        topics: topics.into(),
    }
}

/// The topics that are known once the expected ones have been added.
fn compare(row: &IdentityRow, expected: &Identity) -> Result<serde_json::Value, IdentityError> {
    let wanted = row_of(expected);
    let mut wrong = Vec::new();
    if row.shards != wanted.shards {
        wrong.push(format!(
            "it is one of {} shards, the configuration has {}",
            row.shards, wanted.shards
        ));
    }
    if row.shard_index != wanted.shard_index {
        wrong.push(format!(
            "it is shard {}, the configuration has it in place {}",
            row.shard_index, wanted.shard_index
        ));
    }
    if row.cluster_id != wanted.cluster_id {
        wrong.push(format!(
            "its offsets are those of Kafka cluster {}, the configured one is {}",
            row.cluster_id, wanted.cluster_id
        ));
    }
    let mut known = row.topics.as_object().cloned().unwrap_or_default();
    for (topic, partitions) in &expected.topics {
        match known.get(topic).and_then(serde_json::Value::as_i64) {
            Some(recorded) if recorded != i64::from(*partitions) => {
                wrong.push(format!(
                    "it holds topic {topic} with {recorded} partitions, the configuration says {partitions}"
                ));
            }
            _ => {
                known.insert(topic.clone(), (*partitions).into());
            }
        }
    }
    if wrong.is_empty() {
        return Ok(known.into());
    }
    Err(IdentityError::Mismatch(format!(
        "this database was set up as something else: {}. Which shard a user is on follows from these, so changing them means moving data: \
         correct the configuration (order of the URLs, topics, brokers), or use a fresh database",
        wrong.join("; ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_spread_over_shards_and_lanes() {
        let place = |p| (shard_of(p, 2), lane_of(p, 2, 2));
        assert_eq!(
            (0..6).map(place).collect::<Vec<_>>(),
            [(0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (1, 0)]
        );
    }

    #[test]
    fn another_place_count_cluster_or_partition_count_is_named_and_a_new_topic_is_added() {
        let here = Identity {
            index: 1,
            shards: 2,
            cluster_id: "c".into(),
            topics: vec![("orders".into(), 12)],
        };
        let mut other = here.clone();
        other.topics.push(("disputes".into(), 6));
        assert_eq!(
            compare(&row_of(&here), &other).ok(),
            Some(serde_json::json!({ "orders": 12, "disputes": 6 }))
        );
        let wrong = Identity {
            index: 0,
            shards: 3,
            cluster_id: "d".into(),
            topics: vec![("orders".into(), 6)],
        };
        let message = compare(&row_of(&here), &wrong).expect_err("nothing fits").to_string();
        for part in ["one of 2 shards", "shard 1", "cluster c", "12 partitions"] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
