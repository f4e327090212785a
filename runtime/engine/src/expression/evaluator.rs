//! Runs CEL programs.
//!
//! Slots are looked up on the values and converted only when the evaluation asks for them. Maps are walked in the
//! order of their keys, so that equal inputs give equal results. Never runs a program whose estimated work is over
//! the bound. Used by plans.

use std::sync::{Arc, LazyLock, OnceLock};

use ::cel::common::ast::IdedExpr;
use ::cel::common::types::{CelList, CelMap, CelMapKey, DYN_TYPE};
use ::cel::common::value::{CowVal, Val};
use ::cel::context::VariableResolver;
use ::cel::objects::Key;
use ::cel::{Context, Env, ExecutionError, Value as CelValue};

use super::cost;
use super::path::{Path, invalid};
use super::scope::Scope;
use super::syntax::{ADDEND, Compiler, MATCHES, ORDERED, Slot};
use super::{ExpressionError, MAX_COST};
use crate::failure::Failure;
use crate::value::{Map, Value};

static ENVIRONMENT: LazyLock<Result<Arc<Env>, String>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    environment
        .add_extension(::cel::extensions::strings)
        .and_then(|()| environment.add_overload(ORDERED, "ordered_dyn", vec![DYN_TYPE], ordered))
        .and_then(|()| environment.add_overload(ADDEND, "addend_dyn", vec![DYN_TYPE], addend))
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(environment))
});

/// A compiled CEL program.
pub(super) struct Program {
    tree: IdedExpr,
    slots: Vec<Slot>,
    patterns: Arc<Vec<regex::Regex>>,
}

impl Program {
    pub(super) fn compile(mut tree: IdedExpr) -> Result<Self, ExpressionError> {
        let mut compiler = Compiler::default();
        compiler.rewrite(&mut tree)?;
        Ok(Self { tree, slots: compiler.slots, patterns: Arc::new(compiler.patterns) })
    }

    /// Every path that the program may read.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.slots.iter().map(|slot| match slot {
            Slot::Value(path) | Slot::Presence(path, _) => path,
        })
    }

    pub(super) fn evaluate(&self, scope: &Scope<'_>, budget: &mut u64) -> Result<Value, Failure> {
        let environment = ENVIRONMENT.as_ref().map_err(|message| {
            Failure::new(
                crate::failure::FailureClass::Internal,
                format!("the expression language is broken: {message}"),
            )
        })?;
        let cells: Vec<Cell<'_>> = self.slots.iter().map(|slot| Cell::fill(slot, scope)).collect();
        let shapes: Vec<cost::Shape> = cells.iter().map(Cell::shape).collect();
        let estimate = cost::estimate(&self.tree, &shapes);
        let Some(rest) = budget.checked_sub(estimate) else {
            return Err(invalid(format!(
                "the work of the expression is estimated at {estimate} units for these values; at most {MAX_COST} are \
                 allowed, so shorten the lists first or split the step with for_each"
            )));
        };
        *budget = rest;
        let resolver = Resolver(cells);
        let mut context = Context::with_env(Arc::clone(environment));
        context.set_variable_resolver(&resolver);
        if !self.patterns.is_empty() {
            let patterns = Arc::clone(&self.patterns);
            let matches = move |text: CelValue, place: i64| -> Result<bool, ExecutionError> {
                let CelValue::String(text) = text else { return Err(refused("matches", "only a text can match")) };
                let pattern = usize::try_from(place).ok().and_then(|place| patterns.get(place));
                Ok(pattern.is_some_and(|pattern| pattern.is_match(&text)))
            };
            context.add_function(MATCHES, matches).map_err(|error| invalid(error.to_string()))?;
        }
        let result = context.resolve(&self.tree).map_err(|error| resolver.explain(&error))?;
        drop(context);
        from_cel(&result)
    }
}

fn refused(function: &str, message: &str) -> ExecutionError {
    ExecutionError::FunctionError { function: function.to_owned(), message: message.to_owned() }
}

/// A slot as filled for one evaluation: the value found, and its converted form once asked for.
struct Cell<'a> {
    found: Result<std::borrow::Cow<'a, Value>, Failure>,
    converted: OnceLock<Option<Box<dyn Val>>>,
}

impl<'a> Cell<'a> {
    fn fill(slot: &Slot, scope: &Scope<'a>) -> Self {
        let found = match slot {
            Slot::Value(path) => path.lookup(scope),
            Slot::Presence(path, last) => Ok(std::borrow::Cow::Owned(Value::Bool(path.has(last, scope)))),
        };
        Self { found, converted: OnceLock::new() }
    }

    fn shape(&self) -> cost::Shape {
        self.found.as_ref().map_or_else(|_| cost::Shape::default(), |value| cost::Shape::of(value))
    }
}

struct Resolver<'a>(Vec<Cell<'a>>);

impl Resolver<'_> {
    /// Words for a failed evaluation; a value that was not found explains more than what CEL says about it.
    fn explain(&self, error: &ExecutionError) -> Failure {
        if let ExecutionError::UndeclaredReference(name) = error
            && let Some(Err(failure)) = cell_index(name).and_then(|index| self.0.get(index)).map(|cell| &cell.found)
        {
            return failure.clone();
        }
        invalid(match error {
            ExecutionError::NoSuchKey(key) => format!("there is no member '{}'", super::wording::shorten(key, 80)),
            ExecutionError::NoSuchOverload(overload) => super::wording::shorten(&readable(&overload.to_string()), 300),
            ExecutionError::UndeclaredReference(name) => format!("there is no '{}'", readable(name)),
            // Some of these quote whole values, whose maps have no order: only names of types are passed on.
            ExecutionError::UnexpectedType { got, want }
                if got.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
            {
                format!("expected {want}, got {got}")
            }
            ExecutionError::UnexpectedType { want, .. } => format!("expected {want}"),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".into(),
            ExecutionError::Overflow(..) => "the result does not fit 64 bits".into(),
            ExecutionError::IndexOutOfBounds(CelValue::Int(index)) => format!("there is no element [{index}]"),
            ExecutionError::IndexOutOfBounds(_) => "there is no such element".into(),
            ExecutionError::FunctionError { function, message } => {
                format!("{function}: {}", super::wording::shorten(message, 200))
            }
            ExecutionError::ValuesNotComparable(..) => "values of these types cannot be compared".into(),
            ExecutionError::UnsupportedKeyType(_) => "only texts, integers and booleans can be keys".into(),
            ExecutionError::DuplicateKey(_) => "a key stands twice in one map".into(),
            ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
                format!("'{operator}' does not take {} and {}", left.type_of(), right.type_of())
            }
            _ => "the types do not fit".into(),
        })
    }
}

/// Operator names of CEL's tree as users write them.
fn readable(message: &str) -> String {
    message
        .replace(MATCHES, "matches")
        .replace(ADDEND, "+")
        .replace(ORDERED, "the range of a macro")
        .replace("'@in'", "'in'")
}

fn cell_index(name: &str) -> Option<usize> {
    name.strip_prefix('@')?.parse().ok()
}

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let cell = self.0.get(cell_index(variable)?)?;
        let value = cell.found.as_ref().ok()?;
        let converted = cell.converted.get_or_init(|| Box::<dyn Val>::try_from(to_cel(value)).ok());
        Some(CowVal::Borrowed(&**converted.as_ref()?))
    }
}

/// What is added, unless it is a map: CEL would append its keys in any order.
fn addend<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let right = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    match right.downcast_ref::<CelMap<'v>>() {
        Some(_) => Err(refused("+", "a map cannot be added")),
        None => Ok(right),
    }
}

/// The elements of a list as they are, the keys of a map in order: CEL leaves their order open, we must not.
fn ordered<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let range = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let Some(map) = range.downcast_ref::<CelMap<'v>>() else { return Ok(range) };
    let mut keys: Vec<Key> = map.inner().keys().cloned().map(Key::from).collect();
    keys.sort();
    let keys: Vec<Box<dyn Val + 'v>> = keys
        .into_iter()
        .map(|key| match CelMapKey::from(key) {
            CelMapKey::Bool(key) => Box::new(key) as Box<dyn Val + 'v>,
            CelMapKey::Int(key) => Box::new(key),
            CelMapKey::UInt(key) => Box::new(key),
            CelMapKey::String(key) => Box::new(key),
        })
        .collect();
    Ok(CowVal::owned(CelList::from(keys)))
}

fn to_cel(value: &Value) -> CelValue {
    match value {
        Value::Null | Value::Blob(_) => CelValue::Null,
        Value::Bool(truth) => CelValue::Bool(*truth),
        Value::Int(number) => CelValue::Int(*number),
        Value::Float(number) => CelValue::Float(*number),
        Value::String(text) => CelValue::String(Arc::new(text.as_ref().to_owned())),
        Value::List(items) => CelValue::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Map(map) => CelValue::Map(::cel::objects::Map {
            map: Arc::new(
                map.iter()
                    .map(|(key, value)| (Key::String(Arc::new(key.as_ref().to_owned())), to_cel(value)))
                    .collect(),
            ),
        }),
        Value::Tensor(_) => to_cel(&Value::from(value.to_json())),
    }
}

fn from_cel(value: &CelValue) -> Result<Value, Failure> {
    Ok(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(truth) => Value::Bool(*truth),
        CelValue::Int(number) => Value::Int(*number),
        CelValue::UInt(number) => i64::try_from(*number).map_or(Value::Float(*number as f64), Value::Int),
        CelValue::Float(number) => Value::Float(*number),
        CelValue::String(text) => Value::from(text.as_str()),
        CelValue::List(items) => items.iter().map(from_cel).collect::<Result<Vec<_>, _>>()?.into(),
        CelValue::Map(map) => {
            let mut converted = Map::new();
            for (key, value) in map.map.iter() {
                converted.insert(key.to_string().into(), from_cel(value)?);
            }
            converted.into()
        }
        CelValue::Bytes(_) => return Err(invalid("the result is bytes; make it a text with string(..)")),
        _ => return Err(invalid("the result is no JSON value")),
    })
}
