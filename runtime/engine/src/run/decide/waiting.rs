//! Steps that wait: for a time, or for a signal that someone sends.
//!
//! What is waited for is recorded when the wait begins and never computed again. A signal that comes before its step
//! is kept; a wait and a signal's patience end by a wake-up. Nothing here is owed to anyone, so a waiting run needs
//! no actor.

use std::sync::Arc;

use super::Plan;
use crate::command::CommandId;
use crate::definition::{Call, Step};
use crate::event::Event;
use crate::failure::{Failure, FailureClass};
use crate::id::CallId;
use crate::input::Rejection;
use crate::run::{MAX_KEPT_SIGNALS, MAX_SIGNAL_BYTES, MAX_SIGNALS, Run, StepStatus};
use crate::schema::SchemaError;
use crate::time::{Timestamp, span};
use crate::value::{Map, Value};

impl Plan {
    /// Records what an item waits for, and ends the wait when that is there already.
    pub(super) fn begin_wait(&mut self, call: CallId, step: &Step, with: Value) -> Result<(), Failure> {
        if let Call::Signal { name, .. } = &step.call {
            let until = step.timeout.map(|patience| self.now.after(patience));
            self.record(Event::WaitBegan { call, with, until });
            self.take_signal(call, name);
            return Ok(());
        }
        let until = until(&with, self.now)?;
        let shown = until.to_rfc3339().ok_or_else(|| invalid("the wait would end after the year 9999"))?;
        let with = Map::from([("until".into(), shown.into())]).into();
        self.record(Event::WaitBegan { call, with, until: Some(until) });
        if until <= self.now {
            self.record(Event::WaitEnded { call });
        }
        Ok(())
    }

    /// Gives kept signals to the steps that wait for them.
    pub(super) fn take_signals(&mut self) {
        if self.run.state.signals.is_empty() {
            return;
        }
        let workflow = Arc::clone(&self.run.workflow);
        let listening: Vec<CallId> = self.run.state.listening.keys().copied().collect();
        for call in listening {
            if let Call::Signal { name, .. } = &workflow.steps[call.step.as_usize()].call {
                self.take_signal(call, name);
            }
        }
    }

    /// The oldest kept signal of the name goes to the call.
    fn take_signal(&mut self, call: CallId, name: &Arc<str>) {
        let kept = self.run.state.signals.iter().find(|kept| kept.name == *name);
        if let Some(id) = kept.map(|kept| Arc::clone(&kept.id)) {
            self.record(Event::SignalTaken { call, id });
        }
    }

    /// Begins the attempts and ends the waits whose time has come.
    pub(super) fn do_what_is_due(&mut self) {
        let workflow = Arc::clone(&self.run.workflow);
        let due: Vec<_> = self.run.state.owed.wakes.keys().take_while(|(at, _)| *at <= self.now).copied().collect();
        for (_, id) in due {
            match id {
                CommandId::Retry(call) => {
                    self.record(Event::CallRetried { call: CallId { attempt: call.attempt + 1, ..call } });
                }
                CommandId::Wait(call) => {
                    let step = &workflow.steps[call.step.as_usize()];
                    match &step.call {
                        Call::Signal { name, .. } => {
                            let failure = nobody_signalled(name, step);
                            self.record(Event::AttemptFailed { call, failure, retry_at: None });
                        }
                        _ => self.record(Event::WaitEnded { call }),
                    }
                }
                CommandId::Call(_) | CommandId::Deadline => {}
            }
        }
    }
}

impl Run {
    /// Whether a signal may be taken in.
    pub(super) fn check_signal(&self, name: &str, payload: &Value, id: &Arc<str>) -> Result<(), Rejection> {
        let state = &self.state;
        if state.signal_ids.contains(id) {
            return Err(Rejection::SignalRepeated { id: Arc::clone(id) });
        }
        let mut open = 0;
        let mut known = vec![];
        for (step, at) in self.workflow.steps.iter().zip(&state.steps) {
            let Call::Signal { name: awaited, schema, .. } = &step.call else { continue };
            if !known.contains(awaited) {
                known.push(Arc::clone(awaited));
            }
            if **awaited != *name || !matches!(at.status, StepStatus::Pending | StepStatus::Active) {
                continue;
            }
            open += 1;
            if let Some(Err(mistakes)) = schema.as_ref().map(|schema| schema.validate(payload)) {
                return Err(Rejection::SignalUnfit { name: name.into(), mistakes: worded(&mistakes) });
            }
        }
        if !known.iter().any(|known| **known == *name) {
            return Err(Rejection::SignalUnknown { name: name.into(), known });
        }
        if open == 0 {
            return Err(Rejection::SignalNotAwaited { name: name.into() });
        }
        if payload.size() > MAX_SIGNAL_BYTES {
            return Err(Rejection::SignalTooLarge { bytes: payload.size(), most: MAX_SIGNAL_BYTES });
        }
        if state.signals.len() >= MAX_KEPT_SIGNALS {
            return Err(Rejection::SignalsFull { most: MAX_KEPT_SIGNALS });
        }
        if state.signal_ids.len() >= MAX_SIGNALS {
            return Err(Rejection::SignalsFull { most: MAX_SIGNALS });
        }
        Ok(())
    }
}

/// When a wait ends, from its evaluated inputs.
fn until(with: &Value, now: Timestamp) -> Result<Timestamp, Failure> {
    let given = |key| with.get(key).filter(|value| **value != Value::Null);
    match (given("for"), given("until")) {
        (Some(value), None) => match value.as_str().map(span::parse) {
            Some(Some(span)) => Ok(now.after(span)),
            Some(None) => {
                Err(invalid("with.for is no duration of at most a year: write it as 30s, 5m, 2h, 1d or PT2H"))
            }
            None => Err(wrong_kind("for", value, "write a duration with its unit, such as '30s' or 'PT2H'")),
        },
        (None, Some(value)) => match value.as_str().map(Timestamp::from_rfc3339) {
            Some(Some(at)) => Ok(at),
            Some(None) => Err(invalid("with.until is no time: write it as 2026-12-24T09:00:00Z or with an offset")),
            None => Err(wrong_kind("until", value, "write a time such as '2026-12-24T09:00:00Z'")),
        },
        _ => Err(invalid("a wait needs either with.for or with.until")),
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Invalid, message)
}

fn wrong_kind(key: &str, value: &Value, advice: &str) -> Failure {
    invalid(format!("with.{key} must be a text, not {}: {advice}", value.kind()))
}

fn nobody_signalled(name: &str, step: &Step) -> Failure {
    let patience = step.timeout.unwrap_or_default();
    Failure::new(FailureClass::Timeout, format!("no signal '{name}' came within {patience:?}"))
}

fn worded(mistakes: &[SchemaError]) -> String {
    mistakes.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
