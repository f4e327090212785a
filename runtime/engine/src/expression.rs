//! Expressions and templates: the logic inside definitions.
//!
//! An expression is CEL; one that only selects members (`steps.a.output.vector`) is walked on the values themselves,
//! so tensors pass through as tensors. A template is a tree of JSON whose strings may hold `${ .. }`. Nothing here
//! reads a clock, loops without bound or allocates without bound: size, depth and an estimate of the work are checked
//! before anything is evaluated. Used by definitions (parsing, references) and by the run (evaluation).

mod cost;
mod evaluator;
mod functions;
mod lexis;
mod path;
mod plan;
mod scope;
mod syntax;
mod template;
#[cfg(test)]
mod tests;
pub(crate) mod wording;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

pub use scope::{RunFacts, Scope, StepView};
pub use template::{Located, Template, TemplateError};

pub(crate) use lexis::{find_identifier, find_reference};
pub(crate) use path::row;
pub(crate) use template::{MAX_NESTING, escape, is_too_deep};

use crate::failure::{Failure, FailureClass};
use crate::value::Value;

/// Longest source of one expression in bytes.
pub const MAX_SOURCE: usize = 4 * 1024;
/// Deepest syntax tree of one expression.
pub const MAX_DEPTH: usize = 64;
/// Most units of work that one evaluation may be estimated at: about one per node visited and byte copied.
pub const MAX_COST: u64 = 10_000_000;

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong and, where known, what to write instead.
    pub message: String,
    /// Byte offset inside the source, where known.
    pub offset: Option<usize>,
}

impl ExpressionError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: None }
    }

    pub(crate) fn at(offset: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: Some(offset) }
    }
}

/// What an expression or template reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Names after `steps.`.
    pub steps: BTreeSet<Arc<str>>,
    /// Whether the run's input is read.
    pub input: bool,
    /// First members of the input that are read by name.
    pub input_members: BTreeSet<Arc<str>>,
    /// Whether facts of the run are read.
    pub run: bool,
    /// Whether the run's state is among them, which it has only when it has ended.
    pub run_state: bool,
    /// Other free identifiers: the variable of a `for_each`, its `index`, or mistakes.
    pub locals: BTreeSet<Arc<str>>,
}

impl References {
    /// Adds everything that the other one reads.
    pub fn merge(&mut self, other: &Self) {
        self.steps.extend(other.steps.iter().cloned());
        self.input |= other.input;
        self.input_members.extend(other.input_members.iter().cloned());
        self.run |= other.run;
        self.run_state |= other.run_state;
        self.locals.extend(other.locals.iter().cloned());
    }
}

/// One expression, compiled.
pub struct Expression {
    source: Arc<str>,
    plan: plan::Plan,
    references: References,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl Expression {
    /// Compiles a source.
    ///
    /// # Errors
    /// When the source is too long or too deep, is no CEL, or calls what does not exist.
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        if source.len() > MAX_SOURCE {
            let message = format!("the expression has {} bytes; at most {MAX_SOURCE} are allowed", source.len());
            return Err(ExpressionError::new(message));
        }
        let tokens = lexis::tokens(source)?;
        if tokens.is_empty() {
            return Err(ExpressionError::at(0, "the expression is empty"));
        }
        lexis::check_nesting(source, &tokens)?;
        let plan = match path::Path::from_tokens(source, &tokens)? {
            Some(path) => plan::Plan::Path(path),
            None => plan::Plan::compile(source)?,
        };
        let mut references = References::default();
        plan.collect_references(&mut references);
        Ok(Self { source: source.into(), plan, references })
    }

    /// The text that was compiled.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What the expression reads.
    #[must_use]
    pub fn references(&self) -> &References {
        &self.references
    }

    /// Evaluates the expression.
    ///
    /// # Errors
    /// `Invalid` when a member is missing, types do not fit, or the work would be too much.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Failure> {
        let mut budget = MAX_COST;
        self.plan.evaluate(scope, &mut budget).map_err(|failure| self.explain(failure))
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and when the result is no boolean.
    pub fn evaluate_bool(&self, scope: &Scope<'_>) -> Result<bool, Failure> {
        match self.evaluate(scope)? {
            Value::Bool(truth) => Ok(truth),
            other => {
                let message = format!("the condition '{}' gave {}, not true or false", self.shown(), other.kind());
                Err(Failure::new(FailureClass::Invalid, message))
            }
        }
    }

    /// Whether the whole expression is a member path, which passes values through untouched.
    #[must_use]
    pub fn is_path(&self) -> bool {
        matches!(self.plan, plan::Plan::Path(_))
    }

    fn explain(&self, mut failure: Failure) -> Failure {
        if !self.is_path() {
            failure.message = format!("{} (in the expression '{}')", failure.message, self.shown());
        }
        failure
    }

    fn shown(&self) -> String {
        wording::shorten(self.source.trim(), 120)
    }
}
