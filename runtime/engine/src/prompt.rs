//! Prompt templates: text with `{{ variables }}`, conditions and loops.
//!
//! Rendering is bounded: a budget of work that also bounds memory, and a bound on the output. Undefined variables are
//! errors, other templates cannot be included, and values are handed in as they are, not through JSON text. Never
//! escapes for HTML. Used by `prompt` steps.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use serde::Serialize;

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr};
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior, Value as PromptValue};

use crate::expression::wording::shorten;
use crate::failure::{Failure, FailureClass};
use crate::tensor::Tensor;
use crate::value::{Map, Value};

/// Longest source of a prompt template in bytes.
pub const MAX_SOURCE: usize = 256 * 1024;
/// Longest rendered prompt in bytes.
pub const MAX_OUTPUT: usize = 1024 * 1024;
/// Budget of one rendering: an instruction costs one, data about one per 64 bytes (a JSON byte sixteen times that).
const FUEL: u64 = 1_000_000;
/// Most tokens of one `{{ }}` or `{% %}`: its operators become one branch that the compiler follows by recursion.
const MAX_TAG: usize = 1_000;
/// Most `elif` of one template, which nest in each other.
const MAX_ELIF: usize = 100;
const NAME: &str = "prompt";

/// Why a text is no prompt template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PromptError {
    /// Line inside the template, from 1.
    pub line: usize,
    /// Column in characters inside the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// A compiled prompt template.
pub struct PromptTemplate {
    environment: Box<Environment<'static>>,
    source: Arc<str>,
    variables: BTreeSet<Arc<str>>,
}

impl PromptTemplate {
    /// Compiles a source.
    ///
    /// # Errors
    /// When the source is too long or is no template.
    pub fn parse(source: &str) -> Result<Self, PromptError> {
        if source.len() > MAX_SOURCE {
            let message = format!("the template has {} bytes; at most {MAX_SOURCE} are allowed", source.len());
            return Err(PromptError { line: 1, column: 1, message });
        }
        check_depth(source)?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(64);
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| located(source, &error))?;
        let globals: BTreeSet<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        let compiled = environment.get_template(NAME).map_err(|error| located(source, &error))?;
        let variables = compiled.undeclared_variables(false);
        let variables = variables.into_iter().filter(|name| !globals.contains(name)).map(Arc::from).collect();
        Ok(Self { environment: Box::new(environment), source: source.into(), variables })
    }

    /// The text that was compiled.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names of the variables that the template may ask for.
    #[must_use]
    pub fn variables(&self) -> &BTreeSet<Arc<str>> {
        &self.variables
    }

    /// Renders the template with the members of a map as its variables.
    ///
    /// # Errors
    /// `Invalid` when a variable is missing, a value does not fit, the work is too much or the output too long.
    pub fn render(&self, variables: &Value) -> Result<String, Failure> {
        let Value::Map(map) = variables else {
            let message = format!("a prompt's variables must be a map, not {}", variables.kind());
            return Err(Failure::new(FailureClass::Invalid, message));
        };
        let template = self.environment.get_template(NAME).map_err(|error| explain(&error))?;
        let mut output = Bounded(Vec::new());
        let context = PromptValue::from_object(MapView(Arc::clone(map)));
        let result = template.render_captured_to(context, &mut output).map(drop);
        match result {
            Ok(()) => String::from_utf8(output.0)
                .map_err(|error| Failure::new(FailureClass::Internal, format!("the prompt is no text: {error}"))),
            Err(error) => Err(explain(&error)),
        }
    }
}

impl fmt::Debug for PromptTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PromptTemplate").field(&self.source).finish()
    }
}

/// Refuses templates that would exhaust the stack: minijinja bounds brackets and blocks, but neither chains of
/// operators nor of `elif`.
fn check_depth(source: &str) -> Result<(), PromptError> {
    let (mut in_tag, mut elifs, mut after_start) = (0usize, 0usize, false);
    for (token, span) in tokenize(source, false, SyntaxConfig::default()).map_while(Result::ok) {
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => in_tag = 0,
            Token::Ident("elif") if after_start => elifs += 1,
            _ => in_tag += 1,
        }
        after_start = matches!(token, Token::BlockStart);
        let message = match (in_tag > MAX_TAG, elifs > MAX_ELIF) {
            (true, _) => format!("one tag has more than {MAX_TAG} tokens; split it"),
            (_, true) => format!("the template has more than {MAX_ELIF} elif; look the text up in a map instead"),
            _ => continue,
        };
        return Err(PromptError { line: span.start_line as usize, column: span.start_col as usize + 1, message });
    }
    Ok(())
}

fn located(source: &str, error: &minijinja::Error) -> PromptError {
    let line = error.line().unwrap_or(1).max(1);
    let column = error.range().and_then(|range| source.get(..range.start)).map_or(1, |before| {
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        before[start..].chars().count() + 1
    });
    PromptError { line, column, message: words(error) }
}

fn words(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "the template does too much work for these values".into(),
        (ErrorKind::WriteFailure, _) => format!("the prompt is longer than {MAX_OUTPUT} bytes"),
        (kind, Some(detail)) => shorten(&format!("{kind}: {detail}"), 300),
        (kind, None) => kind.to_string(),
    }
}

fn explain(error: &minijinja::Error) -> Failure {
    let line = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    Failure::new(FailureClass::Invalid, format!("prompt{line}: {}", words(error)))
}

/// An output that refuses to grow beyond the bound.
struct Bounded(Vec<u8>);

impl io::Write for &mut Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("the prompt is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON text, compact or indented by `indent` spaces. The built-in filter escapes for HTML, which spoils prompts.
fn tojson(state: &State<'_, '_>, value: &PromptValue, options: Kwargs) -> Result<PromptValue, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut output = Bounded(Vec::new());
    let spaces = vec![b' '; indent.unwrap_or(0).min(16)];
    let result = match indent {
        None => serde_json::to_writer(&mut output, value),
        Some(_) => {
            let pretty = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut output, pretty))
        }
    };
    state.consume_fuel(output.0.len() as u64 / 4)?;
    let message = |error: serde_json::Error| format!("tojson: {error}");
    result.map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, message(error)))?;
    Ok(String::from_utf8_lossy(&output.0).into_owned().into())
}

fn view(value: &Value) -> PromptValue {
    match value {
        Value::Null => PromptValue::from(()),
        Value::Bool(truth) => PromptValue::from(*truth),
        Value::Int(number) => PromptValue::from(*number),
        Value::Float(number) => PromptValue::from(*number),
        Value::String(text) => PromptValue::from(Arc::clone(text)),
        Value::List(items) => PromptValue::from_object(ListView(Arc::clone(items))),
        Value::Map(map) => PromptValue::from_object(MapView(Arc::clone(map))),
        Value::Tensor(tensor) if tensor.shape().is_empty() => view(&value.to_json().into()),
        Value::Tensor(tensor) => PromptValue::from_object(TensorView(tensor.clone())),
        Value::Blob(blob) => PromptValue::from(blob.to_string()),
    }
}

/// A list seen by templates without being copied.
#[derive(Debug)]
struct ListView(Arc<Vec<Value>>);

impl Object for ListView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &PromptValue) -> Option<PromptValue> {
        self.0.get(key.as_usize()?).map(view)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

/// A map seen by templates without being copied.
#[derive(Debug)]
struct MapView(Arc<Map>);

impl Object for MapView {
    fn get_value(self: &Arc<Self>, key: &PromptValue) -> Option<PromptValue> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<PromptValue> {
        self.0.get(key).map(view)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.keys().map(|key| PromptValue::from(Arc::clone(key))).collect())
    }
}

/// A tensor of at least one dimension, seen by templates as nested lists.
#[derive(Debug)]
struct TensorView(Tensor);

impl Object for TensorView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &PromptValue) -> Option<PromptValue> {
        crate::expression::row(&self.0, key.as_usize()?).as_ref().map(view)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, variables: serde_json::Value) -> Result<String, String> {
        let template = PromptTemplate::parse(source).map_err(|error| error.to_string())?;
        template.render(&variables.into()).map_err(|failure| failure.message)
    }

    #[test]
    fn renders_values_of_every_kind() {
        for (source, variables, expected) in [
            ("Hi {{ name }}!", json!({"name": "<Ada> & Bob"}), "Hi <Ada> & Bob!"),
            (
                "{% for d in docs %}{{ loop.index }}:{{ d.t }};{% endfor %}",
                json!({"docs": [{"t": "a"}, {"t": "b"}]}),
                "1:a;2:b;",
            ),
            ("{{ x | tojson }}", json!({"x": {"b": [1, 2.5, null], "a": "q"}}), r#"{"a":"q","b":[1,2.5,null]}"#),
            ("{{ x | tojson(indent=2) }}", json!({"x": ["<b>"]}), "[\n  \"<b>\"\n]"),
            ("{% if n > 2 %}many{% else %}few{% endif %}", json!({"n": 3}), "many"),
            ("{{ docs | length }}", json!({"docs": [1, 2, 3]}), "3"),
        ] {
            assert_eq!(render(source, variables).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn tensors_read_as_lists() {
        let template = PromptTemplate::parse("{{ v | tojson }} {{ v[1][0] }}").unwrap();
        let mut map = Map::new();
        map.insert("v".into(), Value::Tensor(Tensor::from_f32(vec![2, 1], &[1.5, 2.5]).unwrap()));
        assert_eq!(template.render(&map.into()).unwrap(), "[[1.5],[2.5]] 2.5");
    }

    #[test]
    fn what_is_missing_is_an_error_with_its_line() {
        let error = render("one\n{{ nope }}", json!({})).unwrap_err();
        assert!(error.contains("line 2") && error.contains("undefined"), "{error}");
        let error = render("{{ a.b }}", json!({"a": {}})).unwrap_err();
        assert!(error.contains("undefined"), "{error}");
        assert!(render("{% include 'x' %}", json!({})).is_err());
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let error = PromptTemplate::parse("ok\n  {{ a + }}").unwrap_err();
        assert_eq!((error.line, error.column), (2, 10), "{error}");
    }

    #[test]
    fn variables_are_known_without_rendering() {
        let template =
            PromptTemplate::parse("{% set y = x %}{% for i in range(n) %}{{ i }}{{ y }}{{ z.w }}{% endfor %}").unwrap();
        let names: Vec<&str> = template.variables().iter().map(|name| &**name).collect();
        assert_eq!(names, ["n", "x", "z"]);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let doubling = format!("{{% set a = 'xxxxxxxx' %}}{}{{{{ a }}}}", "{% set a = a ~ a %}".repeat(60));
        let nested = format!("{}x{}", "{% for i in range(9999) %}".repeat(8), "{% endfor %}".repeat(8));
        for source in [&doubling, &nested, "{{ 'x' * 2000000000 }}", "{{ range(100000) | list | tojson * 9 }}"] {
            assert!(render(source, json!({})).is_err(), "{}", &source[..40.min(source.len())]);
        }
        let long = "{% for i in range(200) %}{{ t }}{% endfor %}";
        let error = render(long, json!({"t": "y".repeat(8192)})).unwrap_err();
        assert!(error.contains("longer than"), "{error}");
    }
}
