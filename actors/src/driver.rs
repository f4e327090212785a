//! The order of durability of one run, in one place: decide, append, apply, dispatch.
//!
//! Knows neither ractor nor tokio. Nothing is sent for a run before the events that owe it are durable, and after a
//! crash nothing counts as sent, so recovery is "load, then send what is owed". Used by the run actor and, for
//! admission, by the router.

mod journal;
mod results;

use std::sync::Arc;

use motet_engine::command::Command;
use motet_engine::event::Submission;
use motet_engine::id::{CallId, Epoch, RunId, Seq};
use motet_engine::input::{Input, Rejection};
use motet_engine::run::{Decision, Phase, ReplayError, Run, State};
use motet_engine::time::Timestamp;
use motet_store::StoreError;
use motet_store::codec::{self, CodecError};
use motet_store::port::{
    Admission, Admitted, Append, Entry, HeadChange, HeadState, IdempotencyKey, Snapshot, Store, StoredRun,
};

pub use journal::{decode_events, encode_events};

use crate::catalog::{Catalog, CatalogError};
use crate::ports::Clock;

/// Schema version of the snapshots that this binary writes; others are dropped and rebuilt from the journal.
const SNAPSHOT_SCHEMA: u32 = 3;

/// A snapshot is written when this many events follow the last one.
const SNAPSHOT_EVENTS: u64 = 64;

/// Why a driver cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DriverError {
    /// The input changes nothing; the run stands as it stood.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the journal holds cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The journal does not make a run.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The run's definition is not to be had.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The run does not exist.
    #[error("{0} does not exist")]
    Unknown(RunId),
}

/// A run on its way into the store.
#[derive(Debug)]
pub struct NewRun {
    run: Run,
    admission: Admission,
}

impl NewRun {
    /// Prepares what admits a run: everything that follows from the submission at once is in its first entry. A run
    /// that is `held` waits for its turn: what it owes is not sent yet.
    ///
    /// # Errors
    /// When the events cannot be encoded or their large values not be stored.
    pub async fn prepare(
        parts: &DriverParts,
        run: Run,
        events: Vec<motet_engine::event::Event>,
        idempotency: Option<IdempotencyKey>,
        held: bool,
    ) -> Result<Self, DriverError> {
        let submission: &Submission = run.submission();
        let (namespace, workflow) = (submission.namespace.clone(), submission.workflow.clone());
        let (version, tags, at) = (submission.version.clone(), submission.tags.clone(), submission.at);
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let outbox = results::owed(parts, None, &run).await?;
        let payload = encode_events(&*parts.store, run.id(), events).await?;
        let entry = Entry { seq: Seq(1), count, at, payload };
        let head = head_of(&run, held);
        let run_id = run.id();
        Ok(Self {
            run,
            admission: Admission {
                run: run_id,
                namespace,
                workflow,
                version,
                tags,
                entry,
                head,
                idempotency,
                outbox,
                line: None,
            },
        })
    }

    /// The run, the head that it will have, and what makes it durable, for whoever writes many together.
    #[must_use]
    pub fn into_parts(self) -> (Run, HeadChange, Admission) {
        (self.run, self.admission.head, self.admission)
    }

    /// The run as it will stand.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Whether the run ends as it is admitted and its result is to be sent.
    #[must_use]
    pub fn owes_result(&self) -> bool {
        !self.admission.outbox.is_empty()
    }

    /// Makes the run durable for another node to carry on.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn admit_only(self, store: &dyn Store) -> Result<Admitted, StoreError> {
        store.admit(self.admission).await
    }

    /// Makes the run durable. Only a run that is new comes back with its driver.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn admit(self, parts: &DriverParts, epoch: Epoch) -> Result<(Admitted, RunDriver), StoreError> {
        let (head, owes_result) = (self.admission.head, self.owes_result());
        let admitted = parts.store.admit(self.admission).await?;
        Ok((admitted, RunDriver::admitted(parts, self.run, head, epoch, owes_result)))
    }
}

/// What every driver of a node shares.
#[derive(Clone)]
pub struct DriverParts {
    /// Where runs are remembered.
    pub store: Arc<dyn Store>,
    /// Where definitions come from.
    pub catalog: Arc<Catalog>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// One run, the epoch under which it may be written, and what was sent for it.
pub struct RunDriver {
    parts: DriverParts,
    run: Run,
    epoch: Epoch,
    head: HeadChange,
    held: bool,
    sent: u64,
    snapshot: Seq,
    owes_result: bool,
}

impl RunDriver {
    /// The driver of a run that has just become durable, with this head; `owes_result` when it ended with that and left
    /// a result in the outbox.
    #[must_use]
    pub fn admitted(parts: &DriverParts, run: Run, head: HeadChange, epoch: Epoch, owes_result: bool) -> Self {
        Self { parts: parts.clone(), run, epoch, head, held: false, sent: 0, snapshot: Seq(0), owes_result }
    }

    /// Brings a run back from the store.
    ///
    /// # Errors
    /// When it does not exist or cannot be rebuilt.
    pub async fn recover(parts: &DriverParts, run: RunId, epoch: Epoch) -> Result<Self, DriverError> {
        let (run, head, snapshot) = load(parts, run).await?;
        Ok(Self { parts: parts.clone(), run, epoch, head, held: false, sent: 0, snapshot, owes_result: false })
    }

    /// Whether what this driver wrote left a result in the outbox.
    #[must_use]
    pub fn owes_result(&self) -> bool {
        self.owes_result
    }

    /// Says whether the run waits for its turn: its head row then says so too.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// The epoch under which the run is written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the run waits for its turn.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Whether the run was worked on before; one that waits for its first turn was not.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.head.state != HeadState::Pending
    }

    /// The run as it stands.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Decides about an input, makes the consequences durable, and only then applies them.
    ///
    /// # Errors
    /// [`DriverError::Rejected`] leaves everything as it was. After any other error the outcome is unknown and the
    /// driver must be dropped: a new one recovers from what is durable.
    pub async fn handle(&mut self, input: &Input) -> Result<(), DriverError> {
        let now = self.parts.clock.now();
        let Decision { events, run: next } = self.run.decide(input, now)?;
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let seq = Seq(self.run.seq().0 + 1);
        let head = head_of(&next, self.held);
        let outbox = results::owed(&self.parts, Some(&self.run), &next).await?;
        let owes_result = !outbox.is_empty();
        let payload = encode_events(&*self.parts.store, self.run.id(), events).await?;
        let append = Append {
            run: self.run.id(),
            epoch: self.epoch,
            incarnation: None,
            entry: Entry { seq, count, at: now, payload },
            head: (head != self.head).then_some(head),
            outbox,
        };
        self.parts.store.append(append).await?;
        self.owes_result |= owes_result;
        self.run = next;
        self.head = head;
        if !self.run.phase().is_end() && self.run.seq().0 - self.snapshot.0 >= SNAPSHOT_EVENTS {
            self.save_snapshot().await;
        }
        Ok(())
    }

    /// The calls that are owed and were not taken from this driver before.
    pub fn take_unsent(&mut self) -> Vec<Command> {
        let mut commands = vec![];
        for (serial, command) in self.run.calls_after(self.sent) {
            self.sent = serial;
            commands.push(command);
        }
        commands
    }

    /// Whether a call that was sent is still of use.
    #[must_use]
    pub fn owes(&self, call: CallId) -> bool {
        self.run.owes(call)
    }

    /// Writes a snapshot, so that the run comes back quickly. A failure costs only time later.
    pub async fn save_snapshot(&mut self) {
        let seq = self.run.seq();
        if seq == self.snapshot {
            return;
        }
        let saved = match codec::encode_disposable(self.run.state()) {
            Ok(state) => {
                let snapshot = Snapshot { seq, schema: SNAPSHOT_SCHEMA, state };
                self.parts.store.save_snapshot(self.run.id(), self.epoch, snapshot).await.map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match saved {
            Ok(()) => self.snapshot = seq,
            Err(reason) => tracing::debug!(run = %self.run.id(), reason, "no snapshot was written"),
        }
    }
}

/// Reads a run without the right to change it, for answers to users.
///
/// # Errors
/// When it does not exist or cannot be rebuilt.
pub async fn read_run(parts: &DriverParts, run: RunId) -> Result<Run, DriverError> {
    Ok(load(parts, run).await?.0)
}

async fn load(parts: &DriverParts, id: RunId) -> Result<(Run, HeadChange, Seq), DriverError> {
    let stored = parts.store.load(id, false).await?.ok_or(DriverError::Unknown(id))?;
    let head = HeadChange { state: stored.head.state, wake_at: stored.head.wake_at, leaves_line: false };
    let workflow =
        parts.catalog.workflow(&stored.head.namespace, &stored.head.workflow, Some(&stored.head.version)).await?;
    if let Some(snapshot) = &stored.snapshot {
        let state = (snapshot.schema == SNAPSHOT_SCHEMA)
            .then(|| codec::decode_disposable::<State>(&snapshot.state).ok())
            .flatten();
        if let Some(Ok(run)) = state.map(|state| Run::restore(id, Arc::clone(&workflow), state)) {
            let seq = run.seq();
            return Ok((replay(parts, Some(run), id, &workflow, &stored).await?, head, seq));
        }
        tracing::warn!(run = %id, schema = snapshot.schema, "unreadable snapshot dropped; the journal is read instead");
        let whole = parts.store.load(id, true).await?.ok_or(DriverError::Unknown(id))?;
        return Ok((replay(parts, None, id, &workflow, &whole).await?, head, Seq(0)));
    }
    Ok((replay(parts, None, id, &workflow, &stored).await?, head, Seq(0)))
}

async fn replay(
    parts: &DriverParts,
    mut run: Option<Run>,
    id: RunId,
    workflow: &Arc<motet_engine::definition::Workflow>,
    stored: &StoredRun,
) -> Result<Run, DriverError> {
    for entry in &stored.entries {
        for event in decode_events(&*parts.store, &entry.payload).await? {
            match &mut run {
                Some(run) => run.apply(&event, entry.at),
                None => run = Some(Run::begin(id, Arc::clone(workflow), &event, entry.at)?),
            }
        }
    }
    run.ok_or(DriverError::Unknown(id))
}

/// The state that a run's head row has or will have, and that users see; one that is `held` waits for its turn.
#[must_use]
pub fn head_state(run: &Run, held: bool) -> HeadState {
    match run.phase() {
        Phase::Active if run.is_paused() => HeadState::Paused,
        Phase::Active if run.state().in_line => HeadState::Pending,
        Phase::Active if run.calls_owed() > 0 && held => HeadState::Pending,
        Phase::Active if run.calls_owed() > 0 => HeadState::Running,
        Phase::Active => HeadState::Waiting,
        Phase::Succeeded => HeadState::Succeeded,
        Phase::Failed => HeadState::Failed,
        Phase::Cancelled => HeadState::Cancelled,
        Phase::TimedOut => HeadState::TimedOut,
    }
}

/// The head row that belongs to a run's state. Rows wake what has no actor: of a paused run that is its deadline.
fn head_of(run: &Run, held: bool) -> HeadChange {
    let state = head_state(run, held);
    let by_row = matches!(state, HeadState::Pending | HeadState::Waiting | HeadState::Paused);
    let wake_at: Option<Timestamp> = if by_row { run.next_wake() } else { None };
    HeadChange { state, wake_at, leaves_line: run.state().line_left }
}
