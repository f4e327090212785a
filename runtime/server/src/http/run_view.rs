//! A run as users read it.
//!
//! Written straight from the run's state: values are never copied into another tree. Used by `runs`, and by the
//! command line where it embeds a node.

use motet_actors::driver::head_state;
use motet_engine::definition::Workflow;
use motet_engine::event::Submission;
use motet_engine::failure::Failure;
use motet_engine::id::RunId;
use motet_engine::run::{ItemStatus, Phase, Run, StepState, StepStatus, Waiting};
use motet_engine::time::Timestamp;
use motet_engine::value::Value;
use motet_store::port::{HeadState, RunHead};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::run_source::SourceView;

/// A run as it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
pub struct RunView<'a> {
    /// Identity.
    #[serde(serialize_with = "shown")]
    #[schema(value_type = String, examples("run_01k7z3v6h40t5r8w9x0y1z2a3b"))]
    id: RunId,
    /// Tenant.
    namespace: &'a str,
    /// Workflow by name.
    workflow: &'a str,
    /// Version that the run is pinned to.
    version: &'a str,
    /// `pending`, `running`, `waiting`, `paused`, or an end: `succeeded`, `failed`, `cancelled`, `timed_out`.
    #[schema(value_type = RunState)]
    state: &'static str,
    /// What the run was started with.
    #[schema(value_type = serde_json::Value)]
    input: &'a Value,
    /// What it gave; null until it succeeded.
    #[schema(value_type = serde_json::Value)]
    output: Option<Output<'a>>,
    /// Why it did not succeed; null otherwise.
    #[schema(required)]
    error: Option<ErrorView<'a>>,
    /// Its steps by name.
    #[schema(value_type = std::collections::BTreeMap<String, StepView<'_>>)]
    steps: Steps<'a>,
    /// What it waits for without owing a call, at most 100.
    waits_for: Vec<WaitView<'a>>,
    /// Who holds it; null while it goes on.
    #[schema(required)]
    paused: Option<PauseView<'a>>,
    /// The record that began it; null where none did.
    #[schema(required)]
    source: Option<SourceView<'a>>,
    /// The run that it was forked from.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "maybe_shown")]
    #[schema(value_type = Option<String>)]
    forked_from: Option<RunId>,
    /// Labels.
    tags: &'a [String],
    /// Higher goes first where calls wait for a model.
    priority: i8,
    /// When it was submitted.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ended; null until then.
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    finished_at: Option<Timestamp>,
}

/// Waits of one run that are shown.
const MAX_WAITS: usize = 100;

/// What one item of a step waits for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WaitingFor)]
pub(crate) struct WaitView<'a> {
    /// The step.
    pub(crate) step: &'a str,
    /// The item of a `for_each`, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) item: Option<u32>,
    /// The signal that it waits for; null for a time.
    #[schema(required)]
    pub(crate) signal: Option<&'a str>,
    /// When the wait, or the patience for the signal, ends; null where it lasts as long as it takes.
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub(crate) until: Option<Timestamp>,
    /// What is shown to whoever is to send the signal: the step's `with`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub(crate) asks: Option<&'a Value>,
}

impl<'a> WaitView<'a> {
    /// How a wait is shown.
    pub(crate) fn new(run: &'a Run, wait: Waiting<'a>) -> Self {
        let step = run.workflow().steps.get(wait.call.step.as_usize());
        Self {
            step: step.map_or("?", |step| &*step.name),
            item: step.and_then(|step| step.for_each.as_ref()).map(|_| wait.call.item),
            signal: wait.signal,
            until: wait.until,
            asks: wait.signal.map(|_| wait.with),
        }
    }
}

/// Who holds a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pause)]
pub(crate) struct PauseView<'a> {
    /// Who asked for it.
    by: String,
    /// Why, in the words of whoever asked.
    #[schema(required)]
    reason: Option<&'a str>,
    /// Since when.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
}

/// States of a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "the names of states for the API's description; the store's table is what is shown")]
pub(crate) enum RunState {
    /// Admitted, nothing begun.
    Pending,
    /// Calls are owed.
    Running,
    /// Only a later time or a signal is waited for.
    Waiting,
    /// Stopped by an operator.
    Paused,
    /// Ended with an output.
    Succeeded,
    /// Ended with a failure.
    Failed,
    /// Ended by request.
    Cancelled,
    /// Ended by its own timeout.
    TimedOut,
}

/// Why a run or a step did not succeed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Failure)]
pub(crate) struct ErrorView<'a> {
    /// `unavailable`, `timeout`, `rate_limited`, `overloaded`, `internal`, `invalid`, `denied`, `not_found`, or
    /// `cancelled`.
    class: &'a str,
    /// What happened, for people.
    message: &'a str,
    /// The step that failed, when it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
}

/// A step of a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Step)]
pub(crate) struct StepView<'a> {
    /// `pending`, `running`, `waiting`, `skipped`, `succeeded` or `failed`.
    state: &'static str,
    /// What it gave.
    #[schema(value_type = serde_json::Value)]
    output: &'a Value,
    /// Why it failed.
    #[schema(required)]
    error: Option<ErrorView<'a>>,
    /// Attempts of all its items together.
    attempts: u64,
    /// Whether the output is the fallback's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fallback: bool,
    /// When its first inputs were evaluated.
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    finished_at: Option<Timestamp>,
    /// How far a `for_each` has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<ItemsView>,
}

/// How far a `for_each` has come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Items)]
pub(crate) struct ItemsView {
    /// Elements of its list.
    total: usize,
    /// Items whose inputs were evaluated.
    started: u32,
    /// Items that have their outputs.
    done: u32,
}

impl<'a> RunView<'a> {
    /// How a run is shown; one that is `held` waits for its turn by the limits of its workflow.
    #[must_use]
    pub fn new(run: &'a Run, held: bool) -> Self {
        let (state, workflow) = (run.state(), run.workflow());
        let submission: &Submission = run.submission();
        Self {
            id: run.id(),
            namespace: submission.namespace.0.as_str(),
            workflow: submission.workflow.as_str(),
            version: &submission.version,
            state: state_name(head_state(run, held)),
            input: &submission.input,
            output: (state.phase == Phase::Succeeded).then_some(Output(run)),
            error: error_of(run),
            steps: Steps(run),
            waits_for: run.waits(MAX_WAITS).into_iter().map(|wait| WaitView::new(run, wait)).collect(),
            paused: state.paused.as_ref().map(|pause| PauseView {
                by: pause.by.to_string(),
                reason: pause.reason.as_deref(),
                since: pause.at,
            }),
            source: SourceView::of(run),
            forked_from: state.forked_from,
            tags: &submission.tags,
            priority: submission.priority,
            created_at: submission.at,
            finished_at: state.finished_at,
        }
        .checked(workflow)
    }

    /// A run whose state came from another definition would show wrong names; the engine refuses such a state.
    fn checked(self, workflow: &Workflow) -> Self {
        debug_assert_eq!(self.steps.0.state().steps.len(), workflow.steps.len());
        self
    }
}

/// The name that users see.
pub(crate) fn state_name(state: HeadState) -> &'static str {
    HeadState::ALL.iter().find(|(known, _)| *known == state).map_or("unknown", |(_, name)| name)
}

fn error_of(run: &Run) -> Option<ErrorView<'_>> {
    let state = run.state();
    match state.phase {
        Phase::Active | Phase::Succeeded => None,
        Phase::Failed => state.failure.as_ref().map(|failed| ErrorView {
            step: failed.step.and_then(|step| run.workflow().steps.get(step.as_usize())).map(|step| &*step.name),
            ..ErrorView::of(&failed.failure)
        }),
        Phase::Cancelled => Some(ErrorView {
            class: "cancelled",
            message: state.reason.as_deref().unwrap_or("the run was cancelled"),
            step: None,
        }),
        Phase::TimedOut => {
            Some(ErrorView { class: "timeout", message: "the run did not end within its own timeout", step: None })
        }
    }
}

impl<'a> ErrorView<'a> {
    pub(crate) fn of(failure: &'a Failure) -> Self {
        Self { class: failure.class.as_str(), message: &failure.message, step: None }
    }
}

/// The output: what the definition says, or every step's output by name.
#[derive(Debug)]
struct Output<'a>(&'a Run);

impl Serialize for Output<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state = self.0.state();
        match &state.output {
            Some(output) => output.serialize(serializer),
            None => {
                let outputs = self.0.workflow().steps.iter().zip(&state.steps);
                serializer.collect_map(outputs.map(|(step, state)| (&*step.name, &state.output)))
            }
        }
    }
}

#[derive(Debug)]
struct Steps<'a>(&'a Run);

impl Serialize for Steps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (workflow, state) = (self.0.workflow(), self.0.state());
        let mut map = serializer.serialize_map(Some(state.steps.len()))?;
        for (step, state) in workflow.steps.iter().zip(&state.steps) {
            map.serialize_entry(&*step.name, &step_view(state, step.for_each.is_some()))?;
        }
        map.end()
    }
}

fn step_view(step: &StepState, repeated: bool) -> StepView<'_> {
    let waits = step.items.front().is_some_and(|item| matches!(item.status, ItemStatus::Waiting(_)));
    let waits = waits && !repeated && step.status == StepStatus::Active;
    StepView {
        state: if waits { "waiting" } else { step.status.as_str() },
        output: &step.output,
        error: step.failure.as_ref().map(ErrorView::of),
        attempts: step.attempts(),
        fallback: step.fallback,
        started_at: step.started_at,
        finished_at: step.finished_at,
        items: repeated.then(|| ItemsView { total: step.items.len(), started: step.scheduled, done: step.done }),
    }
}

/// A run in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunSummary)]
pub(crate) struct HeadView<'a> {
    /// Identity.
    #[serde(serialize_with = "shown")]
    #[schema(value_type = String)]
    id: RunId,
    /// Tenant.
    namespace: &'a str,
    /// Workflow by name.
    workflow: &'a str,
    /// Version that the run is pinned to.
    version: &'a str,
    /// Like the state of a run.
    #[schema(value_type = RunState)]
    state: &'static str,
    /// Labels.
    tags: &'a [String],
    /// When it was submitted.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ended.
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    finished_at: Option<Timestamp>,
}

impl<'a> HeadView<'a> {
    pub(crate) fn new(head: &'a RunHead) -> Self {
        Self {
            id: head.run,
            namespace: head.namespace.0.as_str(),
            workflow: head.workflow.as_str(),
            version: &head.version,
            state: state_name(head.state),
            tags: &head.tags,
            created_at: head.created_at,
            finished_at: head.finished_at,
        }
    }
}

/// Writes what has a text form.
pub(crate) fn shown<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Writes what has a text form, or null.
pub(crate) fn maybe_shown<S: Serializer>(value: &Option<RunId>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// Writes a time in RFC 3339.
pub(crate) fn moment<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    match jiff::Timestamp::from_millisecond(time.as_millis()) {
        // Always three places, so that texts sort as the times do.
        Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
        // Beyond the year 9999 or before -9999 there is no such form.
        Err(_) => serializer.serialize_none(),
    }
}

/// Writes a time in RFC 3339, or null.
pub(crate) fn maybe_moment<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => moment(time, serializer),
        None => serializer.serialize_none(),
    }
}
