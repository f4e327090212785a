//! Admission: what a submission asks for, how it becomes a durable run, and why it may not.
//!
//! Never decides who may submit; the router does. Used by the router, which gives these names on.

use std::sync::Arc;

use motet_engine::access::Denied;
use motet_engine::event::Event;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Epoch, Name, RunId};
use motet_engine::run::{ForkError, Run};
use motet_engine::schema::SchemaError;
use motet_engine::value::Value;
use motet_store::StoreError;
use motet_store::port::{Admission, Admitted, HeadChange, IdempotencyKey};
use tokio::sync::oneshot;

use crate::catalog::CatalogError;
use crate::driver::{DriverError, NewRun, RunDriver};
use crate::message::{Answer, RouteError};
use crate::peers::Peers;
use crate::run_actor::{Birth, Reply};
use crate::runs::{Reservation, Runs};

/// A run to be started.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// Workflow by name.
    pub workflow: Name,
    /// Version; the newest when none is named.
    pub version: Option<String>,
    /// Checked against the workflow's input schema.
    pub input: Value,
    /// Labels for finding the run again.
    pub tags: Vec<String>,
    /// Higher goes first where calls wait for a model; 0 is normal.
    pub priority: i8,
    /// The client's key for repeating safely.
    pub idempotency: Option<IdempotencyKey>,
}

/// A run that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// Its identity.
    pub run: RunId,
    /// Whether an earlier submission with the same key had started it.
    pub replayed: bool,
}

/// A run that is durable, and what is known of it without asking anyone.
#[derive(Debug)]
pub struct Begun {
    /// Which run it is.
    pub submitted: Submitted,
    /// The run as it stood when it became durable; none for one that an earlier submission had started.
    pub run: Option<Run>,
    pub(crate) end: Option<oneshot::Receiver<Result<Answer, RouteError>>>,
}

impl Begun {
    pub(crate) fn new(run: Run) -> Self {
        Self { submitted: Submitted { run: run.id(), replayed: false }, run: Some(run), end: None }
    }

    pub(crate) fn replayed(run: RunId) -> Self {
        Self { submitted: Submitted { run, replayed: true }, run: None, end: None }
    }
}

/// Why a run was not started.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The action table does not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The workflow is not to be had.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The input does not fit the workflow's input schema.
    #[error("the input does not fit the workflow's input schema")]
    Unfit(Vec<SchemaError>),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request, which started {0}")]
    KeyReused(RunId),
    /// The node holds as many unfinished runs as it may.
    #[error("{0} unfinished runs are as many as this node takes")]
    Full(u64),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// The run to be forked cannot be reached.
    #[error(transparent)]
    Source(#[from] RouteError),
    /// The run cannot be forked as asked.
    #[error(transparent)]
    Unforkable(ForkError),
    /// The store refused; nothing was started.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// Something broke inside.
    #[error(transparent)]
    Broken(#[from] Failure),
}

impl From<ForkError> for SubmitError {
    fn from(error: ForkError) -> Self {
        match error {
            ForkError::Unfit(mistakes) => Self::Unfit(mistakes),
            error => Self::Unforkable(error),
        }
    }
}

impl From<StoreError> for SubmitError {
    fn from(error: StoreError) -> Self {
        Self::Driver(error.into())
    }
}

/// Makes a run durable and starts its actor.
pub(crate) async fn admit(
    runs: Arc<Runs>,
    run: Run,
    events: Vec<Event>,
    idempotency: Option<IdempotencyKey>,
    reservation: Option<Reservation>,
    epoch: Epoch,
    awaited: bool,
) -> Result<Begun, SubmitError> {
    let id = run.id();
    let held = !runs.take_turn(&run, false);
    let durable = make_durable(&runs, run, events, idempotency, held, epoch).await;
    if !matches!(durable, Ok((Admitted::New, _))) {
        runs.give_up_turn(id);
    }
    let driver = match durable? {
        (Admitted::New, driver) => driver,
        (Admitted::Replayed(run), _) => return Ok(Begun::replayed(run)),
        (Admitted::KeyReused(run), _) => return Err(SubmitError::KeyReused(run)),
    };
    metrics::counter!("motet_runs_submitted_total").increment(1);
    let mut begun = Begun::new(driver.run().clone());
    let (reply, end) = oneshot::channel();
    begun.end = awaited.then_some(end);
    let alive = bring_to_life(&runs, driver, reservation, held, awaited.then_some(reply)).await;
    begun.end = begun.end.filter(|_| alive);
    Ok(begun)
}

/// Starts the actor of a run that has just become durable under the epoch of its driver, unless it has ended, has to
/// wait, or is somebody else's by now. Whether somebody may wait for its end here.
async fn bring_to_life(
    runs: &Arc<Runs>,
    driver: RunDriver,
    reservation: Option<Reservation>,
    held: bool,
    awaited_by: Option<Reply>,
) -> bool {
    let id = driver.run().id();
    if driver.run().phase().is_end() {
        runs.has_ended(&driver);
        return false;
    }
    if runs.epoch(id.shard()) != Some(driver.epoch()) {
        // The shard went away while the run became durable: whoever serves it now may have looked already.
        drop(reservation);
        runs.tell_owner(id);
        return false;
    }
    if Runs::stands_in_line(driver.run()) {
        drop(reservation);
        runs.is_first(driver.run());
        return false;
    }
    if held {
        // If its turn has come meanwhile, whoever brings it up waits for the reservation to end.
        drop(reservation);
        return false;
    }
    // The run is durable: whatever happens to its actor, it is not lost.
    match reservation.filter(|_| runs.has_room()) {
        Some(reservation) => {
            let birth = Birth { driver, awaited_by, expected: false, held: false };
            if let Err(error) = reservation.start(birth).await {
                tracing::warn!(run = %id, %error, "run admitted but not started; it is picked up later");
                runs.backlog().leave(id.shard());
            }
        }
        None => runs.backlog().leave(id.shard()),
    }
    true
}

/// Makes a run durable whose shard another node serves, and tells that node.
pub(crate) async fn admit_elsewhere(
    runs: &Arc<Runs>,
    peers: &Arc<Peers>,
    run: Run,
    events: Vec<Event>,
    idempotency: Option<IdempotencyKey>,
) -> Result<Begun, SubmitError> {
    let (runs, peers) = (Arc::clone(runs), Arc::clone(peers));
    // On a task of its own, like every admission: whoever hangs up must not keep the owner from being told.
    let admitting = tokio::spawn(async move {
        let id = run.id();
        let held = !run.workflow().limits.limits.is_unlimited();
        let new = NewRun::prepare(runs.parts(), run, events, idempotency, held).await?;
        let run = new.run().clone();
        match new.admit_only(&*runs.parts().store).await? {
            Admitted::New => {}
            Admitted::Replayed(run) => return Ok(Begun::replayed(run)),
            Admitted::KeyReused(run) => return Err(SubmitError::KeyReused(run)),
        }
        metrics::counter!("motet_runs_submitted_total").increment(1);
        if !run.phase().is_end() {
            peers.tell_admitted(id);
        }
        Ok(Begun::new(run))
    });
    match admitting.await {
        Ok(begun) => begun,
        Err(error) => Err(Failure::new(FailureClass::Internal, format!("admission broke off: {error}")).into()),
    }
}

/// A run on its way into the store among others, and what this node keeps for it meanwhile.
pub(crate) struct Expected {
    run: Run,
    head: HeadChange,
    /// None where another node serves its shard.
    epoch: Option<Epoch>,
    reservation: Option<Reservation>,
    held: bool,
    owes_result: bool,
}

impl Expected {
    /// Takes what this node keeps for the run, and prepares what admits it.
    ///
    /// # Errors
    /// When its events cannot be encoded or their large values not be stored; then nothing is kept.
    pub(crate) async fn prepare(
        runs: &Arc<Runs>,
        run: Run,
        events: Vec<Event>,
    ) -> Result<(Self, Admission), DriverError> {
        let epoch = runs.epoch(run.id().shard());
        // One that ends as it is admitted gets no actor.
        let lives = epoch.filter(|_| !run.phase().is_end());
        let reservation = lives.and_then(|_| runs.reserve(run.id()));
        let held = match epoch {
            // Who is first in its order is the store's to say, once it is in there.
            _ if Runs::stands_in_line(&run) => true,
            Some(_) => !runs.take_turn(&run, false),
            None => !run.workflow().limits.limits.is_unlimited(),
        };
        let id = run.id();
        match NewRun::prepare(runs.parts(), run, events, None, held).await {
            Ok(new) => {
                let owes_result = new.owes_result();
                let (run, head, admission) = new.into_parts();
                Ok((Self { run, head, epoch, reservation, held, owes_result }, admission))
            }
            Err(error) => {
                runs.give_up_turn(id);
                Err(error)
            }
        }
    }

    /// The run is durable: carries it on here, or tells whoever does.
    pub(crate) async fn begin(self, runs: &Arc<Runs>) {
        metrics::counter!("motet_runs_submitted_total").increment(1);
        let Self { run, head, epoch, reservation, held, owes_result } = self;
        match epoch {
            Some(epoch) => {
                let driver = RunDriver::admitted(runs.parts(), run, head, epoch, owes_result);
                bring_to_life(runs, driver, reservation, held, None).await;
            }
            None if run.phase().is_end() => {}
            None => runs.tell_owner(run.id()),
        }
    }

    /// The run did not become durable, or was so before.
    pub(crate) fn give_up(self, runs: &Arc<Runs>) {
        if self.epoch.is_some() {
            runs.give_up_turn(self.run.id());
        }
    }
}

async fn make_durable(
    runs: &Arc<Runs>,
    run: Run,
    events: Vec<Event>,
    idempotency: Option<IdempotencyKey>,
    held: bool,
    epoch: Epoch,
) -> Result<(Admitted, RunDriver), SubmitError> {
    let new = NewRun::prepare(runs.parts(), run, events, idempotency, held).await?;
    Ok(new.admit(runs.parts(), epoch).await?)
}
