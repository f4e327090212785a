//! One execution of a workflow: asks (`decide`), records (`apply`), owes (`commands`).
//!
//! Never acts, waits or reads a clock: inputs and times come in, events and commands go out. A run that was rebuilt
//! from its events is equal to the one that recorded them, so recovery is "load, then send what is owed". Used by the
//! driver in `actors`.

mod apply;
mod decide;
mod persistent;
mod state;

use std::sync::Arc;

pub use decide::{Decision, Fork, ForkError, MAX_KEPT_SIGNALS, MAX_SIGNAL_BYTES, MAX_SIGNALS};
pub use persistent::{Iter, List};
pub use state::{ItemState, ItemStatus, KeptSignal, Owed, Pause, Phase, RunFailure, State, StepState, StepStatus};

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

/// One item that waits without owing a call.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'r> {
    /// The item, with its attempt.
    pub call: CallId,
    /// The signal that it waits for; none for a time.
    pub signal: Option<&'r str>,
    /// When the wait, or the patience for the signal, ends.
    pub until: Option<Timestamp>,
    /// What the step evaluated; for a signal, what is to be shown to whoever sends it.
    pub with: &'r Value,
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

    /// Whether the run stands still by request.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state.paused.is_some()
    }

    /// Everything that is owed, calls first in the order in which they came to be owed. A paused run owes nothing
    /// but its deadline.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        let calls = self.calls_after(0).map(|(_, command)| command);
        let wakes = self.wakes().map(|(at, id)| Command::Wake { id, at });
        calls.chain(wakes).collect()
    }

    /// Everything that the run waits for without owing a call, at most `most` of them: for each item when its wait
    /// ends and, where it is a signal, the signal's name and what is to be shown to whoever sends it.
    pub fn waits(&self, most: usize) -> Vec<Waiting<'_>> {
        let listening = self.state.listening.keys().copied();
        let timed = self.state.owed.wakes.keys().filter_map(|(_, id)| match id {
            CommandId::Wait(call) if !self.state.listening.contains(call) => Some(*call),
            _ => None,
        });
        timed.chain(listening).filter_map(|call| self.waiting(call)).take(most).collect()
    }

    fn waiting(&self, call: CallId) -> Option<Waiting<'_>> {
        let step = self.workflow.steps.get(call.step.as_usize())?;
        let item = self.state.steps.get(call.step.as_usize())?.items.get(call.item as usize)?;
        let ItemStatus::Waiting(until) = item.status else { return None };
        let signal = match &step.call {
            Call::Signal { name, .. } => Some(&**name),
            _ => None,
        };
        Some(Waiting { call, signal, until, with: &item.with })
    }

    /// The calls that came to be owed after the `after`-th one of this run's life, with their serial numbers. A
    /// driver keeps the last serial that it sent; after a crash it begins with 0, and nothing counts as sent.
    /// While the run is paused there are none: what was not sent before is sent when it goes on.
    pub fn calls_after(&self, after: u64) -> impl Iterator<Item = (u64, Command)> + '_ {
        let calls = self.state.owed.calls.range(after + 1..).filter(|_| !self.is_paused());
        calls.map(|(serial, call)| (*serial, self.command(*call)))
    }

    /// Whether this call's attempt is still owed.
    #[must_use]
    pub fn owes(&self, call: CallId) -> bool {
        self.state.owed.serials.contains(&call)
    }

    /// Number of calls owed.
    #[must_use]
    pub fn calls_owed(&self) -> usize {
        self.state.owed.calls.len()
    }

    /// The earliest time at which the run wants to be woken.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.wakes().next().map(|(at, _)| at)
    }

    /// While the run is paused only its own time goes on.
    fn wakes(&self) -> impl Iterator<Item = (Timestamp, CommandId)> + '_ {
        let paused = self.is_paused();
        self.state.owed.wakes.keys().filter(move |(_, id)| !paused || *id == DEADLINE).copied()
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
            (Call::Http { .. }, _) => Work::Http { with },
            (Call::Model { model, .. }, _) => Work::Model { model: model.clone(), with },
            // Never owed: pure calls are carried out by `decide` itself, and a wait is no call.
            (
                Call::Prompt { .. }
                | Call::Transform { .. }
                | Call::Parse { .. }
                | Call::Wait { .. }
                | Call::Signal { .. },
                _,
            ) => Work::VectorQuery { with },
        };
        // The timeout of a signal step is its patience for the signal, and has nothing to say about its fallback.
        let timeout = step.timeout.filter(|_| !matches!(step.call, Call::Signal { .. }));
        Command::Call { id: call, work, timeout }
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
