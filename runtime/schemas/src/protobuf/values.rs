//! Messages of Protobuf as values: by the names of the `.proto` file, with the well-known types as what they stand for.
//!
//! As in the mapping to JSON, a field without presence is there with its default, one with presence only where it is
//! set. Unlike there, whole numbers stay numbers and bytes stay bytes. Used by the schema.
//! Source: the ProtoJSON format, and Google's well-known types.

use std::sync::Arc;

use motet_engine::value::{Map, Value};
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage as _, Value as Found};

use crate::budget::Budget;
use crate::compiled::{Mistake, plain};
use crate::{decimal, moment};

/// Whole numbers that a double can tell from their neighbours.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A message as a value.
pub(super) fn value(message: &DynamicMessage) -> Result<Value, Mistake> {
    Walk { budget: Budget::new() }.message(message, 1)
}

struct Walk {
    budget: Budget,
}

impl Walk {
    fn message(&mut self, message: &DynamicMessage, depth: usize) -> Result<Value, Mistake> {
        self.budget.take(1, depth)?;
        let descriptor = message.descriptor();
        if let Some(known) = self.known(descriptor.full_name(), message, depth)? {
            return Ok(known);
        }
        let mut map = Map::new();
        for field in descriptor.fields() {
            if !field.supports_presence() || message.has_field(&field) {
                let value = self.field(&message.get_field(&field), &field.kind(), depth + 1)?;
                map.insert(field.name().into(), value);
            }
        }
        for (extension, value) in message.extensions() {
            map.insert(extension.json_name().into(), self.field(value, &extension.kind(), depth + 1)?);
        }
        Ok(map.into())
    }

    /// What a well-known type stands for; none for any other.
    fn known(&mut self, name: &str, message: &DynamicMessage, depth: usize) -> Result<Option<Value>, Mistake> {
        let get = |name: &str| message.get_field_by_name(name);
        let number = |name: &str| {
            get(name).map_or(0, |value| match &*value {
                Found::I64(number) => *number,
                Found::I32(number) => i64::from(*number),
                _ => 0,
            })
        };
        let nanoseconds = || i32::try_from(number("nanos")).unwrap_or_default();
        Ok(Some(match name {
            "google.protobuf.Timestamp" => {
                let whole = i128::from(number("seconds")) * 1_000_000_000 + i128::from(nanoseconds());
                moment::timestamp(whole, false)?.into()
            }
            "google.protobuf.Duration" => moment::duration(number("seconds"), nanoseconds())?.into(),
            "confluent.type.Decimal" => match get("value").as_deref() {
                Some(Found::Bytes(bytes)) => decimal::text(bytes, number("scale"))?.into(),
                _ => Value::Null,
            },
            "google.protobuf.Struct" => self.only(message, "fields", depth)?.unwrap_or_else(Value::empty_map),
            "google.protobuf.ListValue" => self.only(message, "values", depth)?.unwrap_or_else(|| vec![].into()),
            "google.protobuf.Value" => match message.fields().next() {
                Some((_, Found::F64(number))) => dynamic(*number),
                Some((field, value)) => self.field(value, &field.kind(), depth)?,
                None => Value::Null,
            },
            "google.protobuf.BoolValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue"
            | "google.protobuf.Int32Value"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.FloatValue"
            | "google.protobuf.DoubleValue" => self.only(message, "value", depth)?.unwrap_or_default(),
            _ => return Ok(None),
        }))
    }

    /// The one field that a message consists of.
    fn only(&mut self, message: &DynamicMessage, name: &str, depth: usize) -> Result<Option<Value>, Mistake> {
        let Some(field) = message.descriptor().get_field_by_name(name) else { return Ok(None) };
        self.field(&message.get_field(&field), &field.kind(), depth).map(Some)
    }

    fn field(&mut self, value: &Found, kind: &Kind, depth: usize) -> Result<Value, Mistake> {
        self.budget.take(1, depth)?;
        Ok(match value {
            Found::Bool(truth) => Value::Bool(*truth),
            Found::I32(number) => Value::Int((*number).into()),
            Found::I64(number) => Value::Int(*number),
            Found::U32(number) => Value::Int((*number).into()),
            Found::U64(number) => i64::try_from(*number).map_or(Value::Float(*number as f64), Value::Int),
            Found::F32(number) => Value::Float((*number).into()),
            Found::F64(number) => Value::Float(*number),
            Found::String(text) => text.as_str().into(),
            Found::Bytes(bytes) => plain(bytes.clone()),
            Found::EnumNumber(number) => symbol(*number, kind),
            Found::Message(message) => self.message(message, depth)?,
            Found::List(items) => {
                let mut list = Vec::with_capacity(items.len().min(self.budget.left()));
                for item in items {
                    list.push(self.field(item, kind, depth + 1)?);
                }
                list.into()
            }
            Found::Map(entries) => {
                let entry = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
                let mut map = Map::new();
                for (key, value) in entries {
                    map.insert(text(key), self.field(value, entry.as_ref().unwrap_or(kind), depth + 1)?);
                }
                map.into()
            }
        })
    }
}

/// The name of an enumeration's value; its number where the schema does not know it.
fn symbol(number: i32, kind: &Kind) -> Value {
    let Some(symbols) = kind.as_enum() else { return Value::Int(number.into()) };
    if symbols.full_name() == "google.protobuf.NullValue" {
        return Value::Null;
    }
    symbols.get_value(number).map_or_else(|| Value::Int(number.into()), |symbol| symbol.name().into())
}

/// A number of a dynamic value, as JSON would have it: whole ones are whole.
fn dynamic(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Value::Int(number as i64);
    }
    Value::Float(number)
}

fn text(key: &MapKey) -> Arc<str> {
    match key {
        MapKey::Bool(truth) => if *truth { "true" } else { "false" }.into(),
        MapKey::I32(number) => number.to_string().into(),
        MapKey::I64(number) => number.to_string().into(),
        MapKey::U32(number) => number.to_string().into(),
        MapKey::U64(number) => number.to_string().into(),
        MapKey::String(text) => text.as_str().into(),
    }
}
