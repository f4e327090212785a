//! Shards that somebody must look at: taken over, with a run that could not be brought up, or with records to be sent.
//!
//! Holds no runs: the rows are the truth. Filled by `runs` and by admission, emptied by recovery and by the relay.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use motet_engine::id::ShardId;
use tokio::sync::Notify;

/// What recovery has to do.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    shards: Mutex<BTreeSet<ShardId>>,
    more: Notify,
    /// Runs that are known to wait for it.
    runs: AtomicU64,
}

impl Backlog {
    /// The unfinished runs of a shard are to be looked at.
    pub(crate) fn add(&self, shard: ShardId) {
        // A set is whole whatever happened to another thread.
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).insert(shard);
        self.more.notify_one();
    }

    /// A run of a shard was left for later.
    pub(crate) fn leave(&self, shard: ShardId) {
        self.expect(1);
        self.add(shard);
    }

    /// So many runs wait that no one has counted yet.
    pub(crate) fn expect(&self, runs: u64) {
        self.runs.fetch_add(runs, Ordering::Relaxed);
    }

    /// A run has been looked at.
    pub(crate) fn looked_at(&self) {
        // Saturating: a run may be found both by the sweep and by whoever asked for it.
        let _ = self.runs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1)));
    }

    /// Runs that are known to wait.
    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// The shards to look at, which are then nobody's any more.
    pub(crate) fn take(&self) -> BTreeSet<ShardId> {
        std::mem::take(&mut *self.shards.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nothing is left, as far as the sweep has seen.
    pub(crate) fn nothing_left(&self) {
        if self.shards.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.runs.store(0, Ordering::Relaxed);
        }
    }

    /// Resolves when a shard was added since the last time.
    pub(crate) async fn more(&self) {
        self.more.notified().await;
    }
}
