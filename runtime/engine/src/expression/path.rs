//! Member paths such as `steps.a.output.items[0]["x"]`, walked on the values themselves.
//!
//! Never converts a value: what lies at the end of a path is shared, not copied, so tensors stay tensors. Used by
//! plans for whole paths and, inside CEL, for the longest paths of an expression.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::lexis::{Kind, Token};
use super::scope::{RunFacts, Scope};
use super::{ExpressionError, References};
use crate::failure::{Failure, FailureClass};
use crate::tensor::Tensor;
use crate::value::{Map, Value};

/// Where a path starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Input,
    Step(Arc<str>),
    Run,
    Local(Arc<str>),
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Key(Arc<str>),
    Index(usize),
}

/// A root and the members below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    root: Root,
    segments: Vec<Segment>,
}

impl Path {
    /// From a free identifier and the members after it; checks what is known of `steps` and `run`.
    pub(super) fn new(root: &str, mut segments: Vec<Segment>) -> Result<Self, ExpressionError> {
        let root = match root {
            "input" => Root::Input,
            "run" => {
                if let Some(segment) = segments.first()
                    && !is_state(segment)
                {
                    check_member("run", segment, &RunFacts::MEMBERS)?;
                }
                Root::Run
            }
            "steps" => {
                if !matches!(segments.first(), Some(Segment::Key(_))) {
                    return Err(ExpressionError::new("'steps' must be followed by the name of a step: 'steps.NAME'"));
                }
                let Segment::Key(name) = segments.remove(0) else {
                    return Err(ExpressionError::new("'steps' must be followed by the name of a step"));
                };
                if let Some(segment) = segments.first() {
                    check_member(&format!("steps.{name}"), segment, &["output", "state"])?;
                }
                Root::Step(name)
            }
            local => Root::Local(local.into()),
        };
        Ok(Self { root, segments })
    }

    /// The path that the tokens spell; none when they spell more than a path.
    pub(super) fn from_tokens(source: &str, tokens: &[Token]) -> Result<Option<Self>, ExpressionError> {
        let Some((first, mut rest)) = tokens.split_first() else { return Ok(None) };
        let root = first.text(source);
        if first.kind != Kind::Identifier || is_reserved(root) {
            return Ok(None);
        }
        let mut segments = Vec::new();
        while !rest.is_empty() {
            let texts = |n: usize| rest.get(n).map_or("", |token| token.text(source));
            let kind = rest.get(1).map(|token| token.kind);
            match (texts(0), kind, texts(2)) {
                (".", Some(Kind::Identifier), _) if !is_reserved(texts(1)) => {
                    segments.push(Segment::Key(texts(1).into()));
                    rest = &rest[2..];
                }
                ("[", Some(Kind::Number), "]") => {
                    let Ok(index) = texts(1).parse() else { return Ok(None) };
                    segments.push(Segment::Index(index));
                    rest = &rest[3..];
                }
                ("[", Some(Kind::Text), "]") => {
                    let Some(key) = plain_text(texts(1)) else { return Ok(None) };
                    segments.push(Segment::Key(key.into()));
                    rest = &rest[3..];
                }
                _ => return Ok(None),
            }
        }
        Self::new(root, segments).map(Some).map_err(|error| ExpressionError { offset: Some(first.start), ..error })
    }

    pub(super) fn collect_references(&self, references: &mut References) {
        match &self.root {
            Root::Input => {
                references.input = true;
                if let Some(Segment::Key(key)) = self.segments.first() {
                    references.input_members.insert(Arc::clone(key));
                }
            }
            Root::Run => {
                references.run = true;
                references.run_state |= self.segments.first().is_some_and(is_state);
            }
            Root::Step(name) => {
                references.steps.insert(Arc::clone(name));
            }
            Root::Local(name) => {
                references.locals.insert(Arc::clone(name));
            }
        }
    }

    /// The path without its last member, and that member: what `has` asks about. None for a bare root.
    pub(super) fn split_last(mut self) -> Option<(Self, Segment)> {
        let last = self.segments.pop()?;
        Some((self, last))
    }

    /// What lies at the end of the path.
    pub(super) fn lookup<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, Failure> {
        let (mut value, mut taken) = self.start(scope)?;
        while let Some(segment) = self.segments.get(taken) {
            let below = match &value {
                Cow::Borrowed(value) => member(value, segment),
                Cow::Owned(value) => member(value, segment).map(|below| Cow::Owned(below.into_owned())),
            };
            value = below.ok_or_else(|| self.missing(taken, &value))?;
            taken += 1;
        }
        Ok(value)
    }

    /// Whether the member exists below the path. What has no members has not this one either.
    pub(super) fn has(&self, last: &Segment, scope: &Scope<'_>) -> bool {
        self.lookup(scope).is_ok_and(|value| member(&value, last).is_some())
    }

    /// The root's value, and how many segments were used up to find it.
    fn start<'a>(&self, scope: &Scope<'a>) -> Result<(Cow<'a, Value>, usize), Failure> {
        let first = match self.segments.first() {
            Some(Segment::Key(key)) => Some(&**key),
            _ => None,
        };
        match &self.root {
            Root::Input => Ok((Cow::Borrowed(scope.input), 0)),
            Root::Run => match first.and_then(|name| scope.run.get(name)) {
                Some(fact) => Ok((Cow::Owned(fact), 1)),
                None => Ok((Cow::Owned(scope.run.to_value()), 0)),
            },
            Root::Local(name) => scope.local(name).map(|value| (Cow::Borrowed(value), 0)).ok_or_else(|| {
                let visible = ["input", "steps", "run"].into_iter().chain(scope.locals.iter().map(|(name, _)| &**name));
                let visible: Vec<&str> = visible.collect();
                invalid(format!("there is no variable '{name}'; there are {}", visible.join(", ")))
            }),
            Root::Step(name) => {
                let step = (scope.steps)(name)
                    .ok_or_else(|| invalid(format!("the step '{name}' has no result yet, or does not exist")))?;
                match first {
                    Some("output") => Ok((Cow::Borrowed(step.output), 1)),
                    Some("state") => Ok((Cow::Owned(step.state.into()), 1)),
                    _ => {
                        let mut map = Map::new();
                        map.insert("output".into(), step.output.clone());
                        map.insert("state".into(), step.state.into());
                        Ok((Cow::Owned(map.into()), 0))
                    }
                }
            }
        }
    }

    #[cold]
    fn missing(&self, taken: usize, container: &Value) -> Failure {
        let at = Self { root: self.root.clone(), segments: self.segments[..taken].to_vec() };
        let wanted = &self.segments[taken];
        let message = match (container, wanted) {
            (Value::Map(map), Segment::Key(key)) => {
                let near = super::wording::suggestion(key, map.keys().map(|key| &**key));
                format!("{at} has no member '{key}'; {}{}", existing(map), near)
            }
            (Value::Map(_), Segment::Index(index)) => format!("{at} is a map, so it has no element [{index}]"),
            (Value::List(items), Segment::Index(index)) => {
                format!("{at} has {} elements, so there is no [{index}]", items.len())
            }
            (Value::Tensor(tensor), Segment::Index(index)) => {
                format!("{at} is a tensor of shape {:?}, so there is no [{index}]", tensor.shape())
            }
            (Value::Null, _) if matches!(self.root, Root::Step(_)) && taken == 1 => {
                format!("{at} is null (was the step skipped?), so it has no member {wanted}")
            }
            (Value::Blob(_), _) => format!("{at} is stored as a blob and cannot be looked into here"),
            (other, _) => format!("{at} is {}, so it has no member {wanted}", other.kind()),
        };
        invalid(message)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Input => f.write_str("'input"),
            Root::Run => f.write_str("'run"),
            Root::Step(name) => write!(f, "'steps.{name}"),
            Root::Local(name) => write!(f, "'{name}"),
        }?;
        for segment in &self.segments {
            match segment {
                Segment::Key(key) if plain_key(key) => write!(f, ".{key}"),
                Segment::Key(key) => write!(f, "[{key:?}]"),
                Segment::Index(index) => write!(f, "[{index}]"),
            }?;
        }
        f.write_str("'")
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "'{key}'"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Invalid, message)
}

/// Words that CEL does not take as identifiers.
pub(super) fn is_reserved(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in")
}

fn plain_key(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.as_bytes()[0].is_ascii_digit()
}

/// The text between quotes when it has neither escapes nor a prefix.
fn plain_text(token: &str) -> Option<&str> {
    let quote = token.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let inner = token.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(['\\', '\n', quote])).then_some(inner)
}

fn check_member(owner: &str, segment: &Segment, members: &[&str]) -> Result<(), ExpressionError> {
    match segment {
        Segment::Key(key) if members.contains(&&**key) => Ok(()),
        other => {
            let near = match other {
                Segment::Key(key) => super::wording::suggestion(key, members.iter().copied()),
                Segment::Index(_) => String::new(),
            };
            let message = format!("'{owner}' has no member {other}; it has {}{near}", members.join(", "));
            Err(ExpressionError::new(message))
        }
    }
}

/// Whether the member of `run` is the one that it has at its end only; who may read it is told by the references.
fn is_state(segment: &Segment) -> bool {
    matches!(segment, Segment::Key(key) if &**key == RunFacts::STATE)
}

/// At most ten of a map's keys, for messages.
fn existing(map: &Map) -> String {
    if map.is_empty() {
        return "it is empty".into();
    }
    let shown: Vec<String> = map.keys().take(10).map(|key| super::wording::shorten(key, 40)).collect();
    let more = if map.len() > shown.len() { format!(" and {} more", map.len() - shown.len()) } else { String::new() };
    format!("it has {}{more}", shown.join(", "))
}

fn member<'v>(value: &'v Value, segment: &Segment) -> Option<Cow<'v, Value>> {
    match (value, segment) {
        (Value::Map(map), Segment::Key(key)) => map.get(key).map(Cow::Borrowed),
        (Value::List(items), Segment::Index(index)) => items.get(*index).map(Cow::Borrowed),
        (Value::Tensor(tensor), Segment::Index(index)) => row(tensor, *index).map(Cow::Owned),
        _ => None,
    }
}

/// Row `index` of a tensor: a tensor of one dimension less that shares the bytes, or the element itself.
pub(crate) fn row(tensor: &Tensor, index: usize) -> Option<Value> {
    let (&rows, row_shape) = tensor.shape().split_first()?;
    if index >= rows {
        return None;
    }
    let elements: usize = row_shape.iter().product();
    if let Some(size) = tensor.datatype().size() {
        let start = index.checked_mul(elements)?.checked_mul(size)?;
        let data = tensor.data().slice(start..start + elements * size);
        let row = Tensor::new(tensor.datatype(), row_shape.to_vec(), data).ok()?;
        return Some(if row_shape.is_empty() { Value::from(Value::Tensor(row).to_json()) } else { Value::Tensor(row) });
    }
    let strings = tensor.byte_strings()?;
    let row = strings.get(index * elements..(index + 1) * elements)?;
    match (row_shape, row) {
        ([], [only]) => Some(String::from_utf8_lossy(only).into_owned().into()),
        _ => Tensor::from_strings(row).reshaped(row_shape.to_vec()).ok().map(Value::Tensor),
    }
}
