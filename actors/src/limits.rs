//! The limits of workflows as this node keeps them: who may be worked on, and who is let in when another has left.
//!
//! The rule is the gate's; this is its place in the node, with the time. Holds no run and no actor: a run that waits is
//! a row. Counts what this node works on; runs that wait for a time or a signal are not worked on. Used by `runs`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use motet_engine::id::{RunId, ShardId};
use motet_engine::run::Run;
use motet_engine::time::Timestamp;

use crate::gate::{Entrant, Gate, Group, Place};

/// The gate of a node.
#[derive(Debug)]
pub(crate) struct RunLimits {
    gate: Mutex<Gate>,
    /// How many runs wait, so that nobody takes the lock to know it.
    waiting: AtomicUsize,
    /// The fixed moment that places in the queue are counted from.
    begun: Instant,
}

impl RunLimits {
    pub(crate) fn new() -> Self {
        Self { gate: Mutex::default(), waiting: AtomicUsize::new(0), begun: Instant::now() }
    }

    /// Lets a run in, or lets it wait in turn: the group in whose line it stands then. `begun` says whether it was
    /// worked on before.
    pub(crate) fn enter(&self, run: &Run, begun: bool) -> Option<Group> {
        let limits = run.workflow().limits.limits;
        if limits.is_unlimited() {
            return None;
        }
        let submission = run.submission();
        // The key was evaluated once at submission, so that it cannot fail now.
        let key = run.limit_key().unwrap_or_default();
        let group = Group { namespace: submission.namespace.clone(), workflow: submission.workflow.clone(), key };
        let entrant = Entrant { run: run.id(), group: group.clone(), limits, priority: submission.priority, begun };
        let entered = self.locked(|gate| gate.enter(entrant, age(submission.at), self.now()));
        (!entered).then_some(group)
    }

    /// A run is not worked on any more; the group in which there may be room now.
    pub(crate) fn leave(&self, run: RunId) -> Option<Group> {
        self.locked(|gate| gate.leave(run))
    }

    /// The runs of a shard are another node's from now on.
    pub(crate) fn forget(&self, shard: ShardId) {
        self.locked(|gate| gate.forget(shard));
    }

    /// Who comes in now, and when to come `again`.
    pub(crate) fn admit(&self, group: &Group, again: bool) -> (Vec<RunId>, Option<Duration>) {
        self.locked(|gate| gate.admit(group, self.now(), again))
    }

    /// Whether a run waits.
    pub(crate) fn is_waiting(&self, run: RunId) -> bool {
        self.locked(|gate| gate.is_waiting(run))
    }

    /// Where a run stands that waits; none when it does not.
    pub(crate) fn place(&self, run: RunId) -> Option<Place> {
        self.locked(|gate| gate.place(run))
    }

    /// How many runs wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The gate is consistent after every call, so a panic of another thread spoils nothing.
    fn locked<T>(&self, ask: impl FnOnce(&mut Gate) -> T) -> T {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = ask(&mut gate);
        self.waiting.store(gate.waiting(), Ordering::Relaxed);
        answer
    }
}

/// Places are counted from the time of submission, so that a run keeps its turn over a restart.
fn age(submitted: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(submitted.as_millis()).unwrap_or(0))
}
