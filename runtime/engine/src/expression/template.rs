//! Trees of JSON whose strings may hold expressions.
//!
//! A string that is wholly `"${ e }"` becomes the value of e with its type; `${ e }` inside other text becomes text
//! (JSON text for what is no string); `$${` stands for `${`. Never evaluates what holds no expression. Used for
//! `with`, `output`, `fallback` and `for_each`.

use std::sync::Arc;

use super::path::invalid;
use super::scope::Scope;
use super::{Expression, ExpressionError, References, lexis};
use crate::failure::Failure;
use crate::value::{Map, Value};

/// Deepest tree that is compiled.
pub(crate) const MAX_NESTING: usize = 128;
/// Longest text that a string with embedded expressions may become, in bytes.
const MAX_TEXT: usize = 4 * 1024 * 1024;

/// A mistake in one string of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {message}")]
pub struct TemplateError {
    /// JSON Pointer of the string.
    pub pointer: String,
    /// Byte offset inside the string, where known.
    pub offset: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// One expression of a template and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Located<'t> {
    /// JSON Pointer of the string that holds it.
    pub pointer: &'t str,
    /// Byte offset of its source inside that string.
    pub offset: usize,
    /// The expression.
    pub expression: &'t Expression,
}

/// A tree of JSON with expressions in it, compiled.
#[derive(Debug)]
pub struct Template {
    root: Node,
    references: References,
    places: Vec<(String, usize)>,
}

#[derive(Debug)]
enum Node {
    Constant(Value),
    Whole(Expression),
    Text(Vec<Part>),
    List(Vec<Node>),
    Map(Vec<(Arc<str>, Node)>),
}

#[derive(Debug)]
enum Part {
    Literal(Arc<str>),
    Embedded(Expression),
}

impl Template {
    /// A template without expressions.
    #[must_use]
    pub fn constant(value: Value) -> Self {
        Self { root: Node::Constant(value), references: References::default(), places: vec![] }
    }

    /// Compiles a tree.
    ///
    /// # Errors
    /// Every mistake of every string, with its place.
    pub fn compile(value: &serde_json::Value) -> Result<Self, Vec<TemplateError>> {
        if is_too_deep(value) {
            let message = format!("the template is more than {MAX_NESTING} levels deep");
            return Err(vec![TemplateError { pointer: String::new(), offset: None, message }]);
        }
        let mut compiler = Compiler::default();
        let root = compiler.node(value, String::new());
        if compiler.errors.is_empty() {
            Ok(Self { root, references: compiler.references, places: compiler.places })
        } else {
            Err(compiler.errors)
        }
    }

    /// Evaluates the tree.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and when an embedded text becomes longer than 4 MiB.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Failure> {
        self.root.evaluate(scope)
    }

    /// What the expressions read.
    #[must_use]
    pub fn references(&self) -> &References {
        &self.references
    }

    /// Whether the template holds no expression.
    #[must_use]
    pub fn is_static(&self) -> bool {
        matches!(self.root, Node::Constant(_))
    }

    /// Every expression with its place, in the order of the tree.
    #[must_use]
    pub fn expressions(&self) -> Vec<Located<'_>> {
        let mut expressions = Vec::with_capacity(self.places.len());
        self.root.collect(&mut expressions);
        // The compiler records places in the order in which the walk meets them.
        let pairs = self.places.iter().zip(expressions);
        pairs.map(|((pointer, offset), expression)| Located { pointer, offset: *offset, expression }).collect()
    }

    /// The keys of the top level when it is a map; none for any other tree.
    #[must_use]
    pub fn keys(&self) -> Option<Vec<&str>> {
        match &self.root {
            Node::Constant(Value::Map(map)) => Some(map.keys().map(|key| &**key).collect()),
            Node::Map(entries) => Some(entries.iter().map(|(key, _)| &**key).collect()),
            _ => None,
        }
    }
}

impl Node {
    fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Failure> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Whole(expression) => expression.evaluate(scope),
            Self::Text(parts) => text(parts, scope),
            Self::List(items) => {
                items.iter().map(|item| item.evaluate(scope)).collect::<Result<Vec<_>, _>>().map(Value::from)
            }
            Self::Map(entries) => entries
                .iter()
                .map(|(key, node)| Ok((Arc::clone(key), node.evaluate(scope)?)))
                .collect::<Result<Map, _>>()
                .map(Value::from),
        }
    }

    fn collect<'t>(&'t self, into: &mut Vec<&'t Expression>) {
        match self {
            Self::Constant(_) => {}
            Self::Whole(expression) => into.push(expression),
            Self::Text(parts) => into.extend(parts.iter().filter_map(|part| match part {
                Part::Embedded(expression) => Some(expression),
                Part::Literal(_) => None,
            })),
            Self::List(items) => items.iter().for_each(|item| item.collect(into)),
            Self::Map(entries) => entries.iter().for_each(|(_, node)| node.collect(into)),
        }
    }
}

fn text(parts: &[Part], scope: &Scope<'_>) -> Result<Value, Failure> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Embedded(expression) => match expression.evaluate(scope)? {
                Value::String(value) => text.push_str(&value),
                // Two bytes become at most a few characters of JSON, so a look at the size avoids the conversion.
                other if other.size() > MAX_TEXT => return Err(too_long(expression)),
                other => text.push_str(&serde_json::to_string(&other).unwrap_or_default()),
            },
        }
        if text.len() > MAX_TEXT {
            return Err(invalid(format!("the text with embedded expressions is longer than {MAX_TEXT} bytes")));
        }
    }
    Ok(text.into())
}

fn too_long(expression: &Expression) -> Failure {
    let source = super::wording::shorten(expression.source().trim(), 80);
    invalid(format!("'{source}' is too large to become part of a text; pass it as a whole value"))
}

#[derive(Default)]
struct Compiler {
    errors: Vec<TemplateError>,
    references: References,
    places: Vec<(String, usize)>,
}

impl Compiler {
    fn node(&mut self, value: &serde_json::Value, pointer: String) -> Node {
        match value {
            serde_json::Value::String(text) => self.string(text, &pointer),
            serde_json::Value::Array(items) => {
                let nodes: Vec<Node> =
                    items.iter().enumerate().map(|(at, item)| self.node(item, format!("{pointer}/{at}"))).collect();
                match nodes.iter().map(constant).collect::<Option<Vec<_>>>() {
                    Some(values) => Node::Constant(values.into()),
                    None => Node::List(nodes),
                }
            }
            serde_json::Value::Object(map) => {
                let entries: Vec<(Arc<str>, Node)> = map
                    .iter()
                    .map(|(key, value)| (key.as_str().into(), self.node(value, format!("{pointer}/{}", escape(key)))))
                    .collect();
                let values = entries.iter().map(|(key, node)| Some((Arc::clone(key), constant(node)?)));
                match values.collect::<Option<Map>>() {
                    Some(values) => Node::Constant(values.into()),
                    None => Node::Map(entries),
                }
            }
            scalar => Node::Constant(Value::from(scalar.clone())),
        }
    }

    fn string(&mut self, text: &str, pointer: &str) -> Node {
        let parts = match self.parts(text, pointer) {
            Ok(parts) => parts,
            Err(ExpressionError { message, offset }) => {
                self.errors.push(TemplateError { pointer: pointer.to_owned(), offset, message });
                return Node::Constant(Value::Null);
            }
        };
        let is_whole = text.starts_with("${") && text.ends_with('}');
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next()) {
            (None, _) => Node::Constant(text.into()),
            (Some(Part::Literal(literal)), None) => Node::Constant(Value::String(literal)),
            (Some(Part::Embedded(expression)), None) if is_whole => Node::Whole(expression),
            (Some(first), second) => Node::Text([first].into_iter().chain(second).chain(parts).collect()),
        }
    }

    /// Cuts a string into literals and expressions. A broken expression is reported by the caller; the places of
    /// those before it are withdrawn, because the string yields no node.
    fn parts(&mut self, text: &str, pointer: &str) -> Result<Vec<Part>, ExpressionError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut place = 0;
        while let Some(found) = text[place..].find("${") {
            let start = place + found;
            if text[..start].ends_with('$') && start > place {
                literal.push_str(&text[place..start - 1]);
                literal.push_str("${");
                place = start + 2;
                continue;
            }
            literal.push_str(&text[place..start]);
            let end = lexis::closing_brace(text, start + 2)?
                .ok_or_else(|| ExpressionError::at(start, "this '${' is never closed with '}'"))?;
            let source = &text[start + 2..end];
            let expression = Expression::parse(source).map_err(|error| ExpressionError {
                offset: Some(start + 2 + error.offset.unwrap_or_else(|| source.len() - source.trim_start().len())),
                ..error
            })?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            self.references.merge(expression.references());
            self.places.push((pointer.to_owned(), start + 2));
            parts.push(Part::Embedded(expression));
            place = end + 1;
        }
        literal.push_str(&text[place..]);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(parts)
    }
}

fn constant(node: &Node) -> Option<Value> {
    match node {
        Node::Constant(value) => Some(value.clone()),
        _ => None,
    }
}

/// A key as a part of a JSON Pointer.
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Whether a tree is deeper than what may be walked by recursion; looks without recursion.
pub(crate) fn is_too_deep(json: &serde_json::Value) -> bool {
    let mut open = vec![(json, 1usize)];
    while let Some((json, depth)) = open.pop() {
        if depth > MAX_NESTING {
            return true;
        }
        match json {
            serde_json::Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            serde_json::Value::Object(map) => open.extend(map.values().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    false
}
