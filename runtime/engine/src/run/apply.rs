//! Recording: an event changes the state, and cannot fail.
//!
//! An event that does not fit, which only a damaged journal could hold, changes nothing but the sequence number.

use super::{ItemState, ItemStatus, Phase, Run, RunFailure, StepState, StepStatus};
use crate::command::CommandId;
use crate::event::Event;
use crate::failure::Failure;
use crate::id::{CallId, Seq, StepIndex};
use crate::time::Timestamp;
use crate::value::Value;

impl Run {
    /// Brings the state to where it is after this event, recorded at this time.
    pub fn apply(&mut self, event: &Event, at: Timestamp) {
        self.state.seq = Seq(self.state.seq.0 + 1);
        if self.state.phase.is_end() {
            return;
        }
        match event {
            Event::Submitted(_) => {}
            Event::StepSkipped { step } => self.end_step(*step, StepStatus::Skipped, at, |_| {}),
            Event::StepExpanded { step, items } => self.expand(*step, items, at),
            Event::CallScheduled { call, with } => self.schedule(*call, with, at),
            Event::AttemptFailed { call, failure, retry_at } => self.attempt_failed(*call, failure, *retry_at),
            Event::CallRetried { call } => self.next_attempt(*call, None, false),
            Event::FellBack { call, with } => self.next_attempt(*call, with.as_ref(), true),
            Event::ItemSucceeded { step, item, output, fallback } => {
                self.item_done(*step, *item, output, *fallback);
            }
            Event::StepSucceeded { step, output, fallback } => {
                self.step_succeeded(*step, output.as_ref(), *fallback, at);
            }
            Event::StepFailed { step, failure, .. } => {
                self.end_step(*step, StepStatus::Failed, at, |state| state.failure = Some(failure.clone()));
            }
            Event::RunSucceeded { output } => {
                self.state.output.clone_from(output);
                self.end(Phase::Succeeded, at);
            }
            Event::RunFailed { step, failure } => {
                self.state.failure = Some(RunFailure { step: *step, failure: failure.clone() });
                self.end(Phase::Failed, at);
            }
            Event::RunCancelled { reason, .. } => {
                self.state.reason.clone_from(reason);
                self.end(Phase::Cancelled, at);
            }
            Event::RunTimedOut => self.end(Phase::TimedOut, at),
        }
    }

    fn end(&mut self, phase: Phase, at: Timestamp) {
        self.state.phase = phase;
        self.state.finished_at = Some(at);
        self.state.owed.clear();
    }

    fn end_step(&mut self, step: StepIndex, status: StepStatus, at: Timestamp, change: impl FnOnce(&mut StepState)) {
        let Some(state) = self.state.steps.get_mut(step.as_usize()) else { return };
        state.status = status;
        state.finished_at = Some(at);
        change(state);
        if status == StepStatus::Failed {
            let calls: Vec<_> = self.state.owed.serials.keys().filter(|call| call.step == step).copied().collect();
            calls.into_iter().for_each(|call| self.state.owed.remove_call(call));
        }
    }

    fn expand(&mut self, step: StepIndex, items: &Value, at: Timestamp) {
        let Some(state) = self.state.steps.get_mut(step.as_usize()) else { return };
        state.status = StepStatus::Active;
        state.started_at = Some(at);
        if let Value::List(items) = items {
            state.items = items.iter().cloned().map(ItemState::new).collect();
        }
    }

    fn schedule(&mut self, call: CallId, with: &Value, at: Timestamp) {
        let Some(state) = self.state.steps.get_mut(call.step.as_usize()) else { return };
        if state.status == StepStatus::Pending {
            state.status = StepStatus::Active;
            state.started_at = Some(at);
            state.items.push_back(ItemState::new(Value::Null));
        }
        let Some(item) = state.items.get_mut(call.item as usize) else { return };
        item.with = with.clone();
        item.attempt = call.attempt;
        item.status = ItemStatus::Owed;
        state.scheduled = state.scheduled.max(call.item + 1);
        self.state.owed.add_call(call);
    }

    fn attempt_failed(&mut self, call: CallId, failure: &Failure, retry_at: Option<Timestamp>) {
        self.state.owed.remove_call(call);
        let Some(state) = self.state.steps.get_mut(call.step.as_usize()) else { return };
        let Some(item) = state.items.get_mut(call.item as usize) else { return };
        item.failure = Some(failure.clone());
        match retry_at {
            Some(at) => {
                item.status = ItemStatus::Backoff(at);
                self.state.owed.wakes.insert((at, CommandId::Retry(call)));
            }
            None => {
                item.status = ItemStatus::Exhausted;
                state.exhausted.push_back(call.item);
            }
        }
    }

    fn next_attempt(&mut self, call: CallId, with: Option<&Value>, fallback: bool) {
        let Some(state) = self.state.steps.get_mut(call.step.as_usize()) else { return };
        let Some(item) = state.items.get_mut(call.item as usize) else { return };
        if let ItemStatus::Backoff(at) = item.status {
            let before = CallId { attempt: item.attempt, ..call };
            self.state.owed.wakes.remove(&(at, CommandId::Retry(before)));
        }
        if fallback {
            item.fallback_from = call.attempt;
            state.exhausted.retain(|waiting| *waiting != call.item);
        }
        if let Some(with) = with {
            item.with = with.clone();
        }
        item.attempt = call.attempt;
        item.status = ItemStatus::Owed;
        self.state.owed.add_call(call);
    }

    fn item_done(&mut self, step: StepIndex, item: u32, output: &Value, fallback: bool) {
        let Some(state) = self.state.steps.get_mut(step.as_usize()) else { return };
        let Some(item_state) = state.items.get_mut(item as usize) else { return };
        self.state.owed.remove_call(CallId { step, item, attempt: item_state.attempt });
        item_state.status = ItemStatus::Done;
        item_state.output = output.clone();
        state.done += 1;
        state.fallback |= fallback;
        state.exhausted.retain(|waiting| *waiting != item);
    }

    fn step_succeeded(&mut self, step: StepIndex, output: Option<&Value>, fallback: bool, at: Timestamp) {
        let Some(state) = self.state.steps.get_mut(step.as_usize()) else { return };
        let owed = state.items.front().map(|item| CallId { step, item: 0, attempt: item.attempt });
        self.end_step(step, StepStatus::Succeeded, at, |state| {
            state.started_at.get_or_insert(at);
            state.fallback |= fallback;
            state.exhausted.clear();
            match output {
                Some(output) => {
                    state.output = output.clone();
                    if let Some(item) = state.items.front_mut() {
                        item.status = ItemStatus::Done;
                    }
                }
                None => state.output = state.items.iter().map(|item| item.output.clone()).collect::<Vec<_>>().into(),
            }
        });
        if let Some(call) = owed {
            self.state.owed.remove_call(call);
        }
    }
}
