//! Steps that run once per element of a list: expanding, scheduling up to the step's limit, gathering the outputs.
//!
//! Never keeps a list of what is to do: how far a step has come follows from its counters.

use std::sync::Arc;

use super::{MAX_ITEMS, MAX_VALUE_BYTES, Plan, bounded, too_large};
use crate::definition::Step;
use crate::event::Event;
use crate::failure::{Failure, FailureClass};
use crate::id::StepIndex;
use crate::run::{ItemStatus, StepStatus};
use crate::value::Value;

impl Plan {
    pub(super) fn begin_items(&mut self, index: StepIndex, step: &Step, items: Result<Value, Failure>) {
        match items.and_then(list_of_items) {
            Ok(items) if step.call.is_pure() => self.carry_out_items(index, step, &items),
            Ok(items) => {
                self.record(Event::StepExpanded { step: index, items: Value::List(items) });
                self.advance_step(index, step);
            }
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

    /// Goes on with a step that has begun: falls back where attempts are exhausted, schedules further items, and ends
    /// it when all of them have their outputs.
    pub(super) fn advance_step(&mut self, index: StepIndex, step: &Step) {
        while let Some(item) = self.run.state.steps[index.as_usize()].exhausted.front().copied() {
            self.fall_back(index, step, item);
            if self.run.state.steps[index.as_usize()].status == StepStatus::Failed {
                return;
            }
        }
        let Some(for_each) = &step.for_each else { return self.end_single(index) };
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
            let item = state.scheduled;
            let locals = locals(step, &element, item as usize);
            let with = self.run.evaluate(&locals, |scope| step.call.with().evaluate(scope)).and_then(bounded);
            self.schedule(index, step, item, with);
        }
    }

    /// Ends a step without `for_each` whose output was recorded by itself, as that of a wait is.
    fn end_single(&mut self, index: StepIndex) {
        let state = &self.run.state.steps[index.as_usize()];
        let is_done = state.items.front().is_some_and(|item| item.status == ItemStatus::Done);
        if state.status == StepStatus::Active && is_done {
            self.record(Event::StepSucceeded { step: index, output: None, fallback: state.fallback });
        }
    }
}

/// The variable of the step's `for_each` and `index`; nothing without `for_each`.
pub(super) fn locals(step: &Step, element: &Value, place: usize) -> Vec<(Arc<str>, Value)> {
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
