//! Going on after the end: a retry of the same run from a step, a fork into a new one, a place in an order given up.
//!
//! A step that runs again takes every step with it that needs it. Never changes what was recorded: outputs that are
//! kept stay where they are in a retry and are copied by value into a fork.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Plan, unfit_key};
use crate::access::Principal;
use crate::event::{Event, KeptStep, Submission};
use crate::id::{RunId, StepIndex};
use crate::input::{Input, Rejection};
use crate::run::{Phase, Run, StepStatus};
use crate::schema::SchemaError;
use crate::time::Timestamp;
use crate::trace::TraceContext;
use crate::value::Value;

/// What a new run takes over from an existing one, and what it does not.
#[derive(Clone, Debug)]
pub struct Fork {
    /// The step to begin from, by name; it and every step that needs it run again.
    pub step: Arc<str>,
    /// Another input; the existing run's where none is given.
    pub input: Option<Value>,
    /// Other outputs of steps that do not run again, by name.
    pub outputs: BTreeMap<Arc<str>, Value>,
    /// Who asks.
    pub by: Principal,
    /// The operation that the fork is part of.
    pub trace: TraceContext,
    /// When it is asked for.
    pub at: Timestamp,
}

/// Why a run cannot be forked as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ForkError {
    /// The workflow has no such step.
    #[error("the workflow has no step '{0}'")]
    UnknownStep(Arc<str>),
    /// A step that the named one needs has not ended, so there is no output to keep.
    #[error("the step '{0}' has no output to keep: fork from it or a step before it, or give its output")]
    NotEnded(Arc<str>),
    /// An output was given for a step that runs again.
    #[error("the step '{0}' runs again in the fork, so its output cannot be given")]
    RunsAgain(Arc<str>),
    /// The input does not fit the workflow's input schema.
    #[error("the input does not fit the workflow's input schema")]
    Unfit(Vec<SchemaError>),
}

impl Run {
    /// The first events of a new run that begins from a step of this one: submission, what is kept, and everything
    /// that follows at once. The shard is chosen as at a submission. The new run comes from no record, whatever the
    /// existing one came from: it stands in no order, and no result of it is sent. Steps beside the named one keep their outputs where they have ended and run where not.
    ///
    /// # Errors
    /// When the fork names what does not exist or has not ended, or its input does not fit.
    pub fn fork(&self, id: RunId, fork: Fork, shards: u16) -> Result<(Self, Vec<Event>), ForkError> {
        let (step, _) = self.workflow.step(&fork.step).ok_or_else(|| ForkError::UnknownStep(Arc::clone(&fork.step)))?;
        let (kept, outputs) = self.kept(step, &fork.outputs)?;
        let submission = Submission {
            principal: fork.by.clone(),
            input: fork.input.unwrap_or_else(|| self.state.submission.input.clone()),
            trace: fork.trace,
            at: fork.at,
            source: None,
            ..Submission::clone(&self.state.submission)
        };
        if let Some(schema) = &self.workflow.input_schema {
            schema.validate(&submission.input).map_err(ForkError::Unfit)?;
        }
        let first = Event::Submitted(Arc::new(submission));
        let Ok(mut run) = Self::begin(id, Arc::clone(&self.workflow), &first, fork.at) else {
            return Err(ForkError::Unfit(vec![]));
        };
        run.join_group(shards).map_err(|failure| ForkError::Unfit(vec![unfit_key(&failure)]))?;
        let mut plan = Plan { run, now: fork.at, events: vec![first] };
        plan.record(Event::Forked { from: self.id, by: fork.by, step, kept, outputs: outputs.into() });
        plan.advance();
        Ok((plan.run, plan.events))
    }

    /// What an input means for a run that has ended.
    pub(super) fn after_the_end(&self, input: &Input) -> Result<Event, Rejection> {
        match input {
            Input::Retry { from, by } => {
                let steps = self.steps_to_retry(from.as_deref())?;
                Ok(Event::RunRetried { by: by.clone(), steps })
            }
            Input::LeaveLine { by } if self.state.holds_line() => Ok(Event::LineLeft { by: by.clone() }),
            Input::LeaveLine { .. } => Err(Rejection::NoLine),
            _ => Err(Rejection::Ended),
        }
    }

    /// What a fork from a step keeps: the steps and, in their order, their outputs.
    fn kept(
        &self,
        from: StepIndex,
        given: &BTreeMap<Arc<str>, Value>,
    ) -> Result<(Vec<KeptStep>, Vec<Value>), ForkError> {
        if let Some(name) = given.keys().find(|name| self.workflow.step(name).is_none()) {
            return Err(ForkError::UnknownStep(Arc::clone(name)));
        }
        let again = self.downstream(BTreeSet::from([from]));
        let needed = self.upstream(from);
        let (mut kept, mut outputs) = (vec![], vec![]);
        for (place, (step, state)) in self.workflow.steps.iter().zip(&self.state.steps).enumerate() {
            let Ok(index) = u16::try_from(place).map(StepIndex) else { break };
            let given = given.get(&step.name);
            if again.contains(&index) {
                if given.is_some() {
                    return Err(ForkError::RunsAgain(Arc::clone(&step.name)));
                }
                continue;
            }
            let skipped = state.status == StepStatus::Skipped;
            match (given, state.status) {
                (Some(output), _) => {
                    kept.push(KeptStep { step: index, skipped: false, fallback: false, given: true });
                    outputs.push(output.clone());
                }
                (None, StepStatus::Succeeded | StepStatus::Skipped) => {
                    kept.push(KeptStep { step: index, skipped, fallback: state.fallback, given: false });
                    outputs.push(state.output.clone());
                }
                (None, _) if needed.contains(&index) => return Err(ForkError::NotEnded(Arc::clone(&step.name))),
                (None, _) => {}
            }
        }
        Ok((kept, outputs))
    }

    /// The steps that go back to pending when the run is retried.
    fn steps_to_retry(&self, from: Option<&str>) -> Result<Vec<StepIndex>, Rejection> {
        let named = match from {
            None => None,
            Some(name) => match self.workflow.step(name) {
                Some((index, _)) => Some(index),
                None => return Err(Rejection::UnknownStep { name: name.into() }),
            },
        };
        let unfinished = |status| matches!(status, StepStatus::Active | StepStatus::Failed);
        let all = (0..u16::try_from(self.state.steps.len()).unwrap_or(u16::MAX)).map(StepIndex);
        let broken = all.filter(|index| unfinished(self.state.steps[index.as_usize()].status));
        let first: BTreeSet<StepIndex> = broken.chain(named).collect();
        // Cancelled or timed out before anything began: everything is pending, and goes on from there.
        let has_pending = self.state.steps.iter().any(|step| step.status == StepStatus::Pending);
        if first.is_empty() && (self.state.phase == Phase::Succeeded || !has_pending) {
            return Err(Rejection::NothingToRetry);
        }
        Ok(self.downstream(first).into_iter().collect())
    }

    /// These steps and every step that needs one of them, directly or through others.
    fn downstream(&self, mut found: BTreeSet<StepIndex>) -> BTreeSet<StepIndex> {
        loop {
            let before = found.len();
            for (place, step) in self.workflow.steps.iter().enumerate() {
                if let Ok(place) = u16::try_from(place)
                    && step.needs.iter().any(|need| found.contains(need))
                {
                    found.insert(StepIndex(place));
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }

    /// Every step that the step needs, directly or through others.
    fn upstream(&self, step: StepIndex) -> BTreeSet<StepIndex> {
        let mut found = BTreeSet::new();
        let mut open = vec![step];
        while let Some(step) = open.pop() {
            open.extend(self.workflow.steps[step.as_usize()].needs.iter().filter(|need| found.insert(**need)));
        }
        found
    }
}
