//! One execution of a workflow: asks (`decide`), records (`apply`), owes (`commands`).
//!
//! Never acts, waits or reads a clock: inputs and times come in, events and commands go out. A run that was rebuilt
//! from its events is equal to the one that recorded them, so recovery is "load, then send what is owed". Used by the
//! driver in `actors`.

mod apply;
mod decide;
mod state;

use std::sync::Arc;

pub use state::{ItemState, ItemStatus, Owed, Phase, RunFailure, State, StepState, StepStatus};

use crate::command::{Command, CommandId, Work};
use crate::definition::{Call, Fallback, Workflow};
use crate::event::{Event, Submission};
use crate::id::{CallId, RunId, Seq};
use crate::time::Timestamp;
use crate::value::{Map, Value};

/// A run: identity, pinned workflow, and the state that its events have led to.
#[derive(Clone, Debug)]
pub struct Run {
    id: RunId,
    workflow: Arc<Workflow>,
    state: State,
}

/// Why events do not make a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The first event is not the submission.
    #[error("the first event of {0} is not its submission")]
    NotSubmitted(RunId),
    /// A snapshot was made with another number of steps than the workflow has.
    #[error("the snapshot of {0} does not fit its workflow")]
    Mismatch(RunId),
}

impl Run {
    /// The run after its first event.
    ///
    /// # Errors
    /// When the event is not the submission.
    pub fn begin(id: RunId, workflow: Arc<Workflow>, first: &Event, at: Timestamp) -> Result<Self, ReplayError> {
        let Event::Submitted(submission) = first else { return Err(ReplayError::NotSubmitted(id)) };
        let state = State::new(Arc::clone(submission), &workflow, at);
        Ok(Self { id, workflow, state })
    }

    /// The run that a snapshot holds.
    ///
    /// # Errors
    /// When the snapshot does not fit the workflow.
    pub fn restore(id: RunId, workflow: Arc<Workflow>, state: State) -> Result<Self, ReplayError> {
        if state.steps.len() != workflow.steps.len() {
            return Err(ReplayError::Mismatch(id));
        }
        Ok(Self { id, workflow, state })
    }

    /// Identity of the run.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.id
    }

    /// The definition that the run is pinned to.
    #[must_use]
    pub fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    /// What was asked for.
    #[must_use]
    pub fn submission(&self) -> &Submission {
        &self.state.submission
    }

    /// Everything that the events have led to, for snapshots and views.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Number of the last applied event.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.state.seq
    }

    /// Where the run stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.phase
    }

    /// Everything that is owed, calls first in the order in which they came to be owed.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        let calls = self.state.owed.calls.values().map(|call| self.command(*call));
        let wakes = self.state.owed.wakes.iter().map(|(at, id)| Command::Wake { id: *id, at: *at });
        calls.chain(wakes).collect()
    }

    /// The calls that came to be owed after the `after`-th one of this run's life, with their serial numbers. A
    /// driver keeps the last serial that it sent; after a crash it begins with 0, and nothing counts as sent.
    pub fn calls_after(&self, after: u64) -> impl Iterator<Item = (u64, Command)> + '_ {
        self.state.owed.calls.range(after + 1..).map(|(serial, call)| (*serial, self.command(*call)))
    }

    /// Whether this call's attempt is still owed.
    #[must_use]
    pub fn owes(&self, call: CallId) -> bool {
        self.state.owed.serials.contains_key(&call)
    }

    /// Number of calls owed.
    #[must_use]
    pub fn calls_owed(&self) -> usize {
        self.state.owed.calls.len()
    }

    /// The earliest time at which the run wants to be woken.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.state.owed.wakes.iter().next().map(|(at, _)| *at)
    }

    /// The run's output once it succeeded: what the definition says, or every step's output by name.
    #[must_use]
    pub fn output(&self) -> Option<Value> {
        if self.state.phase != Phase::Succeeded {
            return None;
        }
        Some(self.state.output.clone().unwrap_or_else(|| {
            let outputs = self.workflow.steps.iter().zip(&self.state.steps);
            outputs.map(|(step, state)| (Arc::clone(&step.name), state.output.clone())).collect::<Map>().into()
        }))
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.workflow.timeout.map(|span| self.state.submission.at.after(span))
    }

    fn command(&self, call: CallId) -> Command {
        let step = &self.workflow.steps[call.step.as_usize()];
        let item = &self.state.steps[call.step.as_usize()].items[call.item as usize];
        let with = item.with.clone();
        let work = match (&step.call, &step.fallback) {
            (_, Some(Fallback::Model { model, .. })) if item.on_fallback() => {
                Work::Model { model: model.clone(), with }
            }
            (Call::VectorQuery { .. }, _) => Work::VectorQuery { with },
            (Call::VectorUpsert { .. }, _) => Work::VectorUpsert { with },
            (Call::Model { model, .. }, _) => Work::Model { model: model.clone(), with },
            // Pure calls are never owed; `decide` carries them out itself.
            (Call::Prompt { .. } | Call::Transform { .. } | Call::Parse { .. }, _) => Work::VectorQuery { with },
        };
        Command::Call { id: call, work, timeout: step.timeout }
    }
}

impl PartialEq for Run {
    /// Equal identity and equal state; the workflow follows from the submission.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.state == other.state
    }
}

/// Identity of the wake-up that ends the run.
pub(crate) const DEADLINE: CommandId = CommandId::Deadline;
