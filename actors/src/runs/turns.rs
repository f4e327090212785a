//! Whose turn it is among runs of workflows that have limits: letting runs in, and going on with those that come in.
//!
//! A run that waits for its turn is a row and its place in a line; only one that somebody asks for has an actor
//! meanwhile, which sends nothing. Used by the run actors and by admission.

use std::sync::Arc;

use motet_engine::id::RunId;
use motet_engine::run::Run;

use super::Runs;
use crate::gate::Group;
pub use crate::gate::Place;
use crate::message::{RouteError, RunAsk};
use crate::router::system_caller;

impl Runs {
    /// Whether a run may be worked on at once; otherwise it waits in turn. `begun` says whether it was before.
    pub(crate) fn take_turn(self: &Arc<Self>, run: &Run, begun: bool) -> bool {
        if run.phase().is_end() {
            return true;
        }
        let line = self.limits.enter(run, begun);
        let entered = line.is_none();
        if let Some(group) = line {
            // It may be the rate alone that holds it, and then nobody's leaving would let it in.
            self.let_in(group, false);
        }
        entered
    }

    /// A run is not worked on any more, or not at all: whoever waits for its place comes in.
    pub(crate) fn give_up_turn(self: &Arc<Self>, run: RunId) {
        if let Some(group) = self.limits.leave(run) {
            self.let_in(group, false);
        }
    }

    /// Whether a run waits for its turn.
    #[must_use]
    pub fn waits_for_turn(&self, run: RunId) -> bool {
        self.limits.is_waiting(run)
    }

    /// Where a run stands that waits for its turn.
    #[must_use]
    pub fn turn_of(&self, run: RunId) -> Option<Place> {
        self.limits.place(run)
    }

    fn let_in(self: &Arc<Self>, group: Group, again: bool) {
        let (admitted, again) = self.limits.admit(&group, again);
        if admitted.is_empty() && again.is_none() {
            return;
        }
        let runs = Arc::downgrade(self);
        tokio::spawn(async move {
            for run in admitted {
                let Some(runs) = runs.upgrade() else { return };
                runs.proceed(run).await;
            }
            if let Some(again) = again {
                tokio::time::sleep(again).await;
                if let Some(runs) = runs.upgrade() {
                    runs.let_in(group, true);
                }
            }
        });
    }

    /// Goes on with a run that was let in.
    pub(super) async fn proceed(self: &Arc<Self>, run: RunId) {
        let caller = system_caller(motet_engine::id::Namespace::default());
        let asked = self.ask(&caller, run, RunAsk::Proceed).await;
        if let Err(error) = asked.map(drop).or_else(unless_moved) {
            tracing::warn!(%run, %error, "a run whose turn has come cannot be brought up; it is tried again later");
            self.give_up_turn(run);
            self.backlog.leave(run.shard());
        }
    }
}

/// A run whose shard has moved has its turn where it is now.
fn unless_moved(error: RouteError) -> Result<(), RouteError> {
    if matches!(error, RouteError::NotOwner) { Ok(()) } else { Err(error) }
}
