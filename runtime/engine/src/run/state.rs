//! What a run's events have led to: plain data, cheap to clone, kept in snapshots.
//!
//! Changed by `apply` alone. Large collections are persistent, so that `decide` can try events on a copy.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::DEADLINE;
use super::persistent::{List, Map};
use crate::access::Principal;
use crate::command::CommandId;
use crate::definition::Workflow;
use crate::event::Submission;
use crate::failure::Failure;
use crate::id::{CallId, RunId, Seq, StepIndex};
use crate::time::Timestamp;
use crate::value::Value;

/// Where a run stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Steps are owed or waited for.
    Active,
    /// Ended with an output.
    Succeeded,
    /// Ended with a failure.
    Failed,
    /// Ended by request.
    Cancelled,
    /// Ended because its time was over.
    TimedOut,
}

impl Phase {
    /// Whether nothing can happen any more.
    #[must_use]
    pub fn is_end(self) -> bool {
        self != Self::Active
    }
}

/// Why a run failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunFailure {
    /// The step that failed, when it was one.
    pub step: Option<StepIndex>,
    /// Why.
    pub failure: Failure,
}

/// Where a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Its needs have not ended.
    Pending,
    /// Calls are owed or will be.
    Active,
    /// It will not run.
    Skipped,
    /// It has its output.
    Succeeded,
    /// It failed for good.
    Failed,
}

impl StepStatus {
    /// The name that users see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "running",
            Self::Skipped => "skipped",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// Where one item's call stands; a step without `for_each` has one item.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ItemStatus {
    /// Its inputs have not been evaluated.
    Pending,
    /// Its present attempt is owed.
    Owed,
    /// The next attempt begins at this time.
    Backoff(Timestamp),
    /// It waits for this time, or for a signal and at most until this time; without one, for as long as it takes.
    Waiting(Option<Timestamp>),
    /// Its last attempt failed; fallback or failure is next.
    Exhausted,
    /// It has its output.
    Done,
}

/// One item of a step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ItemState {
    /// Where its call stands.
    pub status: ItemStatus,
    /// The element of the list; null without `for_each`.
    pub element: Value,
    /// The evaluated inputs.
    pub with: Value,
    /// The present attempt, counted from 1; 0 before the first.
    pub attempt: u32,
    /// The first attempt since the run was last retried; 0 before it.
    pub first: u32,
    /// The first attempt that went to the fallback model; 0 while none did.
    pub fallback_from: u32,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
    /// The output.
    pub output: Value,
}

impl ItemState {
    pub(super) fn new(element: Value) -> Self {
        Self {
            status: ItemStatus::Pending,
            element,
            with: Value::Null,
            attempt: 0,
            first: 0,
            fallback_from: 0,
            failure: None,
            output: Value::Null,
        }
    }

    /// Whether the present attempt goes to the fallback model.
    #[must_use]
    pub fn on_fallback(&self) -> bool {
        self.fallback_from > 0
    }

    /// Attempts made on the present target since the run was last retried.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.attempt + 1 - self.fallback_from.max(self.first).max(1)
    }
}

/// One step of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StepState {
    /// Where it stands.
    pub status: StepStatus,
    /// Its items; one without `for_each`, none while it is pending.
    pub items: List<ItemState>,
    /// Items whose inputs were evaluated: always the first ones.
    pub scheduled: u32,
    /// Items that have their outputs.
    pub done: u32,
    /// Items whose last attempt failed and which neither fell back nor failed the step yet.
    pub exhausted: imbl::Vector<u32>,
    /// The output; null while there is none and for a skipped step.
    pub output: Value,
    /// Whether the output is the fallback's.
    pub fallback: bool,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When its first inputs were evaluated.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The highest attempt of any item before the run was last retried: numbers go on from there.
    pub attempts_before: u32,
    /// How many attempts all items had together before the run was last retried.
    pub attempts_earlier: u64,
}

impl StepState {
    fn new() -> Self {
        Self {
            status: StepStatus::Pending,
            items: List::default(),
            scheduled: 0,
            done: 0,
            exhausted: imbl::Vector::new(),
            output: Value::Null,
            fallback: false,
            failure: None,
            started_at: None,
            finished_at: None,
            attempts_before: 0,
            attempts_earlier: 0,
        }
    }

    /// The step as it stands when it is to run once more.
    pub(super) fn again(&self) -> Self {
        let highest = self.items.iter().map(|item| item.attempt).max().unwrap_or(0);
        Self { attempts_before: self.attempts_before.max(highest), attempts_earlier: self.attempts(), ..Self::new() }
    }

    /// Attempts of all items together.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        let scheduled = self.items.iter().take(self.scheduled as usize);
        let since: u64 = scheduled.map(|item| u64::from((item.attempt + 1).saturating_sub(item.first.max(1)))).sum();
        self.attempts_earlier + since
    }
}

/// What is owed, kept up to date by `apply` and never rebuilt by a scan.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Owed {
    /// Serial number of the last call that came to be owed.
    pub(super) last: u64,
    /// Calls by serial number.
    pub(super) calls: Map<u64, CallId>,
    /// Serial numbers by call.
    pub(super) serials: Map<CallId, u64>,
    /// Wake-ups, earliest first.
    pub(super) wakes: Map<(Timestamp, CommandId), ()>,
}

impl Owed {
    pub(super) fn add_call(&mut self, call: CallId) {
        self.last += 1;
        self.calls.insert(self.last, call);
        self.serials.insert(call, self.last);
    }

    pub(super) fn remove_call(&mut self, call: CallId) {
        if let Some(serial) = self.serials.remove(&call) {
            self.calls.remove(&serial);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }
}

/// Who holds a run, since when and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pause {
    /// Who asked.
    pub by: Principal,
    /// Why, in the words of who asked.
    pub reason: Option<String>,
    /// Since when.
    pub at: Timestamp,
}

/// A signal that came and that no step has taken yet.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct KeptSignal {
    /// Name under which steps wait for it.
    pub name: Arc<str>,
    /// The sender's id of it.
    pub id: Arc<str>,
    /// What it says.
    pub payload: Value,
    /// When it came.
    pub at: Timestamp,
}

/// Everything that a run's events have led to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Number of the last applied event.
    pub seq: Seq,
    /// What was asked for.
    pub submission: Arc<Submission>,
    /// Where the run stands.
    pub phase: Phase,
    /// The steps in declaration order.
    pub steps: List<StepState>,
    /// What is owed.
    pub owed: Owed,
    /// The output as the definition says; none when it says nothing.
    pub output: Option<Value>,
    /// Why the run failed.
    pub failure: Option<RunFailure>,
    /// Why it was cancelled, in the words of who asked.
    pub reason: Option<String>,
    /// Who holds it; none while it goes on.
    pub paused: Option<Pause>,
    /// When the run's own time is over; none without a timeout.
    pub deadline: Option<Timestamp>,
    /// Signals that no step has taken yet, oldest first.
    pub signals: imbl::Vector<KeptSignal>,
    /// The id of every signal that ever came, so that none counts twice.
    pub(super) signal_ids: Map<Arc<str>, ()>,
    /// What waits for a signal.
    pub(super) listening: Map<CallId, ()>,
    /// The run that this one was forked from.
    pub forked_from: Option<RunId>,
    /// Whether the run holds no place in an order any more.
    pub line_left: bool,
    /// Whether the run waits for those before it in its order: nothing of it begins, not even its own timeout.
    pub in_line: bool,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl State {
    /// Whether the run holds a place in an order: runs after it wait.
    #[must_use]
    pub fn holds_line(&self) -> bool {
        !self.line_left && self.submission.source.as_ref().is_some_and(|source| source.order.is_some())
    }

    pub(super) fn new(submission: Arc<Submission>, workflow: &Workflow, at: Timestamp) -> Self {
        let mut owed = Owed::default();
        let in_line = submission.source.as_ref().is_some_and(|source| source.order.is_some());
        let deadline = workflow.timeout.filter(|_| !in_line).map(|span| at.after(span));
        if let Some(deadline) = deadline {
            owed.wakes.insert((deadline, DEADLINE), ());
        }
        Self {
            seq: Seq(1),
            submission,
            phase: Phase::Active,
            steps: workflow.steps.iter().map(|_| StepState::new()).collect(),
            owed,
            output: None,
            failure: None,
            reason: None,
            paused: None,
            deadline,
            signals: imbl::Vector::new(),
            signal_ids: Map::default(),
            listening: Map::default(),
            forked_from: None,
            line_left: false,
            in_line,
            finished_at: None,
        }
    }
}
