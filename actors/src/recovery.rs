//! Brings up the runs that the store holds unfinished and that nobody is working on: after a start, and when there was
//! no room for more actors.
//!
//! Lazily and at a bounded rate, so that a node with many runs serves new ones from its first second. Spawned by the
//! node.

use std::sync::Arc;
use std::time::Duration;

use motet_engine::id::{RunId, ShardId};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::runs::Runs;

/// Runs read from one shard at a time.
const BATCH: u32 = 128;

/// How long it waits for room before it looks again.
const NO_ROOM: Duration = Duration::from_millis(50);

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
        let mut brought = 0u64;
        for shard in (0..self.runs.shards()).map(ShardId) {
            brought += self.sweep(shard).await?;
        }
        self.runs.nothing_left();
        if brought > 0 {
            tracing::info!(runs = brought, "unfinished runs brought up");
        }
        let runs = Arc::clone(&self.runs);
        tokio::spawn(async move {
            runs.backlog().await;
            let _ = myself.cast(Sweep);
        });
        Ok(())
    }
}

impl Recovery {
    async fn sweep(&self, shard: ShardId) -> Result<u64, ActorProcessingErr> {
        let pause = Duration::from_secs(1) / self.per_second.max(1);
        let mut after: Option<RunId> = None;
        let mut brought = 0;
        loop {
            let found = self.runs.parts().store.unfinished(shard, after, BATCH).await?;
            let Some(last) = found.last().copied() else { return Ok(brought) };
            let mut due = tokio::time::Instant::now();
            for run in found {
                if self.runs.has_in_hand(run) {
                    continue;
                }
                while !self.runs.has_room() {
                    tokio::time::sleep(NO_ROOM).await;
                }
                match self.runs.activate(run).await {
                    Ok(()) => brought += 1,
                    Err(error) => tracing::error!(%run, %error, "run cannot be brought up; it stays as it is"),
                }
                self.runs.looked_at();
                due += pause;
                tokio::time::sleep_until(due).await;
            }
            after = Some(last);
        }
    }
}
