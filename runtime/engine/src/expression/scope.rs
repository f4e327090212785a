//! What expressions may see, looked up only when asked for.
//!
//! Building a scope costs nothing: it borrows. Never converts a value. Used by the run, which builds scopes, and by
//! paths and plans, which read them.

use std::fmt;
use std::sync::Arc;

use crate::id::{Name, Namespace, RunId};
use crate::time::Timestamp;
use crate::value::{Map, Value};

/// What expressions see of a step that has ended.
#[derive(Clone, Copy, Debug)]
pub struct StepView<'a> {
    /// The step's output; null for a skipped step.
    pub output: &'a Value,
    /// How it ended, such as `succeeded` or `skipped`.
    pub state: &'a str,
}

/// What expressions see of the run itself, under `run`.
#[derive(Clone, Copy, Debug)]
pub struct RunFacts<'a> {
    /// `run.id`: the text form of the run's id.
    pub id: RunId,
    /// `run.started_at`: an integer, milliseconds since 1970-01-01T00:00:00Z.
    pub started_at: Timestamp,
    /// `run.workflow`: the workflow's name.
    pub workflow: &'a Name,
    /// `run.version`: the workflow's version.
    pub version: &'a str,
    /// `run.namespace`: the namespace's name.
    pub namespace: &'a Namespace,
    /// `run.state`: how the run ended; none while it goes on, when there is no such member.
    pub state: Option<&'a str>,
}

impl RunFacts<'_> {
    /// The members of `run` at any time.
    pub const MEMBERS: [&'static str; 5] = ["id", "workflow", "version", "namespace", "started_at"];

    /// The member of `run` that it has when it has ended.
    pub const STATE: &'static str = "state";

    /// One member of `run`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        Some(match name {
            "id" => self.id.to_string().into(),
            "workflow" => self.workflow.as_str().into(),
            "version" => self.version.into(),
            "namespace" => self.namespace.0.as_str().into(),
            "started_at" => Value::Int(self.started_at.as_millis()),
            Self::STATE => self.state?.into(),
            _ => return None,
        })
    }

    pub(super) fn to_value(self) -> Value {
        let member = |name: &'static str| Some((Arc::from(name), self.get(name)?));
        Self::MEMBERS.into_iter().chain([Self::STATE]).filter_map(member).collect::<Map>().into()
    }
}

/// What expressions may see. All of it is borrowed; steps are asked for one at a time.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// `input`: the run's input.
    pub input: &'a Value,
    /// `steps.NAME`: the ended step of a name; none for one that has not ended or does not exist.
    pub steps: &'a dyn Fn(&str) -> Option<StepView<'a>>,
    /// The variable of a `for_each` and `index`; the last one of a name counts.
    pub locals: &'a [(Arc<str>, Value)],
    /// `run`: facts of the run.
    pub run: &'a RunFacts<'a>,
}

impl<'a> Scope<'a> {
    pub(super) fn local(&self, name: &str) -> Option<&'a Value> {
        self.locals.iter().rev().find(|(local, _)| &**local == name).map(|(_, value)| value)
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("input", self.input).field("locals", &self.locals).finish_non_exhaustive()
    }
}
