//! Wakes runs that wait as rows, when their time has come.
//!
//! Holds no list of its own: the rows are the truth, and this actor only remembers when to look again. Spawned by the
//! node, one for all shards that it owns.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use motet_engine::id::RunId;
use motet_engine::time::Timestamp;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::router::system_caller;
use crate::runs::Runs;

/// It looks at the rows at least this often, whatever it was told.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// After a failure of the store it waits this long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Due runs taken from one shard at a time.
const BATCH: u32 = 512;

/// Runs that are woken at one time. Enough for full commits, few enough that what is submitted meanwhile finds a free
/// reader and a place in the commits between them.
const AT_ONCE: usize = 128;

/// How soon it looks again when a run could not be woken, so that it cannot spin.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

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
        for shard in self.runs.own_shards() {
            let at = loop {
                // A shard that goes away meanwhile stays due until its next owner wakes its runs, which is not to be
                // waited for: that one may be waiting for this node in the same way.
                if self.runs.epoch(shard).is_none() {
                    break None;
                }
                let now = self.runs.clock().now();
                match store.next_wake(shard).await? {
                    None => break None,
                    Some(at) if at > now => break Some(at),
                    Some(_) => {}
                }
                let due = store.due(shard, now, BATCH).await?;
                if !self.wake(due).await {
                    break Some(now.after(AFTER_REFUSAL));
                }
            };
            next = next.into_iter().chain(at).min();
        }
        Ok(next)
    }

    /// Wakes some runs, many at one time; whether all of them took it. One that did stays due no longer, since its
    /// head has changed by then.
    async fn wake(&self, due: Vec<RunId>) -> bool {
        let caller = system_caller(motet_engine::id::Namespace::default());
        let woken = stream::iter(due).map(|run| self.runs.wake(&caller, run)).buffer_unordered(AT_ONCE);
        woken.fold(true, |all, woken| std::future::ready(all && woken)).await
    }
}
