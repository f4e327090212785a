//! What the journal of one finished run may look like, whatever happened to the node meanwhile.
//!
//! Stated without the engine's own rules, so that a mistake there is seen here. Used by the history.

use std::collections::BTreeSet;
use std::sync::Arc;

use motet_engine::event::Event;
use motet_engine::id::{CallId, StepIndex};
use serde_json::Value;

/// Checks the journal of a run that has ended: submitted once, forked at once or never, every attempt and every wait
/// begun once, every item and every step with one result until a retry takes it back, every signal taken once, one
/// end, nothing after it but a retry and, once, a place in an order that is given up.
///
/// # Errors
/// With the first thing that cannot be.
pub fn check_shape(events: &[Event]) -> Result<(), String> {
    let mut seen = Seen::default();
    for (place, event) in events.iter().enumerate() {
        let number = place + 1;
        if matches!(event, Event::Submitted(_)) != (place == 0) {
            return Err(format!("event {number} is {}", event.kind()));
        }
        if seen.ended && !matches!(event, Event::RunRetried { .. } | Event::LineLeft { .. }) {
            return Err(format!("event {number}, {}, comes after the end", event.kind()));
        }
        if !seen.take(event) {
            return Err(format!(
                "event {number}, {} of step {:?}, is there twice or too late",
                event.kind(),
                event.step()
            ));
        }
    }
    if seen.ended { Ok(()) } else { Err("it has no end".to_owned()) }
}

#[derive(Default)]
struct Seen {
    scheduled: BTreeSet<(StepIndex, u32, u32)>,
    failed: BTreeSet<(StepIndex, u32, u32)>,
    items: BTreeSet<(StepIndex, u32)>,
    steps: BTreeSet<StepIndex>,
    expanded: BTreeSet<StepIndex>,
    signals: BTreeSet<Arc<str>>,
    kept: BTreeSet<Arc<str>>,
    events: u32,
    paused: bool,
    line_left: bool,
    ended: bool,
}

impl Seen {
    /// Whether the event may come after the ones before it.
    fn take(&mut self, event: &Event) -> bool {
        self.events += 1;
        if event.step().is_some_and(|step| self.steps.contains(&step)) && !matches!(event, Event::RunFailed { .. }) {
            return false;
        }
        match event {
            Event::CallScheduled { call, .. }
            | Event::CallRetried { call }
            | Event::FellBack { call, .. }
            | Event::WaitBegan { call, .. } => {
                !self.paused
                    && !self.items.contains(&(call.step, call.item))
                    && self.scheduled.insert((call.step, call.item, call.attempt))
            }
            Event::AttemptFailed { call, .. } => {
                self.scheduled.contains(&(call.step, call.item, call.attempt))
                    && self.failed.insert((call.step, call.item, call.attempt))
            }
            Event::StepExpanded { step, .. } => self.expanded.insert(*step),
            Event::ItemSucceeded { step, item, .. } => self.items.insert((*step, *item)),
            Event::StepSkipped { step } | Event::StepSucceeded { step, .. } | Event::StepFailed { step, .. } => {
                self.steps.insert(*step)
            }
            Event::RunSucceeded { .. } | Event::RunFailed { .. } | Event::RunCancelled { .. } | Event::RunTimedOut => {
                self.ended = true;
                true
            }
            Event::Submitted(_) => true,
            Event::WaitEnded { call } => self.wait_over(*call),
            Event::SignalReceived { id, .. } => self.signals.insert(id.clone()) && self.kept.insert(id.clone()),
            Event::SignalTaken { call, id } => self.kept.remove(id) && self.wait_over(*call),
            Event::Paused { .. } => !std::mem::replace(&mut self.paused, true),
            Event::Resumed { .. } => std::mem::replace(&mut self.paused, false),
            Event::LineReached => self.scheduled.is_empty() && self.steps.is_empty(),
            Event::LineLeft { .. } => self.ended && !std::mem::replace(&mut self.line_left, true),
            Event::RunRetried { steps, .. } => {
                self.steps.retain(|step| !steps.contains(step));
                self.expanded.retain(|step| !steps.contains(step));
                self.items.retain(|(step, _)| !steps.contains(step));
                self.paused = false;
                std::mem::replace(&mut self.ended, false)
            }
            Event::Forked { kept, .. } => self.events == 2 && kept.iter().all(|kept| self.steps.insert(kept.step)),
        }
    }

    /// Whether a wait of the item had begun and gives its only result.
    fn wait_over(&mut self, call: CallId) -> bool {
        !self.paused
            && self.scheduled.contains(&(call.step, call.item, call.attempt))
            && self.items.insert((call.step, call.item))
    }
}

/// Checks events as the API gave them: numbered 1, 2, 3 and so on.
///
/// # Errors
/// With the first number that is missing or there twice.
pub fn check_wire(events: &[Value]) -> Result<(), String> {
    for (place, event) in events.iter().enumerate() {
        let number = event["seq"].as_u64();
        if number != Some(place as u64 + 1) {
            return Err(format!("event {} has the number {}", place + 1, event["seq"]));
        }
    }
    Ok(())
}
