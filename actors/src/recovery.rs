//! Brings up the runs that the store holds unfinished and that nobody is working on: after a start, when a
//! shard comes from another node, when there was no room for more actors, and among other nodes every few seconds.
//!
//! Lazily and at a bounded rate, so that a node with many runs serves new ones from its first second. Spawned by the
//! node.

use std::sync::Arc;
use std::time::Duration;

use motet_engine::failure::FailureClass;
use motet_engine::id::{RunId, ShardId};
use motet_store::StoreError;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::message::RouteError;
use crate::runs::Runs;

/// Runs read from one shard at a time.
const BATCH: u32 = 128;

/// After a failure of the store it waits this long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How long it waits for room before it looks again.
const NO_ROOM: Duration = Duration::from_millis(50);

/// Among others every shard is looked at this often: a run may have been admitted by a node that lost its shard, or its
/// life, before it could tell the owner.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// The actor.
pub(crate) struct Recovery {
    pub(crate) runs: Arc<Runs>,
    pub(crate) per_second: u32,
}

/// It tells itself to go on.
#[derive(Debug)]
pub(crate) struct Sweep;

impl Actor for Recovery {
    type Msg = Sweep;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Sweep>, (): ()) -> Result<(), ActorProcessingErr> {
        myself.cast(Sweep)?;
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Sweep>, _: Sweep, _: &mut ()) -> Result<(), ActorProcessingErr> {
        let again = self.sweep_all().await;
        let runs = Arc::clone(&self.runs);
        tokio::spawn(async move {
            if again {
                tokio::time::sleep(AFTER_FAILURE).await;
            } else {
                runs.something_to_sweep(SWEEP_EVERY).await;
            }
            // What cannot be written down need not be begun.
            while runs.parts().store.health().fault.is_some() {
                tokio::time::sleep(AFTER_FAILURE).await;
            }
            let _ = myself.cast(Sweep);
        });
        Ok(())
    }
}

/// What became of the unfinished runs of a shard.
#[derive(Default)]
struct Swept {
    brought: u64,
    /// Whether some could not be read now and must be looked at again.
    left: bool,
}

impl Recovery {
    /// Looks at the shards of the backlog; whether some must be looked at again.
    async fn sweep_all(&self) -> bool {
        let (mut brought, mut again) = (0, false);
        for shard in self.runs.backlog().take() {
            let swept = self.sweep(shard).await.unwrap_or_else(|error| {
                tracing::warn!(%shard, %error, "unfinished runs cannot be listed; trying again");
                Swept { left: true, ..Swept::default() }
            });
            brought += swept.brought;
            if swept.left {
                self.runs.backlog().add(shard);
                again = true;
            }
        }
        if !again {
            self.runs.backlog().nothing_left();
        }
        if brought > 0 {
            tracing::info!(runs = brought, "unfinished runs brought up");
        }
        again
    }

    async fn sweep(&self, shard: ShardId) -> Result<Swept, StoreError> {
        let pause = Duration::from_secs(1) / self.per_second.max(1);
        let mut after: Option<RunId> = None;
        let mut swept = Swept::default();
        self.runs.learn_lines(shard).await?;
        loop {
            let found = self.runs.parts().store.unfinished(shard, after, BATCH).await?;
            let Some(last) = found.last().copied() else { return Ok(swept) };
            let mut due = tokio::time::Instant::now();
            for run in found {
                if self.runs.epoch(shard).is_none() {
                    return Ok(swept);
                }
                if self.runs.has_in_hand(run) {
                    continue;
                }
                while !self.runs.has_room() {
                    tokio::time::sleep(NO_ROOM).await;
                }
                match self.runs.activate(run).await {
                    Ok(()) => swept.brought += 1,
                    Err(RouteError::Failed(failure)) if failure.class == FailureClass::Unavailable => {
                        tracing::warn!(%run, %failure, "run cannot be read now; it is brought up later");
                        swept.left = true;
                    }
                    // Its shard has moved meanwhile.
                    Err(RouteError::NotOwner) => return Ok(swept),
                    Err(error) => tracing::error!(%run, %error, "run cannot be brought up; it stays as it is"),
                }
                self.runs.backlog().looked_at();
                due += pause;
                tokio::time::sleep_until(due).await;
            }
            after = Some(last);
        }
    }
}
