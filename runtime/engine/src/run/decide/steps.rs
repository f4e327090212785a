//! Beginning, falling back and failing: what becomes of one step when its turn has come.
//!
//! Steps that are functions of their inputs are carried out here; every other one comes to owe a call or a wait.

use std::sync::Arc;

use super::items::locals;
use super::{Plan, bounded, unfit_output};
use crate::definition::{Call, Fallback, Step};
use crate::event::Event;
use crate::failure::{Failure, FailureClass};
use crate::id::{CallId, StepIndex};
use crate::run::StepStatus;
use crate::value::{Map, Value};

impl Plan {
    pub(super) fn call_finished(&mut self, call: CallId, outcome: &Result<Value, Failure>) {
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

    pub(super) fn begin_step(&mut self, index: StepIndex, step: &Step) {
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
        if let Some(for_each) = &step.for_each {
            let items = self.run.evaluate(&[], |scope| for_each.items.evaluate(scope));
            return self.begin_items(index, step, items);
        }
        let with = self.run.evaluate(&[], |scope| step.call.with().evaluate(scope)).and_then(bounded);
        if !step.call.is_pure() {
            return self.schedule(index, step, 0, with);
        }
        match with.and_then(|with| self.pure_output(step, with, &[])) {
            Ok((output, fallback)) => self.record(Event::StepSucceeded { step: index, output: Some(output), fallback }),
            Err(failure) => self.fail_step(index, None, failure),
        }
    }

    /// Records that an item's inputs were evaluated: from now on it owes a call, or waits.
    pub(super) fn schedule(&mut self, index: StepIndex, step: &Step, item: u32, with: Result<Value, Failure>) {
        // Attempts go on counting where an earlier life of the step stood, so that none is ever named twice.
        let attempt = self.run.state.steps[index.as_usize()].attempts_before + 1;
        let call = CallId { step: index, item, attempt };
        let begun = with.and_then(|with| match &step.call {
            Call::Wait { .. } | Call::Signal { .. } => self.begin_wait(call, step, with),
            _ => {
                self.record(Event::CallScheduled { call, with });
                Ok(())
            }
        });
        if let Err(failure) = begun {
            self.fail_step(index, step.for_each.is_some().then_some(item), failure);
        }
    }

    pub(super) fn pure_output(
        &self,
        step: &Step,
        with: Value,
        locals: &[(Arc<str>, Value)],
    ) -> Result<(Value, bool), Failure> {
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

    pub(super) fn fall_back(&mut self, index: StepIndex, step: &Step, item: u32) {
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

    pub(super) fn fail_step(&mut self, step: StepIndex, item: Option<u32>, failure: Failure) {
        self.record(Event::StepFailed { step, item, failure });
        self.fail_run(step);
    }

    pub(super) fn fail_run(&mut self, step: StepIndex) {
        if self.run.state.phase.is_end() {
            return;
        }
        if let Some(failure) = self.run.state.steps[step.as_usize()].failure.clone() {
            self.record(Event::RunFailed { step: Some(step), failure });
        }
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
