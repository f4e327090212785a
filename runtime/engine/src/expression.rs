//! Expressions.
use crate::failure::Failure;
use crate::id::{Name, Namespace, RunId};
use crate::time::Timestamp;
use crate::value::Value;
use std::sync::Arc;
/// One expression.
#[derive(Debug)]
pub struct Expression;
/// A tree of values with expressions in it.
#[derive(Debug)]
pub struct Template;
/// What expressions may see of a step.
#[derive(Debug, Clone, Copy)]
pub struct StepView<'a> {
    /// Its output; null while there is none and for a skipped step.
    pub output: &'a Value,
    /// Its state by name.
    pub state: &'static str,
}
/// What expressions may see of the run.
#[derive(Debug, Clone, Copy)]
pub struct RunFacts<'a> {
    /// Identity.
    pub id: RunId,
    /// When it was submitted.
    pub started_at: Timestamp,
    /// Workflow by name.
    pub workflow: &'a Name,
    /// Version.
    pub version: &'a str,
    /// Tenant.
    pub namespace: &'a Namespace,
}
/// What expressions may see.
pub struct Scope<'a> {
    /// The run's input.
    pub input: &'a Value,
    /// Steps by name.
    pub steps: &'a dyn Fn(&str) -> Option<StepView<'a>>,
    /// The element of a `for_each` and its `index`.
    pub locals: &'a [(Arc<str>, Value)],
    /// The run.
    pub run: &'a RunFacts<'a>,
}
impl Expression {
    /// Evaluates.
    pub fn evaluate(&self, _: &Scope<'_>) -> Result<Value, Failure> {
        Ok(Value::Null)
    }
    /// Evaluates to a truth.
    pub fn evaluate_bool(&self, _: &Scope<'_>) -> Result<bool, Failure> {
        Ok(true)
    }
}
impl Template {
    /// Evaluates.
    pub fn evaluate(&self, _: &Scope<'_>) -> Result<Value, Failure> {
        Ok(Value::Null)
    }
}
