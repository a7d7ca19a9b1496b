//! The keeper of event partitions: makes the coming months' partitions on every shard before they are needed.
//! (Writers make what is missing on demand; ahead of time it costs nobody a wait.)

use std::time::Duration;

use actix::prelude::*;
use fail::fail_point;
use futures_util::future::join_all;
use hookmill_schema::partitions;
use hookmill_schema::shard::Pool;
use tracing::{info, warn};

use crate::supervision::Life;

/// Settings of the keeper.
#[derive(Clone, Copy, Debug)]
pub struct PartitionKeeperSettings {
    /// Months ahead of the present one.
    pub ahead_months: u32,
    /// Between rounds.
    pub every: Duration,
    /// Before a round that failed on a shard is tried again.
    pub retry_after: Duration,
}

/// Makes event partitions ahead.
pub struct PartitionKeeper {
    life: Life,
    settings: PartitionKeeperSettings,
    shards: Vec<Pool>,
}

impl PartitionKeeper {
    /// A keeper of all `shards`, in their order.
    pub fn new(life: Life, settings: PartitionKeeperSettings, shards: Vec<Pool>) -> Self {
        Self { life, settings, shards }
    }

    fn round(&mut self, ctx: &mut Context<Self>) {
        let work = make_ahead(self.shards.clone(), self.settings.ahead_months);
        ctx.spawn(work.into_actor(self).map(|results, act, ctx| {
            fail_point!("partition_keeper");
            let mut failed = false;
            for (shard, result) in results.into_iter().enumerate() {
                match result {
                    Ok(made) => {
                        act.life.stats().add_handled(made.len() as u64);
                        if !made.is_empty() {
                            info!(shard, partitions = ?made, "event partitions made ahead");
                        }
                    }
                    Err(error) => {
                        failed = true;
                        act.life.stats().record_error(&error);
                        warn!(shard, %error, "event partitions could not be made ahead; trying again later, writers make them on demand meanwhile");
                    }
                }
            }
            let next = if failed { act.settings.retry_after } else { act.settings.every };
            ctx.run_later(next, |act, ctx| act.round(ctx));
        }));
    }
}

async fn make_ahead(shards: Vec<Pool>, months: u32) -> Vec<Result<Vec<String>, String>> {
    join_all(shards.iter().map(|pool| async move {
        let mut connection = pool.get().await.map_err(|error| error.to_string())?;
        partitions::ensure_ahead(&mut connection, months)
            .await
            .map_err(|error| error.to_string())
    }))
    .await
}

impl Actor for PartitionKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(self.life.stopped().into_actor(self).map(|(), _, ctx| ctx.stop()));
        self.round(ctx);
    }
}
