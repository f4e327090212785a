//! Expressions.
use crate::value::Value;
/// One expression.
#[derive(Debug)]
pub struct Expression;
/// A tree of values with expressions in it.
#[derive(Debug)]
pub struct Template;
/// What expressions may see.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The run's input.
    pub input: &'a Value,
}
