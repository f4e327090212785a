//! A place kept for a run while it is being started, so that nobody else starts it meanwhile.
//!
//! Never decides whether a run may start. Used by `runs` and by admission.

use std::sync::Arc;

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::RunId;
use ractor::ActorRuntime;
use tokio::sync::watch;

use super::{Runs, Slot};
use crate::address::Address;
use crate::mailbox::Mailbox;
use crate::message::RouteError;
use crate::run_actor::{Birth, RunActor, RunMessage};

/// Places in a run's mailbox.
const MAILBOX: usize = 1024;

/// A kept place; dropped without a start it is free again.
pub(crate) struct Reservation {
    runs: Arc<Runs>,
    run: RunId,
    done: bool,
    _begun: watch::Sender<()>,
}

impl Reservation {
    /// The place of a run whose slot says that it is being started; whoever looks for it waits for `begun` to close.
    pub(super) fn new(runs: Arc<Runs>, run: RunId, begun: watch::Sender<()>) -> Self {
        Self { runs, run, done: false, _begun: begun }
    }

    /// Whose place it is.
    pub(super) fn run(&self) -> RunId {
        self.run
    }

    /// Spawns the actor of a run.
    pub(crate) async fn start(mut self, birth: Birth) -> Result<Mailbox<RunMessage>, RouteError> {
        let runs = Arc::clone(&self.runs);
        let Some(supervisor) = runs.supervisor.get() else { return Err(RouteError::NotOwner) };
        let address = Address::Run(self.run);
        let vitals = runs.census.enter(address.clone(), MAILBOX);
        let actor = RunActor { run: self.run, runs: Arc::clone(&runs), vitals: Arc::clone(&vitals) };
        // Whoever looks for the run before the slot names its mailbox waits for this reservation to end.
        let (actor, _) =
            ActorRuntime::spawn_linked_instant(None, actor, birth, supervisor.clone()).map_err(|error| {
                RouteError::Failed(Failure::new(
                    FailureClass::Internal,
                    format!("the run's actor cannot start: {error}"),
                ))
            })?;
        runs.children.enter(&actor.get_cell(), address);
        let mailbox = Mailbox::new(actor, vitals);
        runs.slots.insert(self.run, Slot::Live(mailbox.clone()));
        self.done = true;
        if mailbox.is_gone() {
            // It left before its slot named it, so nobody else strikes it.
            runs.forget(self.run, &mailbox);
        }
        if runs.epoch(self.run.shard()).is_none() {
            // The shard has gone away meanwhile; whoever hands it over may have looked already.
            mailbox.actor().stop(Some("its shard has moved".into()));
        }
        metrics::gauge!("motet_runs_live").set(runs.slots.len() as f64);
        Ok(mailbox)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.done {
            self.runs.slots.remove_if(&self.run, |_, slot| matches!(slot, Slot::Starting(_)));
        }
    }
}
