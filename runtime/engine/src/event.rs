//! Facts about a run, in the order in which they became true; the journal holds nothing else.
//!
//! Kinds and fields are only ever added, never renamed or removed, since runs outlive binaries. Used by the run,
//! which decides and applies them, by the store's codec and by everyone who shows a run's history.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::Principal;
use crate::failure::Failure;
use crate::id::{CallId, Name, Namespace, RunId, StepIndex};
use crate::stream::Source;
use crate::time::Timestamp;
use crate::trace::TraceContext;
use crate::value::Value;

/// What was asked for when a run was submitted.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Submission {
    /// Tenant.
    pub namespace: Namespace,
    /// Who asked.
    pub principal: Principal,
    /// Workflow by name.
    pub workflow: Name,
    /// Version that the run is pinned to.
    pub version: String,
    /// Checked against the workflow's input schema.
    pub input: Value,
    /// Labels for finding the run again.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Higher goes first where calls wait for a model; 0 is normal.
    #[serde(default)]
    pub priority: i8,
    /// The operation that the run is part of.
    pub trace: TraceContext,
    /// When it was submitted.
    pub at: Timestamp,
    /// The record that began it, when one did. Written even where there is none: snapshots have no names of fields.
    #[serde(default)]
    pub source: Option<Arc<Source>>,
}

/// One step of a fork that does not run again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptStep {
    /// The step.
    pub step: StepIndex,
    /// Whether it was skipped, so that its output is null.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Whether the output is the fallback's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fallback: bool,
    /// Whether the output was given with the fork instead of taken over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
}

/// One recorded fact.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The run exists.
    Submitted(Arc<Submission>),
    /// The step will not run: its condition is false, or it needs a skipped step and has no condition.
    StepSkipped {
        /// The step.
        step: StepIndex,
    },
    /// The list of a `for_each` was evaluated.
    StepExpanded {
        /// The step.
        step: StepIndex,
        /// The elements, in order.
        items: Value,
    },
    /// The inputs of a call were evaluated; its first attempt is owed.
    CallScheduled {
        /// The call.
        call: CallId,
        /// The evaluated inputs; never evaluated again.
        with: Value,
    },
    /// An attempt failed.
    AttemptFailed {
        /// The call.
        call: CallId,
        /// Why.
        failure: Failure,
        /// When the next attempt begins; none when there is no next one on the same target.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
    },
    /// The wait is over; the next attempt is owed with the recorded inputs.
    CallRetried {
        /// The call, with its new attempt.
        call: CallId,
    },
    /// The step's own model gave up; the next attempt goes to the fallback model.
    FellBack {
        /// The call, with its new attempt.
        call: CallId,
        /// Other inputs, when the fallback has its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        with: Option<Value>,
    },
    /// One item of a `for_each` has its output.
    ItemSucceeded {
        /// The step.
        step: StepIndex,
        /// The item's place in the list.
        item: u32,
        /// Its output.
        output: Value,
        /// Whether the output is the fallback's.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        fallback: bool,
    },
    /// The step has its output.
    StepSucceeded {
        /// The step.
        step: StepIndex,
        /// The output; none where that of each item was recorded by itself, as for a `for_each` and for a wait.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Value>,
        /// Whether the output is the fallback's.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        fallback: bool,
    },
    /// The step failed for good.
    StepFailed {
        /// The step.
        step: StepIndex,
        /// The item that failed, for a `for_each`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// Why.
        failure: Failure,
    },
    /// The run ended with an output.
    RunSucceeded {
        /// The output; none stands for the map of every step's output by name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Value>,
    },
    /// The run ended with a failure.
    RunFailed {
        /// The step that failed, when it was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepIndex>,
        /// Why.
        failure: Failure,
    },
    /// The run ended by request.
    RunCancelled {
        /// Who asked.
        by: Principal,
        /// Why, in the words of who asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The run ended because its time was over.
    RunTimedOut,
    /// An item waits for a time or for a signal; no call is owed.
    WaitBegan {
        /// The item, with its attempt.
        call: CallId,
        /// What was evaluated: for a time its `until`, for a signal what is shown to whoever is to send it. Never
        /// evaluated again.
        with: Value,
        /// When the wait, or the patience for the signal, ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// The time that an item waited for has come; its output is the recorded `with`.
    WaitEnded {
        /// The item.
        call: CallId,
    },
    /// A signal came; it is kept until a step takes it.
    SignalReceived {
        /// Name under which steps wait for it.
        name: Arc<str>,
        /// What it says.
        payload: Value,
        /// The sender's id of it.
        id: Arc<str>,
        /// Who sent it.
        by: Principal,
    },
    /// An item took a kept signal; its output is the payload.
    SignalTaken {
        /// The item.
        call: CallId,
        /// The sender's id of the signal.
        id: Arc<str>,
    },
    /// The run stands still: nothing new begins.
    Paused {
        /// Who asked.
        by: Principal,
        /// Why, in the words of who asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The run goes on.
    Resumed {
        /// Who asked.
        by: Principal,
    },
    /// A run that had ended goes on, with its whole time before it.
    RunRetried {
        /// Who asked.
        by: Principal,
        /// The steps that went back to pending; every other one keeps what it has.
        steps: Vec<StepIndex>,
    },
    /// The run begins from a step of another one; recorded directly after the submission.
    Forked {
        /// The other run.
        from: RunId,
        /// Who asked.
        by: Principal,
        /// The step.
        step: StepIndex,
        /// The steps that do not run again.
        kept: Vec<KeptStep>,
        /// Their outputs, a list in the same order.
        outputs: Value,
    },
    /// Those before the run in its order have left it: it begins.
    LineReached,
    /// A run that had ended without success gave its place in an order up, so that the next one goes on.
    LineLeft {
        /// Who asked.
        by: Principal,
    },
}

impl Event {
    /// The name under which histories show the event.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Submitted(_) => "submitted",
            Self::StepSkipped { .. } => "step_skipped",
            Self::StepExpanded { .. } => "step_expanded",
            Self::CallScheduled { .. } => "call_scheduled",
            Self::AttemptFailed { .. } => "attempt_failed",
            Self::CallRetried { .. } => "call_retried",
            Self::FellBack { .. } => "fell_back",
            Self::ItemSucceeded { .. } => "item_succeeded",
            Self::StepSucceeded { .. } => "step_succeeded",
            Self::StepFailed { .. } => "step_failed",
            Self::RunSucceeded { .. } => "run_succeeded",
            Self::RunFailed { .. } => "run_failed",
            Self::RunCancelled { .. } => "run_cancelled",
            Self::RunTimedOut => "run_timed_out",
            Self::WaitBegan { .. } => "wait_began",
            Self::WaitEnded { .. } => "wait_ended",
            Self::SignalReceived { .. } => "signal_received",
            Self::SignalTaken { .. } => "signal_taken",
            Self::Paused { .. } => "paused",
            Self::Resumed { .. } => "resumed",
            Self::RunRetried { .. } => "retried",
            Self::Forked { .. } => "forked",
            Self::LineReached => "line_reached",
            Self::LineLeft { .. } => "line_left",
        }
    }

    /// The step that the event is about.
    #[must_use]
    pub fn step(&self) -> Option<StepIndex> {
        match self {
            Self::StepSkipped { step }
            | Self::StepExpanded { step, .. }
            | Self::ItemSucceeded { step, .. }
            | Self::StepSucceeded { step, .. }
            | Self::StepFailed { step, .. }
            | Self::Forked { step, .. } => Some(*step),
            Self::CallScheduled { call, .. }
            | Self::AttemptFailed { call, .. }
            | Self::CallRetried { call }
            | Self::FellBack { call, .. }
            | Self::WaitBegan { call, .. }
            | Self::WaitEnded { call }
            | Self::SignalTaken { call, .. } => Some(call.step),
            Self::RunFailed { step, .. } => *step,
            Self::Submitted(_)
            | Self::RunSucceeded { .. }
            | Self::RunCancelled { .. }
            | Self::RunTimedOut
            | Self::SignalReceived { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. }
            | Self::RunRetried { .. }
            | Self::LineReached
            | Self::LineLeft { .. } => None,
        }
    }

    /// Whether a run that holds a place in an order has none after this event: it succeeded, was cancelled, or was
    /// let go on purpose. One that failed or ran out of time keeps its place.
    #[must_use]
    pub fn leaves_line(&self) -> bool {
        matches!(self, Self::RunSucceeded { .. } | Self::RunCancelled { .. } | Self::LineLeft { .. })
    }

    /// The value that the event carries, so that a large one can be kept elsewhere and put back.
    pub fn value_mut(&mut self) -> Option<&mut Value> {
        match self {
            Self::Submitted(submission) => Some(&mut Arc::make_mut(submission).input),
            Self::StepExpanded { items, .. } => Some(items),
            Self::CallScheduled { with, .. } | Self::WaitBegan { with, .. } => Some(with),
            Self::SignalReceived { payload, .. } => Some(payload),
            Self::Forked { outputs, .. } => Some(outputs),
            Self::FellBack { with, .. } => with.as_mut(),
            Self::ItemSucceeded { output, .. } => Some(output),
            Self::StepSucceeded { output, .. } | Self::RunSucceeded { output } => output.as_mut(),
            _ => None,
        }
    }

    /// The value that the event carries.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Submitted(submission) => Some(&submission.input),
            Self::StepExpanded { items, .. } => Some(items),
            Self::CallScheduled { with, .. } | Self::WaitBegan { with, .. } => Some(with),
            Self::SignalReceived { payload, .. } => Some(payload),
            Self::Forked { outputs, .. } => Some(outputs),
            Self::FellBack { with, .. } => with.as_ref(),
            Self::ItemSucceeded { output, .. } => Some(output),
            Self::StepSucceeded { output, .. } | Self::RunSucceeded { output } => output.as_ref(),
            _ => None,
        }
    }
}
