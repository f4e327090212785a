//! Recording: an event changes the state, and cannot fail.
//!
//! An event that does not fit, which only a damaged journal could hold, changes nothing but the sequence number.

use super::persistent::Map;
use super::{DEADLINE, ItemState, ItemStatus, KeptSignal, Pause, Phase, Run, RunFailure, StepState, StepStatus};
use crate::command::CommandId;
use crate::definition::Call;
use crate::event::{Event, KeptStep};
use crate::failure::Failure;
use crate::id::{CallId, Seq, StepIndex};
use crate::time::Timestamp;
use crate::value::Value;

impl Run {
    /// Brings the state to where it is after this event, recorded at this time.
    pub fn apply(&mut self, event: &Event, at: Timestamp) {
        self.state.seq = Seq(self.state.seq.0 + 1);
        if self.state.phase.is_end() {
            match event {
                Event::RunRetried { steps, .. } => self.begin_again(steps, at),
                Event::LineLeft { .. } => self.state.line_left = true,
                _ => {}
            }
            return;
        }
        match event {
            Event::Submitted(_) | Event::RunRetried { .. } | Event::LineLeft { .. } => {}
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
            Event::WaitBegan { call, with, until } => self.wait_began(*call, with, *until, at),
            Event::WaitEnded { call } => self.wait_ended(*call),
            Event::SignalReceived { name, payload, id, .. } => {
                self.state.signal_ids.insert(id.clone(), ());
                let (name, id, payload) = (name.clone(), id.clone(), payload.clone());
                self.state.signals.push_back(KeptSignal { name, id, payload, at });
            }
            Event::SignalTaken { call, id } => self.signal_taken(*call, id),
            Event::Paused { by, reason } => {
                self.state.paused = Some(Pause { by: by.clone(), reason: reason.clone(), at });
            }
            Event::Resumed { .. } => self.state.paused = None,
            Event::LineReached => {
                self.state.in_line = false;
                self.begin_deadline(at);
            }
            Event::Forked { from, kept, outputs, .. } => {
                self.state.forked_from = Some(*from);
                self.keep(kept, outputs, at);
            }
        }
    }

    fn begin_deadline(&mut self, at: Timestamp) {
        self.state.deadline = self.workflow.timeout.map(|span| at.after(span));
        if let Some(deadline) = self.state.deadline {
            self.state.owed.wakes.insert((deadline, DEADLINE), ());
        }
    }

    fn end(&mut self, phase: Phase, at: Timestamp) {
        self.state.phase = phase;
        self.state.in_line = false;
        self.state.line_left |= matches!(phase, Phase::Succeeded | Phase::Cancelled);
        self.state.finished_at = Some(at);
        self.state.owed.clear();
        self.state.listening = Map::default();
        self.state.paused = None;
    }

    fn end_step(&mut self, step: StepIndex, status: StepStatus, at: Timestamp, change: impl FnOnce(&mut StepState)) {
        let Some(state) = self.state.steps.get_mut(step.as_usize()) else { return };
        state.status = status;
        state.finished_at = Some(at);
        change(state);
        if status == StepStatus::Failed {
            let calls: Vec<_> = self.state.owed.serials.keys().filter(|call| call.step == step).copied().collect();
            calls.into_iter().for_each(|call| self.state.owed.remove_call(call));
            let others = self.state.owed.wakes.keys().filter(|(_, id)| id.step() != Some(step));
            self.state.owed.wakes = others.map(|wake| (*wake, ())).collect();
            let others = self.state.listening.keys().filter(|call| call.step != step);
            self.state.listening = others.map(|call| (*call, ())).collect();
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
        if self.begin_item(call, with, ItemStatus::Owed, at) {
            self.state.owed.add_call(call);
        }
    }

    /// Whether there is such an item.
    fn begin_item(&mut self, call: CallId, with: &Value, status: ItemStatus, at: Timestamp) -> bool {
        let Some(state) = self.state.steps.get_mut(call.step.as_usize()) else { return false };
        if state.status == StepStatus::Pending {
            state.status = StepStatus::Active;
            state.started_at = Some(at);
            state.items.push_back(ItemState::new(Value::Null));
        }
        let Some(item) = state.items.get_mut(call.item as usize) else { return false };
        item.with = with.clone();
        item.attempt = call.attempt;
        item.first = call.attempt;
        item.status = status;
        state.scheduled = state.scheduled.max(call.item + 1);
        true
    }

    fn attempt_failed(&mut self, call: CallId, failure: &Failure, retry_at: Option<Timestamp>) {
        self.state.owed.remove_call(call);
        self.stop_waiting(call);
        let Some(state) = self.state.steps.get_mut(call.step.as_usize()) else { return };
        let Some(item) = state.items.get_mut(call.item as usize) else { return };
        item.failure = Some(failure.clone());
        match retry_at {
            Some(at) => {
                item.status = ItemStatus::Backoff(at);
                self.state.owed.wakes.insert((at, CommandId::Retry(call)), ());
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

    fn wait_began(&mut self, call: CallId, with: &Value, until: Option<Timestamp>, at: Timestamp) {
        if !self.begin_item(call, with, ItemStatus::Waiting(until), at) {
            return;
        }
        if let Some(until) = until {
            self.state.owed.wakes.insert((until, CommandId::Wait(call)), ());
        }
        if matches!(self.workflow.steps[call.step.as_usize()].call, Call::Signal { .. }) {
            self.state.listening.insert(call, ());
        }
    }

    /// Forgets what an item waits for; whether it waited.
    fn stop_waiting(&mut self, call: CallId) -> bool {
        let item = self.state.steps.get(call.step.as_usize()).and_then(|step| step.items.get(call.item as usize));
        let Some(ItemStatus::Waiting(until)) = item.map(|item| item.status) else { return false };
        if let Some(until) = until {
            self.state.owed.wakes.remove(&(until, CommandId::Wait(call)));
        }
        self.state.listening.remove(&call);
        true
    }

    fn wait_ended(&mut self, call: CallId) {
        if self.stop_waiting(call) {
            let with = self.state.steps[call.step.as_usize()].items[call.item as usize].with.clone();
            self.item_done(call.step, call.item, &with, false);
        }
    }

    fn signal_taken(&mut self, call: CallId, id: &str) {
        let Some(place) = self.state.signals.iter().position(|kept| &*kept.id == id) else { return };
        if self.stop_waiting(call) {
            let payload = self.state.signals.remove(place).payload;
            self.item_done(call.step, call.item, &payload, false);
        }
    }

    /// A run that had ended goes on: these steps are pending again, and its time begins anew.
    fn begin_again(&mut self, steps: &[StepIndex], at: Timestamp) {
        for step in steps {
            if let Some(state) = self.state.steps.get_mut(step.as_usize()) {
                *state = state.again();
            }
        }
        self.state.phase = Phase::Active;
        self.state.output = None;
        self.state.failure = None;
        self.state.reason = None;
        self.state.finished_at = None;
        self.begin_deadline(at);
    }

    /// Steps of a fork that do not run again.
    fn keep(&mut self, kept: &[KeptStep], outputs: &Value, at: Timestamp) {
        let Value::List(outputs) = outputs else { return };
        for (kept, output) in kept.iter().zip(outputs.iter()) {
            let status = if kept.skipped { StepStatus::Skipped } else { StepStatus::Succeeded };
            self.end_step(kept.step, status, at, |state| {
                state.output = output.clone();
                state.fallback = kept.fallback;
            });
        }
    }

    fn step_succeeded(&mut self, step: StepIndex, output: Option<&Value>, fallback: bool, at: Timestamp) {
        let single = self.workflow.steps.get(step.as_usize()).is_some_and(|step| step.for_each.is_none());
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
                None if single => {
                    state.output = state.items.front().map(|item| item.output.clone()).unwrap_or_default();
                }
                None => state.output = state.items.iter().map(|item| item.output.clone()).collect::<Vec<_>>().into(),
            }
        });
        if let Some(call) = owed {
            self.state.owed.remove_call(call);
        }
    }
}
