//! Inflicting a fault and mending it.

mod database;
mod elsewhere;
mod storm;

use std::time::Duration;

use anyhow::{Context, Result};
use dev::process::{Process, Signal};
use dev::proxy::Way;

use crate::plan::{Fault, Kind};
use crate::world::World;

/// What must be undone when the fault ends.
enum Broken {
    /// Nothing: it is over.
    Nothing,
    /// Sessions whose end undoes it.
    Sessions(Vec<tokio_postgres::Client>),
    /// A clock to be set right; since when it is wrong, in ms.
    Clock(u64),
    /// By the kind alone.
    AsItIs,
}

/// Runs a fault from its beginning to its mending. What it proves by itself to be wrong is complained about.
pub async fn run(fault: &Fault, world: &World) -> Result<()> {
    let broken = inflict(fault, world).await.with_context(|| format!("{fault}"))?;
    tokio::time::sleep(fault.hold).await;
    mend(fault, broken, world)
        .await
        .with_context(|| format!("mending {fault}"))
}

async fn inflict(fault: &Fault, world: &World) -> Result<Broken> {
    let instance = &world.instances[fault.instance];
    let broker = world.stack.kafka(fault.broker).process();
    let shard = world.stack.shard(fault.shard);
    match fault.kind {
        Kind::KillInstance => instance.kill(),
        Kind::StopInstance => stop(fault, world).await,
        Kind::FreezeInstance => instance.process().freeze(),
        Kind::Zombie => zombie(fault, world).await?,
        Kind::ClockJump => {
            instance.clock.as_ref().context("it has no clock")?.set(fault.amount)?;
            return Ok(Broken::Clock(world.now_ms()));
        }
        Kind::RebalanceStorm => {
            storm::blow(fault, world).await?;
            return Ok(Broken::Nothing);
        }
        Kind::KillBroker => broker.kill(),
        Kind::StopBroker => stop_server(broker, world).await,
        Kind::FreezeBroker => broker.freeze(),
        Kind::KillShard => shard.process().kill(),
        Kind::StopShard => stop_server(shard.process(), world).await,
        Kind::ImmediateShard => {
            shard.process().signal(Signal::SIGQUIT);
            shard.process().wait(Duration::from_secs(10)).await;
        }
        Kind::FreezeShard => shard.process().signal_all(Signal::SIGSTOP),
        Kind::CrashBackend => world.count_effect(database::crash_backend(shard).await?),
        Kind::DiskFull => {
            let disk = shard.disk().context("the shard has no file system of its own")?;
            disk.fill()?;
        }
        Kind::NoSlots => return database::take_all_slots(shard).await.map(Broken::Sessions),
        Kind::TableLock => {
            let sessions = database::lock_table(shard, &world.deployment.name, fault.amount).await?;
            world.count_effect(!sessions.is_empty());
            return Ok(Broken::Sessions(sessions));
        }
        Kind::RowLocks => {
            let sessions = database::lock_rows(shard, &world.deployment.name).await?;
            world.count_effect(!sessions.is_empty());
            return Ok(Broken::Sessions(sessions));
        }
        Kind::LongTransaction => {
            let sessions = database::long_transaction(shard, &world.deployment.name).await?;
            world.count_effect(!sessions.is_empty());
            return Ok(Broken::Sessions(sessions));
        }
        Kind::Migration => {
            database::migrate(fault, world).await?;
            return Ok(Broken::Nothing);
        }
        Kind::MissingPartition => world.count_effect(database::detach_month(shard, &world.deployment.name).await?),
        Kind::Cut | Kind::Delay | Kind::BlackHole | Kind::OneWay | Kind::HalfOpen => harm_wires(fault, world)?,
        Kind::TopicRecreated => {
            elsewhere::topic_recreated(world).await?;
            return Ok(Broken::Nothing);
        }
        Kind::RecordsDeleted => {
            elsewhere::records_deleted(world).await?;
            return Ok(Broken::Nothing);
        }
    }
    Ok(Broken::AsItIs)
}

async fn mend(fault: &Fault, broken: Broken, world: &World) -> Result<()> {
    let instance = &world.instances[fault.instance];
    let (broker, shard) = (world.stack.kafka(fault.broker), world.stack.shard(fault.shard));
    match broken {
        Broken::Nothing => return Ok(()),
        Broken::Sessions(sessions) => {
            drop(sessions);
            return Ok(());
        }
        Broken::Clock(since) => {
            instance.clock.as_ref().context("it has no clock")?.set(0)?;
            let mut wrong = world
                .clocks_wrong
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            wrong.push((since, world.now_ms()));
            return Ok(());
        }
        Broken::AsItIs => {}
    }
    match fault.kind {
        Kind::KillInstance | Kind::StopInstance => instance.restart()?,
        Kind::FreezeInstance | Kind::Zombie => instance.process().thaw(),
        Kind::KillBroker | Kind::StopBroker => broker.restart().await?,
        Kind::FreezeBroker => broker.process().thaw(),
        Kind::KillShard | Kind::StopShard | Kind::ImmediateShard => shard.restart().await?,
        Kind::FreezeShard => shard.process().signal_all(Signal::SIGCONT),
        Kind::DiskFull => {
            shard
                .disk()
                .context("the shard has no file system of its own")?
                .free()?;
            // A server that could not even recover has ended.
            if !shard.process().is_running() {
                shard.restart().await?;
            }
        }
        Kind::Cut | Kind::Delay | Kind::BlackHole | Kind::OneWay | Kind::HalfOpen => {
            for wire in &fault.wires {
                world.proxy(*wire)?.restore();
            }
        }
        Kind::CrashBackend | Kind::MissingPartition => {}
        // Mended above, or by themselves.
        Kind::ClockJump
        | Kind::RebalanceStorm
        | Kind::NoSlots
        | Kind::TableLock
        | Kind::RowLocks
        | Kind::LongTransaction
        | Kind::Migration
        | Kind::TopicRecreated
        | Kind::RecordsDeleted => {}
    }
    Ok(())
}

/// An instance that is told to stop does so in good order, or says that it could not in time.
async fn stop(fault: &Fault, world: &World) {
    let instance = &world.instances[fault.instance];
    match instance.stop().await {
        // 75: stopping took longer than it may, with a server away.
        Ok(Some(0 | 75)) => {}
        Ok(code) => world.complain(format!(
            "instance {} was told to stop and ended with {code:?}: {:#}",
            fault.instance,
            instance.process().obituary()
        )),
        Err(error) => world.complain(format!("instance {}: {error:#}", fault.instance)),
    }
}

async fn stop_server(server: &Process, world: &World) {
    if let Err(error) = server.stop(Duration::from_secs(30)).await {
        // Not the product's fault, and no harm: it was killed instead.
        eprintln!("{} at {} ms: {error:#}", server.name(), world.now_ms());
    }
}

/// Freezes an instance until the others have claimed all that it had.
async fn zombie(fault: &Fault, world: &World) -> Result<()> {
    let zombie = &world.instances[fault.instance];
    let Some(stats) = zombie.stats().await else {
        zombie.process().freeze();
        tokio::time::sleep(Duration::from_secs(9)).await;
        return Ok(());
    };
    let (me, had) = (stats.instance().to_owned(), stats.partitions());
    let had: Vec<_> = had.into_iter().filter(|p| p.state == "running").collect();
    zombie.process().freeze();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let Ok(offsets) = world.offsets(&world.deployment).await else {
            continue;
        };
        let left = had.iter().filter(|p| offsets.get(&p.id).is_some_and(|o| o.owner == me));
        if left.count() == 0 {
            return Ok(());
        }
    }
    world.complain(format!(
        "instance {} stood still for 60 s and the others did not take its partitions",
        fault.instance
    ));
    Ok(())
}

fn harm_wires(fault: &Fault, world: &World) -> Result<()> {
    for wire in &fault.wires {
        let proxy = world.proxy(*wire)?;
        match fault.kind {
            Kind::Cut => proxy.cut(),
            Kind::Delay => proxy.delay(Duration::from_millis(fault.amount.unsigned_abs())),
            Kind::OneWay if fault.amount == 0 => proxy.silence(Way::Up),
            Kind::OneWay => proxy.silence(Way::Down),
            Kind::HalfOpen => proxy.tear(),
            _ => proxy.black_hole(),
        }
    }
    Ok(())
}
