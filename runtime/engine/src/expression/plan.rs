//! How an expression is evaluated: what can be is done on the values themselves, the rest by CEL.
//!
//! Paths, constants, and the choice, lists and maps around them need no CEL, so that tensors survive
//! `has(x) ? a.vector : b.vector`. Never evaluates without bound: CEL programs estimate their work first.

use std::sync::Arc;

use ::cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::evaluator::Program;
use super::path::{Path, invalid};
use super::scope::Scope;
use super::syntax;
use super::{ExpressionError, References};
use crate::failure::Failure;
use crate::value::{Map, Value};

/// A compiled expression.
pub(super) enum Plan {
    Path(Path),
    Constant(Value),
    Choice(Box<[Plan; 3]>),
    List(Vec<Plan>),
    Map(Vec<(Arc<str>, Plan)>),
    Cel(Box<Program>),
}

impl Plan {
    /// Compiles a source whose nesting has been checked.
    pub(super) fn compile(source: &str) -> Result<Self, ExpressionError> {
        Self::of(syntax::parse(source)?)
    }

    fn of(mut expression: IdedExpr) -> Result<Self, ExpressionError> {
        if let Some((root, segments)) = syntax::as_path(&expression, &[]) {
            return Path::new(&root, segments).map(Self::Path);
        }
        match &mut expression.expr {
            Expr::Literal(literal) => {
                if let Some(value) = constant(literal) {
                    return Ok(Self::Constant(value));
                }
            }
            Expr::Call(call) if call.func_name == operators::CONDITIONAL && call.args.len() == 3 => {
                let mut parts = std::mem::take(&mut call.args).into_iter().map(Self::of);
                if let (Some(when), Some(then), Some(otherwise)) = (parts.next(), parts.next(), parts.next()) {
                    return Ok(Self::Choice(Box::new([when?, then?, otherwise?])));
                }
            }
            Expr::List(list) if list.optional_indices.is_empty() => {
                return std::mem::take(&mut list.elements)
                    .into_iter()
                    .map(Self::of)
                    .collect::<Result<_, _>>()
                    .map(Self::List);
            }
            Expr::Map(map) if map.entries.iter().all(|entry| text_key(&entry.expr).is_some()) => {
                let mut entries: Vec<(Arc<str>, Self)> = Vec::with_capacity(map.entries.len());
                for entry in std::mem::take(&mut map.entries) {
                    let (Some(key), EntryExpr::MapEntry(entry)) = (text_key(&entry.expr), entry.expr) else { continue };
                    if entries.iter().any(|(known, _)| *known == key) {
                        return Err(ExpressionError::new(format!("the key '{key}' stands twice in one map")));
                    }
                    entries.push((key, Self::of(entry.value)?));
                }
                return Ok(Self::Map(entries));
            }
            _ => {}
        }
        Ok(Self::Cel(Box::new(Program::compile(expression)?)))
    }

    pub(super) fn collect_references(&self, references: &mut References) {
        match self {
            Self::Path(path) => path.collect_references(references),
            Self::Constant(_) => {}
            Self::Choice(parts) => parts.iter().for_each(|part| part.collect_references(references)),
            Self::List(parts) => parts.iter().for_each(|part| part.collect_references(references)),
            Self::Map(entries) => entries.iter().for_each(|(_, part)| part.collect_references(references)),
            Self::Cel(program) => program.paths().for_each(|path| path.collect_references(references)),
        }
    }

    /// Evaluates; every program takes its estimated work out of the budget.
    pub(super) fn evaluate(&self, scope: &Scope<'_>, budget: &mut u64) -> Result<Value, Failure> {
        match self {
            Self::Path(path) => path.lookup(scope).map(std::borrow::Cow::into_owned),
            Self::Constant(value) => Ok(value.clone()),
            Self::Choice(parts) => {
                let [when, then, otherwise] = &**parts;
                match when.evaluate(scope, budget)? {
                    Value::Bool(true) => then.evaluate(scope, budget),
                    Value::Bool(false) => otherwise.evaluate(scope, budget),
                    other => Err(invalid(format!("the part before '?' gave {}, not true or false", other.kind()))),
                }
            }
            Self::List(parts) => {
                parts.iter().map(|part| part.evaluate(scope, budget)).collect::<Result<Vec<_>, _>>().map(Value::from)
            }
            Self::Map(entries) => entries
                .iter()
                .map(|(key, part)| Ok((Arc::clone(key), part.evaluate(scope, budget)?)))
                .collect::<Result<Map, _>>()
                .map(Value::from),
            Self::Cel(program) => program.evaluate(scope, budget),
        }
    }
}

fn constant(literal: &LiteralValue) -> Option<Value> {
    Some(match literal {
        LiteralValue::Boolean(truth) => Value::Bool(*truth.inner()),
        LiteralValue::Int(number) => Value::Int(*number.inner()),
        LiteralValue::Double(number) => Value::Float(*number.inner()),
        LiteralValue::String(text) => Value::from(text.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::Bytes(_) | LiteralValue::UInt(_) => return None,
    })
}

fn text_key(entry: &EntryExpr) -> Option<Arc<str>> {
    match entry {
        EntryExpr::MapEntry(entry) if !entry.optional => match &entry.key.expr {
            Expr::Literal(LiteralValue::String(key)) => Some(key.inner().into()),
            _ => None,
        },
        _ => None,
    }
}
