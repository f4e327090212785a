//! What the journal of one finished run may look like, whatever happened to the node meanwhile.
//!
//! Stated without the engine's own rules, so that a mistake there is seen here. Used by the history.

use std::collections::BTreeSet;

use motet_engine::event::Event;
use motet_engine::id::StepIndex;
use serde_json::Value;

/// Checks the journal of a run that has ended: submitted once, every call scheduled once, every item and every step
/// with one result, one end, nothing after it.
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
        if seen.ended {
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
    ended: bool,
}

impl Seen {
    /// Whether the event may come after the ones before it.
    fn take(&mut self, event: &Event) -> bool {
        if event.step().is_some_and(|step| self.steps.contains(&step)) && !matches!(event, Event::RunFailed { .. }) {
            return false;
        }
        match event {
            Event::CallScheduled { call, .. } | Event::CallRetried { call } | Event::FellBack { call, .. } => {
                !self.items.contains(&(call.step, call.item))
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
        }
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
