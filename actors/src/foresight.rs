//! What a live run is about to call, told to the node's models while memory is scarce.
//!
//! Never loads anything and never keeps a run waiting: what is foreseen only weighs when models have to go. Used by the
//! run actor.

use motet_engine::definition::Call;
use motet_engine::run::{Run, StepStatus};

use crate::models::Models;
use crate::residency::Interest;

/// The models of steps that a run has not come to; interests end as it comes to them.
#[derive(Debug, Default)]
pub(crate) struct Foresight {
    /// Place of the step and what is noted.
    ahead: Vec<(usize, Interest)>,
    begun: bool,
}

impl Foresight {
    /// Notes what is ahead once, and then lets go of what was come to.
    pub(crate) fn look(&mut self, run: &Run, models: &Models) {
        let is_ahead =
            |place: usize| run.state().steps.get(place).is_some_and(|step| step.status == StepStatus::Pending);
        if self.begun {
            self.ahead.retain(|(place, _)| is_ahead(*place));
            return;
        }
        if !models.are_scarce() {
            return;
        }
        self.begun = true;
        let namespace = &run.submission().namespace;
        let steps = run.workflow().steps.iter().enumerate().filter(|(place, _)| is_ahead(*place));
        self.ahead = steps
            .filter_map(|(place, step)| match &step.call {
                Call::Model { model, .. } => Some((place, models.foresee(namespace, model)?)),
                _ => None,
            })
            .collect();
    }
}
