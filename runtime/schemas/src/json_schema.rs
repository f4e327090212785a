//! JSON Schemas of records: JSON that is checked before it is a value.
//!
//! The engine compiles and checks; this brings what a schema refers to into its own document, where nothing need be
//! fetched. Used by [`crate::CompiledSchema`].

use bytes::Bytes;
use motet_engine::schema::Schema;
use motet_engine::value::Value;
use serde_json::Value as Json;

use crate::compiled::Mistake;
use crate::port::SchemaText;

/// Ways in which a value does not fit that are told.
const TOLD: usize = 5;

/// Keywords whose values are no schemas, whatever they look like.
const OPAQUE: [&str; 5] = ["const", "enum", "default", "examples", "example"];

/// Keywords whose values are maps of names to schemas.
const NAMED: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

/// A JSON Schema.
#[derive(Debug)]
pub(crate) struct JsonSchema(Schema);

impl JsonSchema {
    /// Understands a schema, or says why not.
    pub(crate) fn compile(schema: &SchemaText) -> Result<Self, String> {
        let parse = |text: &str| serde_json::from_str::<Json>(text).map_err(|error| format!("it is no JSON: {error}"));
        let mut document = parse(&schema.text)?;
        let mut others = vec![];
        for (place, reference) in schema.references.iter().enumerate() {
            others.push(Other {
                name: reference.name.clone(),
                id: String::new(),
                prefix: format!("/$defs/{}", key(place)),
                document: parse(&reference.text)?,
            });
        }
        for other in &mut others {
            other.id = id(&other.document).unwrap_or_default().to_owned();
        }
        if !others.is_empty() {
            document = joined(document, &others);
        }
        Schema::compile_own_draft(&document).map(Self).map_err(|mistakes| {
            let words: Vec<String> =
                mistakes.iter().take(TOLD).map(|(place, message)| format!("{place}: {message}")).collect();
            words.join("; ")
        })
    }

    /// Reads JSON that fits it.
    pub(crate) fn decode(&self, bytes: &Bytes) -> Result<Value, Mistake> {
        // The parser has a bound on nesting, and says where it failed.
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            let class = if error.to_string().starts_with("recursion limit") { "too_deep" } else { "invalid_json" };
            Mistake::new(class, format!("it is no JSON: {error}"))
        })?;
        self.0.validate(&value).map_err(|mistakes| {
            let words: Vec<String> = mistakes.iter().take(TOLD).map(ToString::to_string).collect();
            Mistake::new("unfit_value", format!("it does not fit its schema: {}", words.join("; ")))
        })?;
        Ok(value)
    }
}

/// A document that is referred to, and where it goes.
struct Other {
    name: String,
    id: String,
    prefix: String,
    document: Json,
}

fn key(place: usize) -> String {
    format!("reference-{place}")
}

fn id(document: &Json) -> Option<&str> {
    document.get("$id").or_else(|| document.get("id")).and_then(Json::as_str).map(|id| id.trim_end_matches('#'))
}

/// One document out of all of them.
fn joined(mut document: Json, others: &[Other]) -> Json {
    let own = id(&document).unwrap_or_default().to_owned();
    redirect(&mut document, false, &Base { id: &own, prefix: "", others });
    let Json::Object(root) = &mut document else { return document };
    let shelf = root.entry("$defs").or_insert_with(|| Json::Object(serde_json::Map::new()));
    let Json::Object(shelf) = shelf else { return document };
    for (place, other) in others.iter().enumerate() {
        let mut part = other.document.clone();
        redirect(&mut part, false, &Base { id: &other.id, prefix: &other.prefix, others });
        if let Json::Object(part) = &mut part {
            for identity in ["$id", "id", "$schema"] {
                part.remove(identity);
            }
        }
        shelf.insert(key(place), part);
    }
    document
}

/// The document that references stand in.
struct Base<'a> {
    id: &'a str,
    prefix: &'a str,
    others: &'a [Other],
}

impl Base<'_> {
    /// Where a reference leads within the one document; none where it stays as it is.
    fn resolve(&self, target: &str) -> Option<String> {
        let (document, fragment) = target.split_once('#').unwrap_or((target, ""));
        if document.is_empty() || document == self.id {
            return Some(format!("#{}{fragment}", self.prefix));
        }
        let tail = format!("/{document}");
        let matches = |name: &str| name == document || name.ends_with(&tail);
        let other = self.others.iter().find(|other| matches(&other.name) || matches(&other.id))?;
        Some(format!("#{}{fragment}", other.prefix))
    }
}

/// Leads every reference to where its target is now. `names` tells a map of names from a schema. The parser of JSON has
/// bounded how deep that goes.
fn redirect(json: &mut Json, names: bool, base: &Base<'_>) {
    match json {
        Json::Object(map) => {
            for (key, value) in map {
                match value {
                    Json::String(target) if !names && key == "$ref" => {
                        if let Some(target_now) = base.resolve(target) {
                            *target = target_now;
                        }
                    }
                    _ if !names && OPAQUE.contains(&key.as_str()) => {}
                    value => redirect(value, !names && NAMED.contains(&key.as_str()), base),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| redirect(item, false, base)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use motet_engine::definition::Format;
    use serde_json::json;

    use super::*;
    use crate::port::Reference;

    fn compile(schema: &Json, references: &[(&str, Json)]) -> Result<JsonSchema, String> {
        let reference = |(name, text): &(&str, Json)| Reference { name: (*name).to_owned(), text: text.to_string() };
        JsonSchema::compile(&SchemaText {
            format: Format::JsonSchema,
            text: schema.to_string(),
            references: references.iter().map(reference).collect(),
        })
    }

    fn class(schema: &JsonSchema, text: &str) -> Result<Value, &'static str> {
        schema.decode(&Bytes::copy_from_slice(text.as_bytes())).map_err(|mistake| mistake.class)
    }

    #[test]
    fn json_is_checked() {
        let schema =
            compile(&json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}), &[])
                .unwrap();
        assert_eq!(class(&schema, r#"{"a": 1}"#), Ok(json!({"a": 1}).into()));
        assert_eq!(class(&schema, r#"{"a": "1"}"#), Err("unfit_value"));
        assert_eq!(class(&schema, "{"), Err("invalid_json"));
        assert_eq!(class(&schema, &"[".repeat(10_000)), Err("too_deep"));
    }

    #[test]
    fn references_lead_into_the_document() {
        let draft = "http://json-schema.org/draft-07/schema#";
        let order = json!({
            "$schema": draft, "$id": "https://example.org/order.json", "type": "object",
            "properties": {
                "customer": {"$ref": "customer.json"},
                "street": {"$ref": "https://example.org/customer.json#/definitions/street"},
                "again": {"$ref": "https://example.org/order.json#/properties/enum"},
                "enum": {"type": "boolean"},
                "fixed": {"const": {"$ref": "customer.json"}},
            },
        });
        let customer = json!({
            "$schema": draft, "$id": "https://example.org/customer.json", "type": "object",
            "properties": {"street": {"$ref": "#/definitions/street"}, "country": {"$ref": "country.json"}},
            "definitions": {"street": {"type": "string", "minLength": 2}},
        });
        let country = json!({"enum": ["DE", "FR"]});
        let references =
            [("https://example.org/customer.json", customer), ("https://example.org/country.json", country)];
        let schema = compile(&order, &references).unwrap();
        for (value, fits) in [
            (json!({"customer": {"street": "ab", "country": "DE"}, "street": "cd", "again": true}), true),
            (json!({"fixed": {"$ref": "customer.json"}}), true),
            (json!({"customer": {"street": "a"}}), false),
            (json!({"customer": {"country": "XX"}}), false),
            (json!({"street": "a"}), false),
            (json!({"again": 1}), false),
        ] {
            assert_eq!(class(&schema, &value.to_string()).is_ok(), fits, "{value}");
        }
        let lost = compile(&order, &references[..1]).unwrap_err();
        assert!(lost.contains("country.json") && lost.contains("outside"), "{lost}");
    }

    #[test]
    fn broken_schemas_are_told() {
        for (text, words) in [("{", "no JSON"), (r#"{"type": 7}"#, "/type"), (r##"{"$ref": "#"}"##, "never ends")] {
            let schema = SchemaText { format: Format::JsonSchema, text: text.to_owned(), references: vec![] };
            let found = JsonSchema::compile(&schema).unwrap_err();
            assert!(found.contains(words), "{found}");
        }
    }
}
