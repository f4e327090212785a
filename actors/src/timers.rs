//! Wakes runs that wait as rows, when their time has come.
//!
//! Holds no list of its own: the rows are the truth, and this actor only remembers when to look again. Spawned by the
//! node, one for all shards that it owns.

use std::sync::Arc;
use std::time::Duration;

use motet_engine::id::ShardId;
use motet_engine::time::Timestamp;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::router::system_caller;
use crate::runs::Runs;

/// It looks at the rows at least this often, whatever it was told.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// After a failure of the store it waits this long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Due runs taken from one shard at a time.
const BATCH: u32 = 256;

/// The actor.
pub(crate) struct Timers {
    pub(crate) runs: Arc<Runs>,
}

/// It tells itself to look again.
#[derive(Debug)]
pub(crate) struct Look;

impl Actor for Timers {
    type Msg = Look;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Look>, (): ()) -> Result<(), ActorProcessingErr> {
        myself.cast(Look)?;
        Ok(())
    }

    async fn handle(&self, myself: ActorRef<Look>, _: Look, _: &mut ()) -> Result<(), ActorProcessingErr> {
        let mut hints = self.runs.timer_hints();
        self.runs.hint_taken();
        let sleep = match self.wake_due().await {
            Ok(next) => {
                let now = self.runs.clock().now();
                next.map_or(LONGEST_SLEEP, |at| at.since(now) + Duration::from_millis(1)).min(LONGEST_SLEEP)
            }
            Err(error) => {
                tracing::warn!(%error, "timers cannot be read; trying again");
                AFTER_FAILURE
            }
        };
        let clock_runs = Arc::clone(&self.runs);
        tokio::spawn(async move {
            let until = tokio::time::Instant::now() + sleep;
            // A run that parks with an earlier wish cuts the sleep short.
            loop {
                let sooner = hints.borrow_and_update().map(|at| at.since(clock_runs.clock().now()));
                let wait = sooner.map_or(until, |wait| until.min(tokio::time::Instant::now() + wait));
                tokio::select! {
                    () = tokio::time::sleep_until(wait) => break,
                    changed = hints.changed() => if changed.is_err() { return },
                }
            }
            let _ = myself.cast(Look);
        });
        Ok(())
    }
}

impl Timers {
    /// Wakes what is due and says when the next run wants to be woken.
    async fn wake_due(&self) -> Result<Option<Timestamp>, motet_store::StoreError> {
        let store = &self.runs.parts().store;
        let mut next: Option<Timestamp> = None;
        for shard in (0..self.runs.shards()).map(ShardId) {
            let now = self.runs.clock().now();
            let Some(at) = store.next_wake(shard).await? else { continue };
            if at > now {
                next = Some(next.map_or(at, |next| next.min(at)));
                continue;
            }
            for run in store.due(shard, now, BATCH).await? {
                let caller = system_caller(motet_engine::id::Namespace::default());
                self.runs.wake(&caller, run).await;
            }
            // More may be due, and what could not be woken is tried again; not at once, so that it cannot spin.
            let soon = now.after(Duration::from_millis(100));
            next = Some(next.map_or(soon, |next| next.min(soon)));
        }
        Ok(next)
    }
}
