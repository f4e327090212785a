//! JSON Schemas for inputs, outputs and parsed values: draft 2020-12, and whichever their own one is for those that
//! others wrote.
//!
//! Compiled once, with every reference inside the document: nothing is ever fetched. Patterns are matched in linear
//! time. A schema that refers to itself without descending into the value would never end and is refused. Used by
//! definitions, by runs and by the schemas of records.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jsonschema::Draft;
use serde_json::Value as Json;

use crate::expression::wording::shorten;
use crate::expression::{MAX_NESTING, escape, is_too_deep};
use crate::value::Value;

/// Errors reported of one value at most.
pub const MAX_ERRORS: usize = 20;
/// Compiled size of one pattern in bytes.
const MAX_PATTERN: usize = 1024 * 1024;

/// One way in which a value does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", if pointer.is_empty() { "the value" } else { pointer })]
pub struct SchemaError {
    /// JSON Pointer of the offending part of the value; empty for the whole.
    pub pointer: String,
    /// What is wrong with it.
    pub message: String,
}

/// A compiled JSON Schema.
#[derive(Clone)]
pub struct Schema {
    validator: Arc<jsonschema::Validator>,
    document: Arc<Json>,
}

impl Schema {
    /// Compiles a document.
    ///
    /// # Errors
    /// Every mistake with the JSON Pointer of its place in the document.
    pub fn compile(document: &Json) -> Result<Self, Vec<(String, String)>> {
        Self::compile_as(document, Draft::Draft202012)
    }

    /// Compiles a document of the draft that its `$schema` names; 2020-12 where it names none.
    ///
    /// # Errors
    /// Every mistake with the JSON Pointer of its place in the document.
    pub fn compile_own_draft(document: &Json) -> Result<Self, Vec<(String, String)>> {
        Self::compile_as(document, Draft::Draft202012.detect(document))
    }

    fn compile_as(document: &Json, draft: Draft) -> Result<Self, Vec<(String, String)>> {
        if is_too_deep(document) {
            return Err(vec![(String::new(), format!("the schema is more than {MAX_NESTING} levels deep"))]);
        }
        let meta = match draft {
            Draft::Draft4 => jsonschema::draft4::meta::validator(),
            Draft::Draft6 => jsonschema::draft6::meta::validator(),
            Draft::Draft7 => jsonschema::draft7::meta::validator(),
            Draft::Draft201909 => jsonschema::draft201909::meta::validator(),
            Draft::Draft202012 => jsonschema::draft202012::meta::validator(),
            _ => {
                return Err(vec![("/$schema".to_owned(), "this is no draft of JSON Schema that is known here".into())]);
            }
        };
        let mut mistakes: Vec<(String, String)> = meta
            .iter_errors(document)
            .take(MAX_ERRORS)
            .map(|error| (error.instance_path().as_str().to_owned(), bounded(&error)))
            .collect();
        if mistakes.is_empty() {
            mistakes = References::check(document);
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let patterns = jsonschema::PatternOptions::regex().size_limit(MAX_PATTERN).dfa_size_limit(MAX_PATTERN);
        let options = jsonschema::options().with_draft(draft);
        let validator = options.with_pattern_options(patterns).offline().build(document);
        match validator {
            Ok(validator) => Ok(Self { validator: Arc::new(validator), document: Arc::new(document.clone()) }),
            Err(error) => Err(vec![(error.instance_path().as_str().to_owned(), bounded(&error))]),
        }
    }

    /// Checks a value.
    ///
    /// # Errors
    /// At most [`MAX_ERRORS`] of the ways in which the value does not fit.
    pub fn validate(&self, value: &Value) -> Result<(), Vec<SchemaError>> {
        let json = value.to_json();
        if self.validator.is_valid(&json) {
            return Ok(());
        }
        let errors = self.validator.iter_errors(&json).take(MAX_ERRORS);
        Err(errors
            .map(|error| SchemaError { pointer: error.instance_path().as_str().to_owned(), message: bounded(&error) })
            .collect())
    }

    /// The document that was compiled.
    #[must_use]
    pub fn document(&self) -> &Json {
        &self.document
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.document).finish()
    }
}

/// The words of an error without the whole value that some of them quote.
fn bounded(error: &jsonschema::ValidationError<'_>) -> String {
    shorten(&error.masked_with("the value").to_string(), 300)
}

/// Keywords whose value is one schema that applies to the same value.
const SAME_ONE: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords whose value is a list of schemas that apply to the same value.
const SAME_LIST: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords whose value is one schema that applies to parts of the value.
const PART_ONE: [&str; 7] = [
    "additionalProperties",
    "items",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords whose value is a map of schemas that apply to parts of the value, or to nothing until referred to.
const PART_MAP: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// Walks the schemas of a document and checks their references.
struct References<'d> {
    document: &'d Json,
    mistakes: Vec<(String, String)>,
    done: BTreeSet<String>,
    open: Vec<String>,
}

impl<'d> References<'d> {
    fn check(document: &'d Json) -> Vec<(String, String)> {
        let mut walk = Self { document, mistakes: vec![], done: BTreeSet::new(), open: vec![] };
        walk.schema(document, String::new());
        walk.mistakes.truncate(MAX_ERRORS);
        walk.mistakes
    }

    /// Visits a schema; `open` holds the schemas that are being applied to the same value.
    fn schema(&mut self, schema: &'d Json, pointer: String) {
        let Json::Object(keywords) = schema else { return };
        if self.open.contains(&pointer) {
            let message = "this schema refers to itself without descending into the value, so checking never ends";
            self.mistakes.push((pointer, message.into()));
            return;
        }
        if self.done.contains(&pointer) || self.mistakes.len() >= MAX_ERRORS || self.open.len() > 64 {
            return;
        }
        self.open.push(pointer.clone());
        let at = |keyword: &str| format!("{pointer}/{}", escape(keyword));
        let mut parts: Vec<(&Json, String)> = Vec::new();
        for (keyword, value) in keywords {
            match (keyword.as_str(), value) {
                ("$ref" | "$dynamicRef", Json::String(target)) => self.reference(target, at(keyword)),
                ("$id", Json::String(_)) if !pointer.is_empty() => {
                    self.mistakes.push((at(keyword), "a schema inside another one cannot have an $id here".into()));
                }
                (word, one) if SAME_ONE.contains(&word) => self.schema(one, at(keyword)),
                (word, Json::Array(all)) if SAME_LIST.contains(&word) => {
                    all.iter().enumerate().for_each(|(n, one)| self.schema(one, format!("{}/{n}", at(keyword))));
                }
                ("dependentSchemas", Json::Object(all)) => {
                    all.iter().for_each(|(key, one)| self.schema(one, format!("{}/{}", at(keyword), escape(key))));
                }
                (word, one) if PART_ONE.contains(&word) => parts.push((one, at(keyword))),
                ("prefixItems", Json::Array(all)) => {
                    parts.extend(all.iter().enumerate().map(|(n, one)| (one, format!("{}/{n}", at(keyword)))));
                }
                (word, Json::Object(all)) if PART_MAP.contains(&word) => {
                    parts.extend(all.iter().map(|(key, one)| (one, format!("{}/{}", at(keyword), escape(key)))));
                }
                _ => {}
            }
        }
        self.done.insert(pointer);
        // Parts of the value are another value: descending into it ends every circle.
        let outer = std::mem::take(&mut self.open);
        parts.into_iter().for_each(|(part, place)| self.schema(part, place));
        self.open = outer;
        self.open.pop();
    }

    fn reference(&mut self, target: &str, place: String) {
        let Some(fragment) = target.strip_prefix('#') else {
            let target = shorten(target, 120);
            let message =
                format!("'{target}' lies outside this document; copy it under $defs and refer to '#/$defs/..'");
            self.mistakes.push((place, message));
            return;
        };
        if !fragment.is_empty() && !fragment.starts_with('/') {
            self.mistakes.push((place, format!("write '#/$defs/{}' instead of an anchor", shorten(fragment, 80))));
            return;
        }
        match self.document.pointer(fragment) {
            Some(schema) => self.schema(schema, fragment.to_owned()),
            None => self.mistakes.push((place, format!("'{}' does not exist in this schema", shorten(target, 120)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_checked_with_pointers() {
        let schema = Schema::compile(&json!({
            "type": "object", "required": ["text"],
            "properties": {"text": {"type": "string", "pattern": "^[a-z]+$"}, "n": {"$ref": "#/$defs/small"}},
            "$defs": {"small": {"type": "integer", "maximum": 9}},
        }))
        .unwrap();
        assert!(schema.validate(&json!({"text": "abc", "n": 3}).into()).is_ok());
        let errors = schema.validate(&json!({"text": "ABC", "n": 30}).into()).unwrap_err();
        let mut pointers: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/n", "/text"]);
        let errors = schema.validate(&json!({}).into()).unwrap_err();
        assert!(errors[0].to_string().contains("text"), "{errors:?}");
    }

    #[test]
    fn broken_schemas_say_where() {
        for (schema, pointer, words) in [
            (json!({"type": "strin"}), "/type", ""),
            (json!({"properties": {"a": {"minimum": "x"}}}), "/properties/a/minimum", ""),
            (json!({"$ref": "https://example.org/a.json"}), "/$ref", "outside"),
            (json!({"items": {"$ref": "#/$defs/no"}}), "/items/$ref", "does not exist"),
            (json!({"$ref": "#"}), "", "never ends"),
            (json!({"anyOf": [{"$ref": "#"}]}), "", "never ends"),
            (
                json!({"$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}}),
                "/$defs/a",
                "never ends",
            ),
            (json!({"properties": {"a": {"pattern": "(?=x)"}}}), "", ""),
        ] {
            let mistakes = Schema::compile(&schema).unwrap_err();
            assert!(
                mistakes.iter().any(|(at, message)| at.starts_with(pointer) && message.contains(words)),
                "{schema}: {mistakes:?}"
            );
        }
    }

    #[test]
    fn schemas_of_others_are_read_in_their_own_draft() {
        let tuple = |draft: &str| json!({"$schema": draft, "items": [{"type": "string"}], "additionalItems": false});
        let old = Schema::compile_own_draft(&tuple("http://json-schema.org/draft-07/schema#")).unwrap();
        assert!(old.validate(&json!(["a"]).into()).is_ok());
        assert!(old.validate(&json!(["a", "b"]).into()).is_err());
        for unfit in ["https://json-schema.org/draft/2020-12/schema", "https://example.org/own"] {
            assert!(Schema::compile_own_draft(&tuple(unfit)).is_err(), "{unfit}");
        }
        let oldest =
            json!({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": true});
        assert!(Schema::compile_own_draft(&oldest).unwrap().validate(&json!(3).into()).is_err());
    }

    #[test]
    fn recursion_through_parts_is_fine() {
        let tree = json!({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}});
        let schema = Schema::compile(&tree).unwrap();
        assert!(schema.validate(&json!({"children": [{"children": []}]}).into()).is_ok());
        assert!(schema.validate(&json!({"children": [{"children": 1}]}).into()).is_err());
        let errors = Schema::compile(&json!({"items": {"type": "string"}})).unwrap();
        let many = Value::from(vec![Value::Int(1); 1000]);
        assert_eq!(errors.validate(&many).unwrap_err().len(), MAX_ERRORS);
    }
}
