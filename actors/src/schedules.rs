//! The schedules as this node sees them: when each begins its next run, and how the last one went.
//!
//! The store is the truth; what is kept here is for views and for waking the scheduler when something changed. Used by
//! the scheduler, the router and the HTTP API.

use dashmap::DashMap;
use motet_engine::id::{Name, Namespace, RunId};
use motet_engine::time::Timestamp;
use tokio::sync::Notify;

/// How a schedule does on this node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScheduleFigures {
    /// When it begins its next run; none while it is paused, and when there is no time any more.
    pub next_at: Option<Timestamp>,
    /// The time for which the last run began.
    pub last_at: Option<Timestamp>,
    /// The last run.
    pub last_run: Option<RunId>,
    /// Why the last time began no run; none when it did.
    pub last_error: Option<String>,
    /// Runs begun since the node started.
    pub begun: u64,
}

/// The schedules of this node.
#[derive(Debug, Default)]
pub struct Schedules {
    figures: DashMap<(Namespace, Name), ScheduleFigures>,
    changed: Notify,
}

impl Schedules {
    /// How a schedule does; none before the scheduler has seen it.
    #[must_use]
    pub fn figures(&self, namespace: &Namespace, name: &Name) -> Option<ScheduleFigures> {
        self.figures.get(&(namespace.clone(), name.clone())).map(|figures| figures.clone())
    }

    pub(crate) fn note(&self, key: &(Namespace, Name), change: impl FnOnce(&mut ScheduleFigures)) {
        change(&mut self.figures.entry(key.clone()).or_default());
    }

    pub(crate) fn keep_only(&self, known: impl Fn(&(Namespace, Name)) -> bool) {
        self.figures.retain(|key, _| known(key));
    }

    /// A schedule was put or deleted.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    pub(crate) async fn change(&self) {
        self.changed.notified().await;
    }
}
