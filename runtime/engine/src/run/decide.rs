//! Asking: what an input means for a run, as events that have not happened yet.
//!
//! Every consequence follows from the state alone, so a run that was cut off between any two events goes on to the
//! same end. Events are tried on a copy, whose collections are shared with the original.

mod again;
mod items;
mod steps;
mod waiting;

use std::sync::Arc;

pub use again::{Fork, ForkError};

use super::{Run, StepStatus};
use crate::definition::Workflow;
use crate::event::{Event, Submission};
use crate::expression::{RunFacts, Scope, StepView};
use crate::failure::{Failure, FailureClass};
use crate::id::{RunId, ShardId, StepIndex};
use crate::input::{Input, Rejection};
use crate::schema::SchemaError;
use crate::time::Timestamp;
use crate::value::Value;

/// The largest output of a step and the largest output of a run, in bytes as [`Value::size`] counts them.
pub(super) const MAX_VALUE_BYTES: usize = 16 << 20;

/// The largest list of a `for_each`.
pub(super) const MAX_ITEMS: usize = 100_000;

/// Signals that may wait to be taken at one time.
pub const MAX_KEPT_SIGNALS: usize = 100;

/// Signals that may come to one run in all; their ids are remembered as long as the run is.
pub const MAX_SIGNALS: usize = 10_000;

/// The largest payload of a signal, in bytes as [`Value::size`] counts them.
pub const MAX_SIGNAL_BYTES: usize = 1 << 20;

/// What an input means: the events to record, and the run as it stands after them.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The events, which follow from one another; never empty.
    pub events: Vec<Event>,
    /// The copy of the run on which they were tried. It is the run as soon as they are durable.
    pub run: Run,
}

impl Run {
    /// The first events of a run: the submission and everything that follows from it at once. Runs that the limits of
    /// their workflow count together share a shard, of so many, whatever the id says.
    ///
    /// # Errors
    /// When the input does not fit the workflow's input schema; one entry per mistake.
    pub fn submit(
        id: RunId,
        workflow: &Arc<Workflow>,
        submission: Submission,
        shards: u16,
    ) -> Result<(Self, Vec<Event>), Vec<SchemaError>> {
        if let Some(schema) = &workflow.input_schema {
            schema.validate(&submission.input)?;
        }
        let now = submission.at;
        let first = Event::Submitted(Arc::new(submission));
        let Ok(mut run) = Self::begin(id, Arc::clone(workflow), &first, now) else { return Err(vec![]) };
        run.join_group(shards).map_err(|failure| vec![unfit_key(&failure)])?;
        let mut plan = Plan { run, now, events: vec![first] };
        plan.advance();
        Ok((plan.run, plan.events))
    }

    /// Puts a new run on the shard of those that it is counted together with: one node then sees them all. A run that
    /// stands in an order stays on the shard of its order where the limits have a key of their own, since that could
    /// put the next one of its order elsewhere.
    fn join_group(&mut self, shards: u16) -> Result<(), Failure> {
        let key = self.limit_key()?;
        let stays = self.state.holds_line() && key.is_some();
        if !self.workflow.limits.limits.is_unlimited() && !stays {
            let submission = &self.state.submission;
            let (namespace, name) = (submission.namespace.0.as_str(), submission.workflow.as_str());
            let key = key.as_deref().unwrap_or_default();
            self.id = self.id.on(ShardId::of(&[namespace.as_bytes(), name.as_bytes(), key.as_bytes()], shards));
        }
        Ok(())
    }

    /// What the workflow's limits count the run under, as JSON text; none when all of its runs are counted together.
    ///
    /// # Errors
    /// When the key cannot be evaluated for the run's input. A run that was submitted has one that can.
    pub fn limit_key(&self) -> Result<Option<Arc<str>>, Failure> {
        let Some(key) = &self.workflow.limits.key else { return Ok(None) };
        let key = self.evaluate(&[], |scope| key.evaluate(scope))?;
        Ok(Some(key.to_json().to_string().into()))
    }

    /// What the input means at this time. Whoever asks records the events and goes on with the run that comes with
    /// them, or applies them to this one, which gives the same.
    ///
    /// # Errors
    /// When the input changes nothing.
    pub fn decide(&self, input: &Input, now: Timestamp) -> Result<Decision, Rejection> {
        let mut plan = Plan { run: self.clone(), now, events: vec![] };
        if self.state.phase.is_end() {
            plan.record(self.after_the_end(input)?);
        } else if self.state.deadline.is_some_and(|deadline| deadline <= now) {
            plan.record(Event::RunTimedOut);
        } else {
            plan.take(input)?;
        }
        plan.advance();
        let Plan { run, events, .. } = plan;
        if events.is_empty() { Err(Rejection::NotDue) } else { Ok(Decision { events, run }) }
    }
}

/// A copy of the run on which events are tried in order.
struct Plan {
    run: Run,
    now: Timestamp,
    events: Vec<Event>,
}

impl Plan {
    fn record(&mut self, event: Event) {
        self.run.apply(&event, self.now);
        self.events.push(event);
    }

    /// Records what the input says by itself.
    fn take(&mut self, input: &Input) -> Result<(), Rejection> {
        let paused = self.run.state.paused.is_some();
        match input {
            Input::CallFinished { call, outcome } => {
                if !self.run.owes(*call) {
                    return Err(Rejection::NotOwed(*call));
                }
                self.call_finished(*call, outcome);
            }
            Input::Woken => {}
            Input::Cancel { by, reason } => {
                self.record(Event::RunCancelled { by: by.clone(), reason: reason.clone() });
            }
            Input::Signal { name, payload, id, by } => {
                self.run.check_signal(name, payload, id)?;
                let (name, id) = (Arc::clone(name), Arc::clone(id));
                self.record(Event::SignalReceived { name, payload: payload.clone(), id, by: by.clone() });
            }
            Input::Pause { .. } if paused => return Err(Rejection::Paused),
            Input::Pause { by, reason } => {
                self.record(Event::Paused { by: by.clone(), reason: reason.clone() });
            }
            Input::Resume { .. } if !paused => return Err(Rejection::NotPaused),
            Input::Resume { by } => self.record(Event::Resumed { by: by.clone() }),
            Input::Retry { .. } => return Err(Rejection::NotEnded),
            Input::LineReached if self.run.state.in_line => self.record(Event::LineReached),
            Input::LineReached => return Err(Rejection::NotDue),
            Input::LeaveLine { .. } if self.run.state.holds_line() => return Err(Rejection::LineInUse),
            Input::LeaveLine { .. } => return Err(Rejection::NoLine),
        }
        Ok(())
    }

    /// Records everything that follows from the state at this time; nothing while the run is paused, waits for those
    /// before it, or has ended.
    fn advance(&mut self) {
        let state = &self.run.state;
        if state.paused.is_some() || state.in_line || state.phase.is_end() {
            return;
        }
        let workflow = Arc::clone(&self.run.workflow);
        // A signal that is there counts even when the patience for it is over: the run was only slow to look.
        self.take_signals();
        self.do_what_is_due();
        loop {
            let before = self.events.len();
            for (place, step) in workflow.steps.iter().enumerate() {
                if self.run.state.phase.is_end() {
                    return;
                }
                let Ok(place) = u16::try_from(place) else { return };
                let index = StepIndex(place);
                match self.run.state.steps[index.as_usize()].status {
                    StepStatus::Pending => self.begin_step(index, step),
                    StepStatus::Active => self.advance_step(index, step),
                    StepStatus::Failed => self.fail_run(index),
                    StepStatus::Skipped | StepStatus::Succeeded => {}
                }
            }
            if self.events.len() == before {
                break;
            }
        }
        let ended = |status| matches!(status, StepStatus::Skipped | StepStatus::Succeeded);
        if !self.run.state.phase.is_end() && self.run.state.steps.iter().all(|step| ended(step.status)) {
            self.finish(&workflow);
        }
    }

    fn finish(&mut self, workflow: &Workflow) {
        let output = match &workflow.output {
            None => Ok(None),
            Some(output) => self.run.evaluate(&[], |scope| output.evaluate(scope)).and_then(bounded).map(Some),
        };
        let output = match (output, &workflow.output_schema) {
            (Ok(Some(output)), Some(schema)) => match schema.validate(&output) {
                Ok(()) => Ok(Some(output)),
                Err(mistakes) => Err(unfit_output(&mistakes)),
            },
            (output, _) => output,
        };
        match output {
            Ok(output) => self.record(Event::RunSucceeded { output }),
            Err(failure) => self.record(Event::RunFailed { step: None, failure }),
        }
    }
}

impl Run {
    /// Evaluates something in the scope of this run.
    fn evaluate<T>(
        &self,
        locals: &[(Arc<str>, Value)],
        evaluate: impl FnOnce(&Scope<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let submission = &*self.state.submission;
        let steps = |name: &str| {
            let (index, _) = self.workflow.step(name)?;
            let state = &self.state.steps[index.as_usize()];
            Some(StepView { output: &state.output, state: state.status.as_str() })
        };
        let facts = RunFacts {
            id: self.id,
            started_at: submission.at,
            workflow: &submission.workflow,
            version: &submission.version,
            namespace: &submission.namespace,
            state: None,
        };
        evaluate(&Scope { input: &submission.input, steps: &steps, locals, run: &facts })
    }
}

fn bounded(value: Value) -> Result<Value, Failure> {
    let size = value.size();
    if size > MAX_VALUE_BYTES { Err(too_large(size)) } else { Ok(value) }
}

pub(super) fn unfit_key(failure: &Failure) -> SchemaError {
    let message = format!("the key of the workflow's limits cannot be evaluated: {}", failure.message);
    SchemaError { pointer: String::new(), message }
}

fn too_large(size: usize) -> Failure {
    Failure::new(
        FailureClass::Invalid,
        format!("the value has {size} bytes; at most {MAX_VALUE_BYTES} are allowed in one step"),
    )
}

fn unfit_output(mistakes: &[SchemaError]) -> Failure {
    let words: Vec<_> = mistakes.iter().take(5).map(|m| format!("{}: {}", m.pointer, m.message)).collect();
    Failure::new(FailureClass::Invalid, format!("the output does not fit its schema: {}", words.join("; ")))
}
