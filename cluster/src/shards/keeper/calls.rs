//! Carrying requests of the machine out against the store, each with its timeout.
//!
//! Decides nothing; a request that fails or is given up may have been carried out all the same, which the machine
//! knows. Used by the keeper.

use motet_store::StoreError;
use motet_store::port::{MapVersion, ShardRow, Store};

use crate::shards::machine::{Answer, Call, Look, Own};
use crate::shards::settings::ShardSettings;

/// Asks the store and waits for its answer, for the settings' timeout at most.
pub(super) async fn ask(store: &dyn Store, own: &Own, settings: &ShardSettings, call: Call) -> Answer {
    let what = name(&call);
    match tokio::time::timeout(settings.call_timeout, carry_out(store, own, settings, call)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::warn!(what, %error, "the store failed a request of the cluster; trying again");
            failed(what)
        }
        Err(_) => {
            tracing::warn!(what, "the store did not answer a request of the cluster in time; trying again");
            failed(what)
        }
    }
}

fn failed(what: &'static str) -> Answer {
    metrics::counter!("motet_cluster_store_failures_total", "request" => what).increment(1);
    Answer::Failed
}

fn name(call: &Call) -> &'static str {
    match call {
        Call::Register => "register",
        Call::Renew(_) => "renew",
        Call::Look(_) => "look",
        Call::Fence(_) => "fence",
        Call::Take(..) => "take",
        Call::Release(..) => "release",
    }
}

async fn carry_out(store: &dyn Store, own: &Own, settings: &ShardSettings, call: Call) -> Result<Answer, StoreError> {
    Ok(match call {
        Call::Register => Answer::Registered(store.register(&own.node, &own.address, settings.lease).await?),
        Call::Renew(life) => Answer::Renewed(store.renew(life, settings.lease).await?),
        Call::Look(after) => {
            let (version, rows) = read(store, settings.shards, after).await?;
            // After the rows: an owner that is not among the lives was fenced, and is not just too young.
            Answer::Looked(Look { version, rows, lives: store.live().await? })
        }
        Call::Fence(life) => {
            let over = store.fence_expired(life).await?;
            if over {
                metrics::counter!("motet_cluster_fenced_total").increment(1);
                tracing::info!(%life, "a node whose lease was over is fenced: its shards are taken over");
            }
            Answer::Fenced(over)
        }
        Call::Take(shards, life) => {
            let taken = store.take(&shards, life).await?;
            if !taken.is_empty() {
                tracing::info!(shards = taken.len(), asked = shards.len(), "shards were taken");
            }
            Answer::Taken(taken)
        }
        Call::Release(shards, life) => {
            let released = store.release(&shards, life).await?;
            tracing::info!(shards = released.len(), "shards were given up");
            Answer::Released(released)
        }
    })
}

/// The rows are read only when the version says that there is something to read.
async fn read(
    store: &dyn Store,
    shards: u16,
    after: Option<MapVersion>,
) -> Result<(MapVersion, Vec<ShardRow>), StoreError> {
    if let Some(after) = after {
        let version = store.map_version().await?;
        if version <= after {
            return Ok((version, Vec::new()));
        }
    }
    store.shards(shards, after).await
}
