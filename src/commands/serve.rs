//! `hookmill serve`: proves that everything fits, starts the tree, and stops it in time.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use hookmill_actors::kafka::Probe;
use hookmill_actors::kafka::topics::Finding;
use hookmill_actors::pipeline::{Pipeline, PipelineSettings};
use hookmill_actors::supervision::Exit;
use hookmill_schema::shard::{self, Identity, IdentityError, Pool};
use hookmill_schema::{ErrorClass, ShardError, migrations};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::{check, migrate, topics};
use crate::config::Config;
use crate::{open_files, telemetry};

/// Exit code when the tree gave up, or cannot go on: whoever runs the process should start it again (sysexits' EX_SOFTWARE).
const GAVE_UP: u8 = 70;
/// Exit code when stopping took too long.
const TOO_SLOW: u8 = 75;
/// Between two attempts to reach a shard during the start.
const START_RETRY: Duration = Duration::from_millis(250);

/// `hookmill serve`.
pub fn run(mut config: Config) -> Result<ExitCode> {
    telemetry::start(&config.log)?;
    hookmill_actors::enable_failpoints();
    info!(config = %redacted(&config), "starting");
    if let Some((room, advice)) = open_files::too_few(&config, open_files::raise()) {
        warn!("{advice}");
        config.ingest.max_connections = room;
    }
    let system = actix::System::new();
    let ended = system.block_on(serve(config));
    // Dropping it would wait for threads that still wait for a silent broker or shard; nobody wants their answers.
    std::mem::forget(system);
    ended
}

async fn serve(config: Config) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // It would end the process; here it says that certificates are to be read again, to those that have some.
    let _hangup = signal(SignalKind::hangup())?;
    let prepared = tokio::select! {
        prepared = prepare(&config) => prepared?,
        _ = terminate.recv() => return Ok(stopped_early("SIGTERM")),
        _ = interrupt.recv() => return Ok(stopped_early("Ctrl-C")),
    };
    let timeout = config.shutdown.timeout;
    let (settings, probe, pools) = prepared;
    let mut pipeline = Pipeline::start(settings, probe, pools);
    tokio::select! {
        seconds = set_back() => {
            error!(
                seconds,
                "the wall clock was set back, and the Kafka clients' threads would sleep for as long; exiting so that this process can be started afresh"
            );
            return Ok(ExitCode::from(GAVE_UP));
        }
        exit = pipeline.ended() => {
            error!(reason = %exit, "the actors gave up; exiting so that this process can be started afresh");
            return Ok(ExitCode::from(GAVE_UP));
        }
        _ = terminate.recv() => info!("SIGTERM: finishing what is in flight"),
        _ = interrupt.recv() => info!("Ctrl-C: finishing what is in flight"),
    }
    pipeline.stop();
    Ok(match tokio::time::timeout(timeout, pipeline.ended()).await {
        Ok(Exit::Stopped) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Ok(exit) => {
            error!(reason = %exit, "failed while stopping");
            ExitCode::from(GAVE_UP)
        }
        Err(_) => {
            error!(
                timeout_s = timeout.as_secs(),
                "stopping took longer than shutdown.timeout; what was in flight is resumed by the next owner"
            );
            ExitCode::from(TOO_SLOW)
        }
    })
}

/// Waits until the wall clock is set back; by how many seconds. librdkafka's threads wait for points in time of that clock
/// (`pthread_cond_timedwait` in its tinycthread.c), so that setting it back by an hour stops them for an hour; a jump
/// ahead only wakes them. A step of less than [`BEARABLE`], as time daemons make, is waited for.
async fn set_back() -> u64 {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut last = (Instant::now(), SystemTime::now());
    loop {
        tick.tick().await;
        let now = (Instant::now(), SystemTime::now());
        let due = last.1 + (now.0 - last.0);
        match due.duration_since(now.1) {
            Ok(behind) if behind > BEARABLE => return behind.as_secs(),
            _ => last = now,
        }
    }
}

/// Shorter than the group waits for a member.
const BEARABLE: Duration = Duration::from_secs(3);

fn stopped_early(signal: &str) -> ExitCode {
    info!("{signal} during the start: stopped");
    ExitCode::SUCCESS
}

/// Everything that can be wrong is found here, before anything listens; and before anything is made, so that a start
/// that is refused leaves no topic and no table behind.
async fn prepare(config: &Config) -> Result<(PipelineSettings, Probe, Vec<Pool>)> {
    let sources = config.sources()?;
    let admin_token = config.admin_token()?;
    let (window_past, window_future) = config.event_window()?;
    // Who only takes webhooks is not held up by a shard.
    let shard_urls = if config.writes() {
        config.shard_urls()?
    } else {
        Vec::new()
    };
    let connect = config.connect();
    certificates(config)?;
    for (key, listen) in check::listeners(config) {
        check::can_listen(key, listen)?;
    }
    topics::properties(config).await?;
    let (probe, cluster) = topics::reach(config).await?;
    let complete = look_at_topics(config, &probe).await?;
    patiently(config, async || look_at_shards(config, &shard_urls, &cluster).await).await?;

    if !complete {
        create_topics(config, &probe).await?;
    }
    patiently(config, async || ready_shards(config, &shard_urls, &cluster).await).await?;
    let pools = shard_urls.iter().map(|url| shard::pool(url, &connect)).collect();
    if config.writes()
        && let Some(warning) = check::co_location_warning(config, shard_urls.len())
    {
        warn!("{warning}");
    }
    let settings = PipelineSettings {
        instance: instance_name(),
        services: config.services,
        ingest: config.ingest.clone(),
        admin: config.admin.clone(),
        admin_token,
        kafka: config.kafka()?,
        orders: config.topics.orders.clone(),
        disputes: config.topics.disputes.clone(),
        parked: config.topics.parked.clone(),
        on_gap: config.topics.on_gap,
        shard_urls,
        lanes: config.postgres.lanes,
        connect,
        writers: config.writers,
        supervision: config.supervision,
        ahead_months: config.events.ahead_months,
        window_past,
        window_future,
        shutdown_timeout: config.shutdown.timeout,
        sources,
    };
    Ok((settings, probe, pools))
}

/// That the listeners' certificates can be used.
fn certificates(config: &Config) -> Result<()> {
    for (key, tls) in check::tls(config) {
        tls.check().map_err(|why| anyhow!("{key}: {why}"))?;
    }
    Ok(())
}

/// Whether all of them are there.
async fn look_at_topics(config: &Config, probe: &Probe) -> Result<bool> {
    let mut complete = true;
    for (topic, finding) in topics::examine(config, probe).await? {
        if finding == Finding::Missing && config.kafka.create_topics {
            complete = false;
        } else if let Some(why) = topics::explain(config, &topic, &finding) {
            bail!(why);
        }
    }
    Ok(complete)
}

/// Tries again while a shard does not answer, for at most `postgres.start_timeout`: it may be recovering, or failing over,
/// while instances are restarted. Any other fault is told at once.
async fn patiently(config: &Config, mut attempt: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let deadline = tokio::time::Instant::now() + config.postgres.start_timeout;
    let mut told = false;
    loop {
        let Err(error) = attempt().await else { return Ok(()) };
        if !is_absence(&error) || tokio::time::Instant::now() + START_RETRY > deadline {
            return Err(error);
        }
        if !std::mem::replace(&mut told, true) {
            warn!(
                start_timeout_s = config.postgres.start_timeout.as_secs(),
                "{error:#}; trying again until postgres.start_timeout"
            );
        }
        tokio::time::sleep(START_RETRY).await;
    }
}

/// Whether a shard was not there or went away, rather than said no.
fn is_absence(error: &anyhow::Error) -> bool {
    let shard = error
        .downcast_ref::<ShardError>()
        .or_else(|| match error.downcast_ref::<IdentityError>() {
            Some(IdentityError::Shard(shard)) => Some(shard),
            Some(IdentityError::Mismatch(_)) | None => None,
        });
    shard.is_some_and(|shard| match shard.class {
        ErrorClass::Connection | ErrorClass::Retry | ErrorClass::TooSlow => true,
        ErrorClass::Row | ErrorClass::Split | ErrorClass::MissingPartition | ErrorClass::Schema => false,
    })
}

async fn look_at_shards(config: &Config, urls: &[Arc<str>], cluster: &str) -> Result<()> {
    for (index, url) in urls.iter().enumerate() {
        look_at_shard(config, url, &check::identity(config, index, urls.len(), cluster)).await?;
    }
    Ok(())
}

/// Migrates the shards where that is wanted, and has each say what it is.
async fn ready_shards(config: &Config, urls: &[Arc<str>], cluster: &str) -> Result<()> {
    if config.postgres.migrate_on_start && !urls.is_empty() {
        for (shard, applied) in migrate::migrate(config).await?.into_iter().enumerate() {
            if !applied.is_empty() {
                info!(shard, ?applied, "migrated");
            }
        }
    }
    for (index, url) in urls.iter().enumerate() {
        let mut connection = shard::connect_upkeep(url, &config.connect())
            .await
            .with_context(|| unreachable(index))?;
        shard::check_or_record_identity(&mut connection, &check::identity(config, index, urls.len(), cluster))
            .await
            .with_context(|| other_shard(index))?;
    }
    Ok(())
}

async fn look_at_shard(config: &Config, url: &str, identity: &Identity) -> Result<()> {
    let (index, connect) = (identity.index, config.connect());
    let mut connection = shard::connect_upkeep(url, &connect)
        .await
        .with_context(|| unreachable(index))?;
    shard::check_identity(&mut connection, identity)
        .await
        .with_context(|| other_shard(index))?;
    if !config.postgres.migrate_on_start {
        let pending = migrations::pending(url, &connect)
            .await
            .with_context(|| unreachable(index))?;
        if !pending.is_empty() {
            bail!(
                "the tables of shard {index} (postgres.shard_urls) are behind by {}: run `hookmill migrate`, or set postgres.migrate_on_start = true",
                pending.join(", ")
            );
        }
    }
    Ok(())
}

fn unreachable(index: usize) -> String {
    format!("shard {index} (postgres.shard_urls) cannot be reached: check that it runs, and its URL")
}

fn other_shard(index: usize) -> String {
    format!("shard {index} (postgres.shard_urls) is not what this configuration takes it for")
}

async fn create_topics(config: &Config, probe: &Probe) -> Result<()> {
    let created = topics::create_missing(config).await?;
    if !created.is_empty() {
        info!(?created, "topics created");
    }
    for (topic, finding) in topics::settled(config, probe).await? {
        if let Some(why) = topics::explain(config, &topic, &finding) {
            bail!(why);
        }
    }
    Ok(())
}

/// Names this process among its peers: host, process, and a number that tells a restart with the same process id apart.
fn instance_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    format!(
        "{}-{}-{:08x}",
        host.trim(),
        std::process::id(),
        since_epoch.as_millis() as u32
    )
}

fn with_tls(has: bool) -> &'static str {
    if has { " (TLS)" } else { "" }
}

/// What is said of the configuration at start: secrets are references there, and URLs may hold passwords, so these are left out.
fn redacted(config: &Config) -> String {
    let sources: Vec<&str> = config.sources.iter().map(|s| s.name.as_str()).collect();
    format!(
        "services {:?}; ingest {}{}; admin {}{}; kafka {}; topics {} ({}), {} ({}); {} shard references, {} lanes; sources {}",
        config.services,
        config.ingest.listen,
        with_tls(config.ingest.tls.is_some()),
        config.admin.listen,
        with_tls(config.admin.tls.is_some()),
        config.kafka.brokers,
        config.topics.orders.name,
        config.topics.orders.partitions,
        config.topics.disputes.name,
        config.topics.disputes.partitions,
        config.postgres.shard_urls.len(),
        config.postgres.lanes,
        sources.join(", ")
    )
}
