//! Asking: what an input means for a run, as events that have not happened yet.
//!
//! Every consequence follows from the state alone, so a run that was cut off between any two events goes on to the
//! same end. Events are tried on a copy, whose collections are shared with the original.

use std::sync::Arc;

use super::{Run, StepStatus};
use crate::definition::{Call, Fallback, Step, Workflow};
use crate::event::{Event, Submission};
use crate::expression::{RunFacts, Scope, StepView};
use crate::failure::{Failure, FailureClass};
use crate::id::{CallId, RunId, StepIndex};
use crate::input::{Input, Rejection};
use crate::schema::SchemaError;
use crate::time::Timestamp;
use crate::value::{Map, Value};

/// The largest output of a step and the largest output of a run, in bytes as [`Value::size`] counts them.
pub(super) const MAX_VALUE_BYTES: usize = 16 << 20;

/// The largest list of a `for_each`.
pub(super) const MAX_ITEMS: usize = 100_000;

impl Run {
    /// The first events of a run: the submission and everything that follows from it at once.
    ///
    /// # Errors
    /// When the input does not fit the workflow's input schema; one entry per mistake.
    pub fn submit(
        id: RunId,
        workflow: &Arc<Workflow>,
        submission: Submission,
    ) -> Result<(Self, Vec<Event>), Vec<SchemaError>> {
        if let Some(schema) = &workflow.input_schema {
            schema.validate(&submission.input)?;
        }
        let now = submission.at;
        let first = Event::Submitted(Arc::new(submission));
        let Ok(run) = Self::begin(id, Arc::clone(workflow), &first, now) else { return Err(vec![]) };
        let mut plan = Plan { run, now, events: vec![first] };
        plan.advance();
        Ok((plan.run, plan.events))
    }

    /// What the input means at this time: the events to record, which follow from one another.
    ///
    /// # Errors
    /// When the input changes nothing.
    pub fn decide(&self, input: &Input, now: Timestamp) -> Result<Vec<Event>, Rejection> {
        if self.state.phase.is_end() {
            return Err(Rejection::Ended);
        }
        let mut plan = Plan { run: self.clone(), now, events: vec![] };
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            plan.record(Event::RunTimedOut);
            return Ok(plan.events);
        }
        match input {
            Input::CallFinished { call, outcome } => {
                if !self.owes(*call) {
                    return Err(Rejection::NotOwed(*call));
                }
                plan.call_finished(*call, outcome);
            }
            Input::Woken => {}
            Input::Cancel { by, reason } => {
                plan.record(Event::RunCancelled { by: by.clone(), reason: reason.clone() });
            }
        }
        plan.advance();
        if plan.events.is_empty() { Err(Rejection::NotDue) } else { Ok(plan.events) }
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

    fn call_finished(&mut self, call: CallId, outcome: &Result<Value, Failure>) {
        let workflow = Arc::clone(&self.run.workflow);
        let step = &workflow.steps[call.step.as_usize()];
        let item = &self.run.state.steps[call.step.as_usize()].items[call.item as usize];
        let (tries, fallback) = (item.tries(), item.on_fallback());
        match outcome.clone().and_then(bounded) {
            Ok(output) if step.for_each.is_some() => {
                self.record(Event::ItemSucceeded { step: call.step, item: call.item, output, fallback });
            }
            Ok(output) => {
                self.record(Event::StepSucceeded { step: call.step, output: Some(output), fallback });
            }
            Err(failure) => {
                let wait = step.retry.wait(self.run.id, call, tries, &failure);
                let retry_at = wait.map(|wait| self.now.after(wait));
                self.record(Event::AttemptFailed { call, failure, retry_at });
            }
        }
    }

    /// Records everything that follows from the state at this time.
    fn advance(&mut self) {
        let workflow = Arc::clone(&self.run.workflow);
        self.retry_what_is_due();
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

    fn retry_what_is_due(&mut self) {
        let due: Vec<_> = self.run.state.owed.wakes.iter().take_while(|(at, _)| *at <= self.now).copied().collect();
        for (_, id) in due {
            if let crate::command::CommandId::Retry(call) = id {
                self.record(Event::CallRetried { call: CallId { attempt: call.attempt + 1, ..call } });
            }
        }
    }

    fn begin_step(&mut self, index: StepIndex, step: &Step) {
        let status = |need: &StepIndex| self.run.state.steps[need.as_usize()].status;
        if !step.needs.iter().all(|need| matches!(status(need), StepStatus::Succeeded | StepStatus::Skipped)) {
            return;
        }
        let skips = step.needs.iter().any(|need| status(need) == StepStatus::Skipped);
        match &step.condition {
            None if skips => return self.record(Event::StepSkipped { step: index }),
            None => {}
            Some(condition) => match self.run.evaluate(&[], |scope| condition.evaluate_bool(scope)) {
                Ok(true) => {}
                Ok(false) => return self.record(Event::StepSkipped { step: index }),
                Err(failure) => return self.fail_step(index, None, failure),
            },
        }
        let Some(for_each) = &step.for_each else { return self.begin_single(index, step) };
        let items = self.run.evaluate(&[], |scope| for_each.items.evaluate(scope)).and_then(list_of_items);
        match items {
            Ok(items) if step.call.is_pure() => self.carry_out_items(index, step, &items),
            Ok(items) => {
                self.record(Event::StepExpanded { step: index, items: Value::List(items) });
                self.advance_step(index, step);
            }
            Err(failure) => self.fail_step(index, None, failure),
        }
    }

    fn begin_single(&mut self, index: StepIndex, step: &Step) {
        let with = match self.run.evaluate(&[], |scope| step.call.with().evaluate(scope)).and_then(bounded) {
            Ok(with) => with,
            Err(failure) => return self.fail_step(index, None, failure),
        };
        if !step.call.is_pure() {
            let call = CallId { step: index, item: 0, attempt: 1 };
            return self.record(Event::CallScheduled { call, with });
        }
        match self.pure_output(step, with, &[]) {
            Ok((output, fallback)) => self.record(Event::StepSucceeded { step: index, output: Some(output), fallback }),
            Err(failure) => self.fail_step(index, None, failure),
        }
    }

    /// Carries out a pure call for every item; nothing is owed, so one event holds all outputs.
    fn carry_out_items(&mut self, index: StepIndex, step: &Step, items: &[Value]) {
        let mut outputs = Vec::with_capacity(items.len());
        let mut fell_back = false;
        let mut size = 0;
        for (place, item) in items.iter().enumerate() {
            let locals = locals(step, item, place);
            let output = self
                .run
                .evaluate(&locals, |scope| step.call.with().evaluate(scope))
                .and_then(|with| self.pure_output(step, with, &locals));
            match output {
                Ok((output, fallback)) => {
                    size += output.size();
                    fell_back |= fallback;
                    outputs.push(output);
                }
                Err(failure) => return self.fail_step(index, u32::try_from(place).ok(), failure),
            }
            if size > MAX_VALUE_BYTES {
                return self.fail_step(index, None, too_large(size));
            }
        }
        self.record(Event::StepSucceeded { step: index, output: Some(outputs.into()), fallback: fell_back });
    }

    fn pure_output(&self, step: &Step, with: Value, locals: &[(Arc<str>, Value)]) -> Result<(Value, bool), Failure> {
        match step.call.carry_out(with).and_then(bounded) {
            Ok(output) => Ok((output, false)),
            Err(failure) => match &step.fallback {
                Some(Fallback::Output(output)) => {
                    let output = self.run.evaluate(locals, |scope| output.evaluate(scope))?;
                    Ok((bounded(output)?, true))
                }
                _ => Err(failure),
            },
        }
    }

    fn advance_step(&mut self, index: StepIndex, step: &Step) {
        while let Some(item) = self.run.state.steps[index.as_usize()].exhausted.front().copied() {
            self.fall_back(index, step, item);
            if self.run.state.steps[index.as_usize()].status == StepStatus::Failed {
                return;
            }
        }
        let Some(for_each) = &step.for_each else { return };
        loop {
            let state = &self.run.state.steps[index.as_usize()];
            if state.status != StepStatus::Active {
                return;
            }
            if state.done as usize == state.items.len() {
                return self.record(Event::StepSucceeded { step: index, output: None, fallback: state.fallback });
            }
            let open = state.scheduled - state.done;
            let Some(element) = state.items.get(state.scheduled as usize).map(|item| item.element.clone()) else {
                return;
            };
            if open >= for_each.max_concurrency {
                return;
            }
            self.schedule_item(index, step, state.scheduled, &element);
        }
    }

    fn schedule_item(&mut self, index: StepIndex, step: &Step, item: u32, element: &Value) {
        let locals = locals(step, element, item as usize);
        match self.run.evaluate(&locals, |scope| step.call.with().evaluate(scope)).and_then(bounded) {
            Ok(with) => self.record(Event::CallScheduled { call: CallId { step: index, item, attempt: 1 }, with }),
            Err(failure) => self.fail_step(index, Some(item), failure),
        }
    }

    fn fall_back(&mut self, index: StepIndex, step: &Step, item: u32) {
        let state = &self.run.state.steps[index.as_usize()].items[item as usize];
        let failure = state.failure.clone().unwrap_or_else(|| Failure::new(FailureClass::Internal, "attempt failed"));
        let each = step.for_each.is_some();
        let locals = if each { locals(step, &state.element, item as usize) } else { vec![] };
        match &step.fallback {
            Some(Fallback::Model { with, .. }) if !state.on_fallback() => {
                let call = CallId { step: index, item, attempt: state.attempt + 1 };
                let with = with.as_ref().map(|with| self.run.evaluate(&locals, |scope| with.evaluate(scope)));
                match with.transpose() {
                    Ok(with) => self.record(Event::FellBack { call, with }),
                    Err(failure) => self.fail_step(index, each.then_some(item), failure),
                }
            }
            Some(Fallback::Output(output)) => {
                match self.run.evaluate(&locals, |scope| output.evaluate(scope)).and_then(bounded) {
                    Ok(output) if each => {
                        self.record(Event::ItemSucceeded { step: index, item, output, fallback: true });
                    }
                    Ok(output) => {
                        self.record(Event::StepSucceeded { step: index, output: Some(output), fallback: true });
                    }
                    Err(failure) => self.fail_step(index, each.then_some(item), failure),
                }
            }
            _ => self.fail_step(index, each.then_some(item), failure),
        }
    }

    fn fail_step(&mut self, step: StepIndex, item: Option<u32>, failure: Failure) {
        self.record(Event::StepFailed { step, item, failure });
        self.fail_run(step);
    }

    fn fail_run(&mut self, step: StepIndex) {
        if let Some(failure) = self.run.state.steps[step.as_usize()].failure.clone() {
            self.record(Event::RunFailed { step: Some(step), failure });
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
        };
        evaluate(&Scope { input: &submission.input, steps: &steps, locals, run: &facts })
    }
}

impl Call {
    /// Whether the engine carries the call out itself: its output is a function of its inputs.
    #[must_use]
    pub fn is_pure(&self) -> bool {
        matches!(self, Self::Prompt { .. } | Self::Transform { .. } | Self::Parse { .. })
    }

    fn carry_out(&self, with: Value) -> Result<Value, Failure> {
        match self {
            Self::Prompt { template, .. } => {
                let text = template.render(&with)?;
                Ok(Map::from([("text".into(), text.into())]).into())
            }
            Self::Parse { format, schema, .. } => {
                let Some(text) = with.get("text").and_then(Value::as_str) else {
                    let kind = with.get("text").map_or("nothing", Value::kind);
                    return Err(Failure::new(FailureClass::Invalid, format!("with.text must be a string, got {kind}")));
                };
                let value = format.read(text)?;
                match schema.as_ref().map(|schema| schema.validate(&value)) {
                    Some(Err(mistakes)) => Err(unfit_output(&mistakes)),
                    _ => Ok(value),
                }
            }
            _ => Ok(with),
        }
    }
}

fn locals(step: &Step, element: &Value, place: usize) -> Vec<(Arc<str>, Value)> {
    step.for_each.as_ref().map_or_else(Vec::new, |for_each| {
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        vec![(Arc::clone(&for_each.variable), element.clone()), ("index".into(), Value::Int(place))]
    })
}

fn list_of_items(value: Value) -> Result<Arc<Vec<Value>>, Failure> {
    match value {
        Value::List(items) if items.len() <= MAX_ITEMS => Ok(items),
        Value::List(items) => Err(Failure::new(
            FailureClass::Invalid,
            format!("for_each has {} items; at most {MAX_ITEMS} are allowed", items.len()),
        )),
        other => Err(Failure::new(FailureClass::Invalid, format!("for_each needs a list, got {}", other.kind()))),
    }
}

fn bounded(value: Value) -> Result<Value, Failure> {
    let size = value.size();
    if size > MAX_VALUE_BYTES { Err(too_large(size)) } else { Ok(value) }
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
