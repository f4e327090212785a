//! CloudEvents 1.0 on records: in headers (binary), or as the whole value (structured), also in the form of old SDKs.
//!
//! A content type that begins with `application/cloudevents` says structured, any `ce_` header says binary, and a JSON
//! object with `specversion`, `id`, `source` and `type` is an event too: version 1 of the Python SDK writes the type of
//! the data where its own belongs. Everything else is a plain record. Never decodes data. Used by the reading.
//! Source: CloudEvents 1.0.2, Kafka protocol binding and JSON format.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::coordinates::header;
use super::decode::{Undecodable, essence, text};
use super::{Cause, Headers};
use crate::value::{Map, Value};

/// The start of the content type of structured events.
const STRUCTURED: &str = "application/cloudevents";
const STRUCTURED_JSON: &str = "application/cloudevents+json";
const PREFIX: &str = "ce_";
/// What every event has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];
/// Longest id, source, type and correlation that are kept with a run, in bytes.
const MAX_KEPT: usize = 4_096;

/// How a record may carry an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// The value is the event.
    Structured,
    /// The headers are the event, the value is its data.
    Binary,
    /// Nothing says so; the value may be an event by its members.
    Unmarked,
}

/// What a structured event carries.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Data {
    /// A JSON value; null where there is no data.
    Value(Value),
    /// Bytes, to be decoded like those of any record, of this content type.
    Bytes(Bytes, Option<String>),
}

/// How the record says that it carries an event.
pub(super) fn mode(headers: &Headers) -> Result<Mode, Undecodable> {
    let kind = header(headers, "content-type").map(|kind| essence(&String::from_utf8_lossy(kind))).unwrap_or_default();
    if kind == STRUCTURED_JSON {
        return Ok(Mode::Structured);
    }
    if kind.starts_with(STRUCTURED) {
        let message = format!("events of the content type '{kind}' are not read; send {STRUCTURED_JSON}");
        return Err(Undecodable::new("invalid_event", message));
    }
    let marked = headers.iter().any(|(name, _)| name.starts_with(PREFIX));
    Ok(if marked { Mode::Binary } else { Mode::Unmarked })
}

/// The attributes that headers hold.
pub(super) fn binary(headers: &Headers) -> Result<Map, Undecodable> {
    let mut attributes = Map::new();
    for (name, value) in headers {
        let (Some(name), Some(value)) = (name.strip_prefix(PREFIX), value) else { continue };
        if !is_name(name) {
            continue;
        }
        let words = text(value).map_err(|error| invalid(&format!("the header ce_{name}: {}", error.message)))?;
        attributes.insert(name.into(), words.into());
    }
    // Of all attributes this one alone has a header of its own.
    attributes.remove("datacontenttype");
    if let Some(kind) = header(headers, "content-type").and_then(|kind| text(kind).ok()) {
        attributes.insert("datacontenttype".into(), kind.into());
    }
    check(&attributes, "header ce_")?;
    Ok(attributes)
}

/// Whether a value has what makes it an event although nothing else says so.
pub(super) fn looks_like_event(value: &Value) -> bool {
    let is_text = |name: &str| matches!(value.get(name), Some(Value::String(_)));
    REQUIRED.iter().all(|name| is_text(name)) && version_fits(value.get("specversion"))
}

/// The attributes and the data of a structured event.
pub(super) fn structured(value: Value) -> Result<(Map, Data), Undecodable> {
    let Value::Map(members) = value else {
        return Err(invalid(&format!("an event must be a JSON object, not {}", value.kind())));
    };
    let mut attributes = std::sync::Arc::unwrap_or_clone(members);
    let (data, coded) = (attributes.remove("data"), attributes.remove("data_base64"));
    check(&attributes, "member ")?;
    attributes.retain(|name, value| is_name(name) && *value != Value::Null);
    let data = match (data, coded) {
        (Some(_), Some(Value::String(_))) => return Err(invalid("it has both data and data_base64")),
        (None, Some(Value::String(coded))) => {
            let bytes = STANDARD.decode(coded.as_bytes());
            let bytes = bytes.map_err(|error| invalid(&format!("its data_base64 is no base64: {error}")))?;
            let kind = attributes.get("datacontenttype").and_then(Value::as_str).map(essence);
            Data::Bytes(bytes.into(), kind)
        }
        (_, Some(other)) if other != Value::Null => {
            return Err(invalid(&format!("its data_base64 must be a text, not {}", other.kind())));
        }
        (data, _) => Data::Value(data.unwrap_or_default()),
    };
    Ok((attributes, data))
}

/// What is kept of an event with the run that it causes. A name that is too long is not kept.
pub(super) fn cause(attributes: &Map) -> Option<Cause> {
    let kept = |name: &str| match attributes.get(name) {
        Some(Value::String(text)) if text.len() <= MAX_KEPT => Some(std::sync::Arc::clone(text)),
        _ => None,
    };
    Some(Cause { id: kept("id")?, source: kept("source")?, kind: kept("type")?, correlation: kept("correlationid") })
}

fn check(attributes: &Map, what: &str) -> Result<(), Undecodable> {
    for name in REQUIRED {
        match attributes.get(name) {
            Some(Value::String(text)) if !text.is_empty() => {}
            _ => return Err(invalid(&format!("an event needs the {what}{name}, a text that is not empty"))),
        }
    }
    if version_fits(attributes.get("specversion")) {
        return Ok(());
    }
    Err(invalid("its specversion is not 1.0"))
}

fn version_fits(version: Option<&Value>) -> bool {
    version.and_then(Value::as_str).is_some_and(|version| version == "1" || version.starts_with("1."))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn invalid(message: &str) -> Undecodable {
    Undecodable::new("invalid_event", message)
}
