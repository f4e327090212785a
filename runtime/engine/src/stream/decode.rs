//! Bytes into values: JSON, text, plain bytes; and how large and deep a value may be that a run begins with.
//!
//! Values behind a schema registry are decoded elsewhere. Never recurses deeper than JSON may be nested, and looks at
//! each byte a fixed number of times. Used by the reading of records.

use bytes::Bytes;

use super::{DeadReason, Stage};
use crate::definition::Format;
use crate::expression::MAX_NESTING;
use crate::tensor::{Datatype, Tensor};
use crate::value::Value;

/// The largest input of a run that a record may begin, in bytes as the journal would hold it.
pub const MAX_INPUT_BYTES: usize = 15 << 20;

/// How deep such an input may be nested.
pub const MAX_INPUT_NESTING: usize = MAX_NESTING;

/// Bytes that the smallest value takes in the journal.
const SMALLEST: usize = 2;

/// Why bytes are no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Undecodable {
    pub(super) class: &'static str,
    pub(super) message: String,
}

impl Undecodable {
    pub(super) fn new(class: &'static str, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    pub(super) fn at(self, stage: Stage) -> DeadReason {
        DeadReason::new(stage, self.class, &self.message)
    }
}

/// Decodes bytes in a format that needs no registry.
pub(super) fn decode(format: Format, bytes: &Bytes) -> Result<Value, Undecodable> {
    match format {
        Format::Json => json(bytes),
        Format::Text => text(bytes).map(Value::from),
        Format::Bytes => Ok(plain(bytes)),
        Format::Avro | Format::Protobuf | Format::JsonSchema => {
            let message = format!("the format {} needs a schema registry, and none decoded this", format.as_str());
            Err(Undecodable::new("no_schema", message))
        }
    }
}

fn json(bytes: &[u8]) -> Result<Value, Undecodable> {
    // The parser has a bound on nesting, and says where it failed.
    serde_json::from_slice(bytes).map_err(|error| {
        let class = if error.to_string().starts_with("recursion limit") { "too_deep" } else { "invalid_json" };
        Undecodable::new(class, format!("it is no JSON: {error}"))
    })
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Undecodable> {
    std::str::from_utf8(bytes).map_err(|error| {
        Undecodable::new("invalid_text", format!("it is no UTF-8: byte {} does not belong there", error.valid_up_to()))
    })
}

/// Bytes as a tensor, as the calls of HTTP give them.
pub(super) fn plain(bytes: &Bytes) -> Value {
    // One byte for each element is what UINT8 takes, so that this always fits.
    Tensor::new(Datatype::Uint8, vec![bytes.len()], bytes.clone()).map_or(Value::Null, Value::Tensor)
}

/// The essence of a content type, such as `application/json`.
pub(super) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What a content type says about the format; none for one that says nothing.
pub(super) fn format_of(essence: &str) -> Option<Format> {
    match essence {
        "application/json" | "text/json" => Some(Format::Json),
        "application/octet-stream" => Some(Format::Bytes),
        other if other.ends_with("+json") => Some(Format::Json),
        other if other.starts_with("text/") => Some(Format::Text),
        _ => None,
    }
}

/// Whether a run may begin with the value: the journal could not hold one that is larger, nor read one that is deeper.
/// Stops looking as soon as it is too much.
pub(super) fn check_size(value: &Value) -> Result<(), Undecodable> {
    let mut bytes = 0usize;
    let mut open = vec![(value, 1usize)];
    while let Some((value, depth)) = open.pop() {
        if depth > MAX_NESTING {
            return Err(Undecodable::new("too_deep", format!("it is more than {MAX_NESTING} levels deep")));
        }
        let mut elements = 0;
        bytes += match value {
            Value::Null => SMALLEST,
            Value::Bool(_) => 4,
            Value::Int(_) | Value::Float(_) => 12,
            Value::String(text) => 8 + text.len(),
            Value::List(items) => {
                elements = items.len();
                8
            }
            Value::Map(map) => {
                elements = map.len();
                8 + map.keys().map(|key| 5 + key.len()).sum::<usize>()
            }
            Value::Tensor(tensor) => 64 + tensor.data().len(),
            Value::Blob(_) => 64,
        };
        // Looked at before what is inside: many references to one large list must not all be followed.
        if bytes + elements * SMALLEST > MAX_INPUT_BYTES {
            let message = format!("it takes more than {MAX_INPUT_BYTES} bytes in the journal");
            return Err(Undecodable::new("too_large", message));
        }
        match value {
            Value::List(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Map(map) => open.extend(map.values().map(|value| (value, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}
