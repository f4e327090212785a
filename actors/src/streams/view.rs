//! How streams and partitions do on this node, as views and metrics show it.
//!
//! The store is the truth about positions; what is kept here is for people. Written by the actors of streams and
//! partitions.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Where a stream stands on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StreamState {
    /// It asks the broker for its partitions.
    #[default]
    Joining,
    /// It is a member of its group.
    Reading,
    /// It cannot be read; the reason says what to do. It is tried again.
    Failed(String),
}

/// How a stream does on this node.
#[derive(Debug, Clone, Default)]
pub struct StreamFigures {
    /// Where it stands.
    pub state: StreamState,
    /// What the broker complained of last; none while all is well.
    pub trouble: Option<String>,
}

/// How a partition does on the node that has it.
#[derive(Debug, Default)]
pub struct PartitionFigures {
    /// First offset that is not durable yet; -1 before it is known.
    pub next: AtomicI64,
    /// Records read that became runs.
    pub admitted: AtomicU64,
    /// Records read that were passed over.
    pub passed: AtomicU64,
    /// Records read that became dead letters.
    pub dead: AtomicU64,
    /// Records that wait for the store.
    pub waiting: AtomicU64,
    /// What holds it up now, in words for people; empty when nothing does.
    held: Mutex<String>,
}

impl PartitionFigures {
    pub(crate) fn hold(&self, reason: impl Into<String>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = reason.into();
    }

    /// What holds it up now; none when nothing does.
    #[must_use]
    pub fn held(&self) -> Option<String> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        (!held.is_empty()).then(|| held.clone())
    }

    pub(crate) fn count(&self, admitted: u64, passed: u64, dead: u64, next: i64) {
        self.admitted.fetch_add(admitted, Ordering::Relaxed);
        self.passed.fetch_add(passed, Ordering::Relaxed);
        self.dead.fetch_add(dead, Ordering::Relaxed);
        self.next.store(next, Ordering::Relaxed);
    }
}
