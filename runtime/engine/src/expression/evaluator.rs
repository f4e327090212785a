//! The only file that knows the `cel` crate's evaluator: compiles syntax trees and runs them.
//!
//! Every longest member path becomes a slot, looked up on the values and converted only when the evaluation asks for
//! it. Maps are walked in the order of their keys, so that equal inputs give equal results. Patterns of `matches` are
//! compiled once. Never runs a program whose estimated work is over the bound. Used by plans.

use std::sync::{Arc, LazyLock, OnceLock};

use ::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use ::cel::common::types::{CelList, CelMap, CelMapKey, DYN_TYPE};
use ::cel::common::value::{CowVal, Val};
use ::cel::context::VariableResolver;
use ::cel::objects::Key;
use ::cel::{Context, Env, ExecutionError, Value as CelValue};

use super::cost;
use super::functions;
use super::path::{Path, Segment, invalid};
use super::scope::Scope;
use super::{ExpressionError, MAX_COST, MAX_DEPTH};
use crate::failure::Failure;
use crate::value::{Map, Value};

const ORDERED: &str = "@ordered";
const MATCHES: &str = "@matches";
const TYPES: [&str; 10] = ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];
/// Compiled size of one pattern of `matches`.
const MAX_PATTERN: usize = 256 * 1024;

static ENVIRONMENT: LazyLock<Result<Arc<Env>, String>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    environment
        .add_extension(::cel::extensions::strings)
        .and_then(|()| environment.add_overload(ORDERED, "ordered_dyn", vec![DYN_TYPE], ordered))
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(environment))
});

/// Parses a source whose nesting has been checked, and bounds the tree.
pub(super) fn parse(source: &str) -> Result<IdedExpr, ExpressionError> {
    let tree = ::cel::parser::Parser::default().parse(source).map_err(|errors| {
        let Some(first) = errors.errors.first() else { return ExpressionError::new("this is no expression") };
        let message = first.msg.lines().next().unwrap_or_default().replace("Syntax error: ", "");
        ExpressionError { message: syntax_words(&message), offset: offset_of(source, first.pos) }
    })?;
    if depth(&tree, 0) > MAX_DEPTH {
        return Err(ExpressionError::new(format!("the expression is more than {MAX_DEPTH} levels deep; split it")));
    }
    Ok(tree)
}

/// The parser's words without the names of its rules and tokens.
fn syntax_words(message: &str) -> String {
    let quoted = |text: &str| {
        let inner = text.split(" expecting ").next().unwrap_or_default().trim().trim_matches('\'').trim();
        match inner {
            "<EOF>" | "" => "the expression ends too early".to_owned(),
            "=" => "'=' is no operator; did you mean '=='?".to_owned(),
            "&" | "|" => format!("'{inner}' is no operator; did you mean '{inner}{inner}'?"),
            other => format!("'{}' does not fit here", super::wording::shorten(other, 40)),
        }
    };
    let openings =
        ["token recognition error at: ", "mismatched input ", "extraneous input ", "no viable alternative at input "];
    match openings.iter().find_map(|opening| message.strip_prefix(opening)) {
        Some(rest) => quoted(rest),
        None => super::wording::shorten(message, 200),
    }
}

/// The byte offset of a line and column that both count from 1 (columns in characters).
fn offset_of(source: &str, (line, column): (isize, isize)) -> Option<usize> {
    let line = usize::try_from(line).ok()?.checked_sub(1)?;
    let column = usize::try_from(column).ok()?.saturating_sub(1);
    let start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = source.get(start..)?;
    Some(start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at))
}

fn depth(expression: &IdedExpr, above: usize) -> usize {
    let here = above + 1;
    if here > MAX_DEPTH {
        return here;
    }
    children(expression).into_iter().map(|child| depth(child, here)).max().unwrap_or(here)
}

fn children(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(loops) => {
            vec![&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(fields) => fields.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => vec![],
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

/// The root and members that a tree spells when it is a path with a free root.
pub(super) fn as_path(expression: &IdedExpr, bound: &[String]) -> Option<(String, Vec<Segment>)> {
    match &expression.expr {
        Expr::Ident(name) if !name.starts_with(['@', '.']) && !TYPES.contains(&name.as_str()) => {
            (!bound.contains(name)).then(|| (name.clone(), vec![]))
        }
        Expr::Select(select) if !select.test => {
            let (root, mut segments) = as_path(&select.operand, bound)?;
            segments.push(Segment::Key(select.field.as_str().into()));
            Some((root, segments))
        }
        Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
            let segment = match &call.args[1].expr {
                Expr::Literal(LiteralValue::String(key)) => Segment::Key(key.inner().into()),
                Expr::Literal(LiteralValue::Int(index)) => Segment::Index(usize::try_from(*index.inner()).ok()?),
                _ => return None,
            };
            let (root, mut segments) = as_path(&call.args[0], bound)?;
            segments.push(segment);
            Some((root, segments))
        }
        _ => None,
    }
}

/// A place of the program that is filled from the scope.
pub(super) enum Slot {
    /// What lies at the end of a path.
    Value(Path),
    /// Whether the member exists below the path.
    Presence(Path, Segment),
}

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

    pub(super) fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Failure> {
        let environment = ENVIRONMENT.as_ref().map_err(|message| {
            Failure::new(
                crate::failure::FailureClass::Internal,
                format!("the expression language is broken: {message}"),
            )
        })?;
        let cells: Vec<Cell<'_>> = self.slots.iter().map(|slot| Cell::fill(slot, scope)).collect();
        let shapes: Vec<cost::Shape> = cells.iter().map(Cell::shape).collect();
        let estimate = cost::estimate(&self.tree, &shapes);
        if estimate > MAX_COST {
            return Err(invalid(format!(
                "the work of the expression is estimated at {estimate} units for these values; at most {MAX_COST} are \
                 allowed, so shorten the lists first or split the step with for_each"
            )));
        }
        let resolver = Resolver(cells);
        let mut context = Context::with_env(Arc::clone(environment));
        context.set_variable_resolver(&resolver);
        if !self.patterns.is_empty() {
            let patterns = Arc::clone(&self.patterns);
            let matches = move |text: Arc<String>, place: i64| -> bool {
                usize::try_from(place).ok().and_then(|place| patterns.get(place)).is_some_and(|it| it.is_match(&text))
            };
            context.add_function(MATCHES, matches).map_err(|error| invalid(error.to_string()))?;
        }
        let result = context.resolve(&self.tree).map_err(|error| resolver.explain(&error))?;
        drop(context);
        from_cel(&result)
    }
}

#[derive(Default)]
struct Compiler {
    slots: Vec<Slot>,
    patterns: Vec<regex::Regex>,
    bound: Vec<String>,
}

impl Compiler {
    fn slot(&mut self, slot: Slot) -> Expr {
        self.slots.push(slot);
        Expr::Ident(format!("@{}", self.slots.len() - 1))
    }

    fn rewrite(&mut self, tree: &mut IdedExpr) -> Result<(), ExpressionError> {
        if let Some((root, segments)) = as_path(tree, &self.bound) {
            tree.expr = self.slot(Slot::Value(Path::new(&root, segments)?));
            return Ok(());
        }
        match &mut tree.expr {
            Expr::Select(select) if select.test => {
                if let Some((root, mut segments)) = as_path(&select.operand, &self.bound) {
                    segments.push(Segment::Key(select.field.as_str().into()));
                    let path = Path::new(&root, segments)?;
                    if let Some((parent, last)) = path.split_last() {
                        tree.expr = self.slot(Slot::Presence(parent, last));
                        return Ok(());
                    }
                    return Err(ExpressionError::new("has() asks for a member, as in has(input.text)"));
                }
                self.rewrite(&mut select.operand)
            }
            Expr::Select(select) => self.rewrite(&mut select.operand),
            Expr::Call(call) => self.rewrite_call(call),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.rewrite(element)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.rewrite(&mut entry.key)?;
                    self.rewrite(&mut entry.value)
                }
                EntryExpr::StructField(_) => Err(ExpressionError::new("a map's entry is 'key: value'")),
            }),
            Expr::Comprehension(loops) => {
                self.rewrite(&mut loops.iter_range)?;
                self.rewrite(&mut loops.accu_init)?;
                let range = std::mem::take(&mut loops.iter_range);
                let id = range.id;
                let call = CallExpr { func_name: ORDERED.to_owned(), target: None, args: vec![range] };
                loops.iter_range = IdedExpr { id, expr: Expr::Call(call) };
                self.bound.extend([loops.iter_var.clone(), loops.accu_var.clone()]);
                self.rewrite(&mut loops.loop_cond)?;
                self.rewrite(&mut loops.loop_step)?;
                self.rewrite(&mut loops.result)?;
                self.bound.truncate(self.bound.len().saturating_sub(2));
                Ok(())
            }
            Expr::Struct(message) => {
                Err(ExpressionError::new(format!("there is no type '{}' to construct", message.type_name)))
            }
            Expr::Ident(name) if name.starts_with('.') => {
                Err(ExpressionError::new(format!("write '{}' without the leading dot", &name[1..])))
            }
            Expr::Unspecified => Err(ExpressionError::new("a part of the expression is missing")),
            Expr::Ident(_) | Expr::Literal(_) => Ok(()),
        }
    }

    fn rewrite_call(&mut self, call: &mut CallExpr) -> Result<(), ExpressionError> {
        let name = call.func_name.as_str();
        let is_operator = name.contains('_') && name.contains(|c: char| !c.is_alphanumeric() && c != '_');
        if !is_operator && !name.starts_with('@') {
            functions::check(name, call.target.is_some(), call.args.len()).map_err(ExpressionError::new)?;
        }
        if name == "matches" {
            return self.rewrite_matches(call);
        }
        if let Some(target) = &mut call.target {
            self.rewrite(target)?;
        }
        call.args.iter_mut().try_for_each(|argument| self.rewrite(argument))
    }

    /// Patterns are compiled once, so they must be written out.
    fn rewrite_matches(&mut self, call: &mut CallExpr) -> Result<(), ExpressionError> {
        let mut text = match call.target.take() {
            Some(target) => *target,
            None => call.args.remove(0),
        };
        self.rewrite(&mut text)?;
        let Some(IdedExpr { id, expr: Expr::Literal(LiteralValue::String(source)) }) = call.args.first() else {
            return Err(ExpressionError::new("the pattern of 'matches' must be written out as a text"));
        };
        let pattern = regex::RegexBuilder::new(source.inner())
            .size_limit(MAX_PATTERN)
            .dfa_size_limit(MAX_PATTERN)
            .build()
            .map_err(|error| ExpressionError::new(format!("the pattern of 'matches' is wrong: {error}")))?;
        self.patterns.push(pattern);
        let place = i64::try_from(self.patterns.len() - 1).unwrap_or_default();
        let place = IdedExpr { id: *id, expr: Expr::Literal(LiteralValue::Int(place.into())) };
        *call = CallExpr { func_name: MATCHES.to_owned(), target: None, args: vec![text, place] };
        Ok(())
    }
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
            ExecutionError::UnexpectedType { got, want } => format!("expected {want}, got {got}"),
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
    message.replace(MATCHES, "matches").replace(ORDERED, "the range of a macro").replace("'@in'", "'in'")
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
