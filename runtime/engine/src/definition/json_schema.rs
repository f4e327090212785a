//! The JSON Schema of every kind, for editors and for the CLI to print.
//!
//! Built from the same tables that the readers use, so that both know the same keys. It checks shape only: names,
//! references and cycles are the readers' affair. Never used for reading.

use serde_json::{Map, Value as Json, json};

use super::document::API_VERSION;
use super::{call, http, index, limits, model, placement, schedule, serving, step, stream, workflow};
use crate::failure::FailureClass;

const NAME: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";
const IDENTIFIER: &str = "^[a-z_][a-z0-9_]{0,62}$";
const DURATION: &str = "^([0-9.]+(ms|s|m|h|d))+$|^P([0-9.]+[DW])*(T([0-9.]+[HMS])+)?$";

/// The JSON Schema (draft 2020-12) of a kind such as `Workflow`; none for a kind that does not exist.
#[must_use]
pub fn json_schema(kind: &str) -> Option<Json> {
    let (keys, required, described): (&[&str], _, Vec<(&str, Json)>) = match kind {
        "Workflow" => (&workflow::KEYS, json!(["kind", "name", "steps"]), workflow_properties()),
        "Model" => (&model::KEYS, json!(["kind", "name", "backend"]), model_properties()),
        "Index" => (&index::KEYS, json!(["kind", "name", "dimension"]), index_properties()),
        "Schedule" => (&schedule::KEYS, json!(["kind", "name", "workflow", "cron"]), schedule_properties()),
        "Stream" => (&stream::KEYS, json!(["kind", "name", "workflow"]), stream_properties()),
        _ => return None,
    };
    let mut properties = properties(keys, described);
    properties.insert("apiVersion".into(), json!({"const": API_VERSION}));
    properties.insert("kind".into(), json!({"const": kind}));
    properties.insert("name".into(), name());
    properties.insert("description".into(), json!({"type": "string"}));
    if keys.contains(&"version") {
        properties.insert("version".into(), json!({"type": ["string", "integer"], "default": "1"}));
    }
    Some(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind,
        "type": "object",
        "required": required,
        "additionalProperties": false,
        "properties": properties,
    }))
}

/// Every key, with what is said about it; a key of which nothing is said may hold anything.
fn properties(keys: &[&str], described: Vec<(&str, Json)>) -> Map<String, Json> {
    let mut properties: Map<String, Json> = keys.iter().map(|key| ((*key).to_owned(), json!({}))).collect();
    for (key, schema) in described {
        properties.insert(key.to_owned(), schema);
    }
    properties
}

fn object(keys: &[&str], required: &[&str], described: Vec<(&str, Json)>) -> Json {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties(keys, described),
    })
}

fn name() -> Json {
    json!({"type": "string", "pattern": NAME})
}

fn duration(default: Option<&str>) -> Json {
    let mut schema = json!({"type": "string", "pattern": DURATION, "examples": ["200ms", "5s", "PT5S"]});
    if let Some(default) = default {
        schema["default"] = default.into();
    }
    schema
}

fn integer(least: i64, most: i64, default: Option<i64>) -> Json {
    let mut schema = json!({"type": "integer", "minimum": least, "maximum": most});
    if let Some(default) = default {
        schema["default"] = default.into();
    }
    schema
}

fn batch() -> Json {
    object(
        &model::BATCH_KEYS,
        &[],
        vec![
            ("max", integer(1, 65_536, Some(32))),
            ("max_bytes", integer(1_024, 1 << 30, Some(4 << 20))),
            ("max_length", integer(1, 1 << 32, None)),
            ("window", duration(Some("0s"))),
            ("buckets", json!({"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 256})),
        ],
    )
}

fn model_properties() -> Vec<(&'static str, Json)> {
    let digest = json!({"type": "string", "pattern": "^[0-9a-f]{64}$"});
    let source = object(
        &model::SOURCE_KEYS,
        &["uri"],
        vec![
            ("uri", json!({"type": "string", "pattern": "^(file|https|pypi|builtin):."})),
            (
                "sha256",
                json!({"anyOf": [digest, {"type": "object", "additionalProperties": digest, "minProperties": 1}]}),
            ),
            ("license", json!({"type": "string"})),
            ("mirrors", json!({"type": "array", "items": {"type": "string"}})),
        ],
    );
    vec![
        ("backend", name()),
        ("source", json!({"anyOf": [{"type": "string"}, source]})),
        ("parameters", json!({"type": "object"})),
        ("batch", batch()),
        ("replicas", integer(1, 256, Some(1))),
        ("timeout", duration(Some("30s"))),
        ("queue", integer(1, 1_000_000, Some(1_024))),
        ("limits", object(&limits::KEYS, &[], limit_properties())),
        ("placement", object(&placement::KEYS, &[], placement_properties())),
        ("isolation", json!({"enum": ["best_effort", "required"], "default": "best_effort"})),
        ("warm_up", json!({"type": "array", "items": {"type": "object"}, "maxItems": serving::MAX_SAMPLES})),
        ("fallback", name()),
        (
            "breaker",
            object(
                &serving::BREAKER_KEYS,
                &[],
                vec![("failures", integer(1, serving::MAX_FAILURES, Some(5))), ("pause", duration(Some("5s")))],
            ),
        ),
        (
            "cache",
            object(
                &serving::CACHE_KEYS,
                &[],
                vec![
                    ("ttl", duration(Some("1h"))),
                    ("max_bytes", integer(serving::CACHE_BYTES.0, serving::CACHE_BYTES.1, Some(64 << 20))),
                ],
            ),
        ),
    ]
}

fn placement_properties() -> Vec<(&'static str, Json)> {
    let texts = json!({"type": "string", "minLength": 1});
    vec![
        ("labels", json!({"type": "object", "additionalProperties": texts, "maxProperties": placement::MAX_LABELS})),
        ("min", integer(1, placement::MOST, Some(1))),
        ("max", integer(1, placement::MOST, None)),
    ]
}

fn limit_properties() -> Vec<(&'static str, Json)> {
    vec![("concurrency", integer(1, limits::MOST, None)), ("rate", rate())]
}

fn rate() -> Json {
    let bounds = vec![("count", integer(1, limits::MOST, None)), ("per", duration(None))];
    let short = json!({"type": "string", "pattern": limits::RATE_TEXT, "examples": ["500/s", "100/10s"]});
    json!({"anyOf": [object(&limits::RATE_KEYS, &limits::RATE_KEYS, bounds), short]})
}

fn stream_properties() -> Vec<(&'static str, Json)> {
    let names = |words: &[&str]| json!({"enum": words});
    let topic = json!({"type": "string", "pattern": stream::TOPIC});
    let format = names(&stream::FORMATS.map(|(name, _)| name));
    let formats = object(&stream::FORMAT_KEYS, &[], vec![("value", format.clone()), ("key", format.clone())]);
    let expression = json!({"type": "string", "pattern": "\\$\\{", "maxLength": crate::expression::MAX_SOURCE + 3});
    let mut headers = names(&stream::LETTER_HEADERS.map(|(name, _)| name));
    headers["default"] = "connect".into();
    let bounds = vec![("rate", rate())];
    let output = vec![
        ("topic", topic.clone()),
        ("headers", json!({"type": "object", "maxProperties": 100})),
        ("on", json!({"type": "array", "items": names(&stream::ENDS.map(|(name, _)| name)), "minItems": 1})),
        ("delivery", names(&stream::DELIVERIES.map(|(name, _)| name))),
    ];
    let list = json!({"type": "array", "items": topic, "minItems": 1, "maxItems": 100});
    vec![
        ("topics", json!({"anyOf": [topic, list]})),
        ("pattern", json!({"type": "string", "minLength": 1, "examples": ["orders-.*"]})),
        ("group", topic.clone()),
        ("workflow", name()),
        ("format", json!({"anyOf": [format, formats], "default": "json"})),
        ("filter", json!({"type": ["string", "boolean"], "maxLength": crate::expression::MAX_SOURCE})),
        ("ordering", json!({"anyOf": [names(&stream::ORDERINGS), expression], "default": "none"})),
        ("tags", json!({"type": "array", "items": {"type": "string"}})),
        ("priority", integer(-100, 100, Some(0))),
        ("start", json!({"type": "string", "default": "earliest", "examples": ["latest", "2026-12-24T09:00:00Z"]})),
        ("protocol", json!({"enum": stream::PROTOCOLS.map(|(name, _)| name), "default": "classic"})),
        ("static_membership", json!({"type": "boolean", "default": false})),
        ("limits", object(&limits::STREAM_KEYS, &[], bounds)),
        ("dead_letter", object(&stream::DEAD_LETTER_KEYS, &[], vec![("topic", topic), ("headers", headers)])),
        ("output", object(&stream::OUTPUT_KEYS, &["topic"], output)),
        ("paused", json!({"type": "boolean", "default": false})),
    ]
}

fn schedule_properties() -> Vec<(&'static str, Json)> {
    let overlaps = schedule::OVERLAPS.map(|(name, _)| name);
    vec![
        ("workflow", name()),
        ("cron", json!({"type": "string", "examples": ["0 3 * * *", "*/10 * * * * *", "@hourly"]})),
        ("time_zone", json!({"type": "string", "default": "UTC", "examples": ["Europe/Berlin"]})),
        ("overlap", json!({"enum": overlaps, "default": "skip"})),
        ("catch_up", object(&schedule::CATCH_UP_KEYS, &schedule::CATCH_UP_KEYS, vec![("window", duration(None))])),
        ("priority", integer(-100, 100, Some(0))),
        ("tags", json!({"type": "array", "items": {"type": "string"}})),
        ("paused", json!({"type": "boolean", "default": false})),
    ]
}

fn index_properties() -> Vec<(&'static str, Json)> {
    let metrics = index::METRICS.map(|(name, _)| name);
    vec![
        ("backend", json!({"type": "string", "pattern": NAME, "default": "embedded"})),
        ("dimension", integer(1, index::MAX_DIMENSION, None)),
        ("metric", json!({"enum": metrics, "default": "cosine"})),
        ("batch", batch()),
    ]
}

fn workflow_properties() -> Vec<(&'static str, Json)> {
    let steps = json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": workflow::MAX_STEPS,
        "propertyNames": {"pattern": IDENTIFIER},
        "additionalProperties": {"oneOf": call::KINDS.iter().map(step_schema).collect::<Vec<_>>()},
    });
    vec![
        ("input", object(&["schema"], &[], vec![("schema", json!({"type": ["object", "boolean"]}))])),
        ("output_schema", json!({"type": ["object", "boolean"]})),
        ("timeout", duration(None)),
        ("limits", object(&limits::WORKFLOW_KEYS, &[], limit_properties())),
        ("steps", steps),
        (workflow::ORDER, json!({"type": "array", "items": {"type": "string"}})),
    ]
}

fn step_schema(kind: &call::Kind) -> Json {
    let has_no = |key: &str| match kind.name {
        "wait" => ["retry", "timeout", "fallback"].contains(&key),
        "signal" => key == "retry",
        _ => false,
    };
    let keys: Vec<&str> = step::KEYS.iter().chain(kind.keys).copied().filter(|key| !has_no(key)).collect();
    let mut required = vec!["call"];
    required.extend(kind.keys.iter().filter(|key| matches!(**key, "model" | "template" | "format")));
    let with = match kind.arguments {
        Some(arguments) => {
            let described = if kind.name == "http" { http_arguments() } else { vec![] };
            json!({"anyOf": [{"type": "string"}, object(arguments, kind.required, described)]})
        }
        None if kind.name == "transform" => json!({}),
        None => json!({"type": ["object", "string"]}),
    };
    if matches!(kind.name, "transform" | "wait") || !kind.required.is_empty() {
        required.push("with");
    }
    let expression = json!({"type": "string", "maxLength": crate::expression::MAX_SOURCE});
    let mut described = vec![
        ("call", json!({"const": kind.name})),
        ("needs", json!({"type": "array", "items": {"type": "string", "pattern": IDENTIFIER}})),
        ("if", json!({"anyOf": [expression, {"type": "boolean"}]})),
        ("for_each", expression),
        ("as", json!({"type": "string", "pattern": IDENTIFIER, "default": step::DEFAULT_VARIABLE})),
        ("max_concurrency", integer(1, 10_000, Some(i64::from(step::DEFAULT_CONCURRENCY)))),
        ("retry", retry()),
        ("timeout", duration(None)),
        ("fallback", object(&step::FALLBACK_KEYS, &[], vec![("model", name())])),
        ("with", with),
    ];
    match kind.name {
        "model" => described.push(("model", name())),
        "prompt" => described.push(("template", json!({"type": "string"}))),
        "parse" => {
            described.push(("format", json!({"enum": call::FORMATS})));
            described.push(("pattern", json!({"type": "string"})));
            described.push(("schema", json!({"type": ["object", "boolean"]})));
        }
        "signal" => {
            described.push(("signal", name()));
            described.push(("schema", json!({"type": ["object", "boolean"]})));
        }
        _ => {}
    }
    described.retain(|(key, _)| !has_no(key));
    object(&keys, &required, described)
}

fn http_arguments() -> Vec<(&'static str, Json)> {
    let dynamic = json!({"type": "string", "pattern": "\\$\\{"});
    let scalar = json!({"type": ["string", "number", "boolean", "null"]});
    let named = json!({"type": ["object", "string"], "additionalProperties": {
        "anyOf": [scalar, {"type": "array", "items": scalar}],
    }});
    vec![
        ("method", json!({"anyOf": [{"enum": http::HTTP_METHODS}, dynamic]})),
        ("url", json!({"type": "string", "examples": ["https://api.example.org/v1/items/${ input.id }"]})),
        ("headers", named.clone()),
        ("query", named),
        ("timeout", json!({"anyOf": [duration(None), dynamic]})),
    ]
}

fn retry() -> Json {
    let backoff = object(
        &step::BACKOFF_KEYS,
        &[],
        vec![
            ("initial", duration(Some("200ms"))),
            ("factor", json!({"type": "number", "minimum": 1, "maximum": 100, "default": 2})),
            ("max", duration(Some("30s"))),
            ("jitter", json!({"const": "full"})),
        ],
    );
    let classes = FailureClass::RETRYABLE.map(FailureClass::as_str);
    object(
        &step::RETRY_KEYS,
        &[],
        vec![
            ("max_attempts", integer(1, 100, Some(3))),
            ("backoff", backoff),
            ("on", json!({"type": "array", "items": {"enum": classes}})),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::document::KINDS;
    use crate::schema::Schema;

    #[test]
    fn every_kind_has_a_valid_schema() {
        for kind in KINDS {
            let schema = json_schema(kind).unwrap();
            Schema::compile(&schema).unwrap();
        }
        assert!(json_schema("Nothing").is_none());
    }
}
