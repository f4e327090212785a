//! What flows between steps: JSON plus tensors plus references to blobs.
//!
//! Tensors become JSON lists only where a person or an expression asks for elements. Cloning is cheap: strings,
//! lists, maps and tensors are shared. Used by every crate.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::tensor::{Datatype, Tensor};

/// Keys and values in the order of the keys, so that equal maps read and hash alike.
pub type Map = BTreeMap<Arc<str>, Value>;

/// Where a large value lies: the digest of its binary form in the store's content-addressed blob table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// SHA-256 of the encoded value.
    pub sha256: [u8; 32],
    /// Size of the encoded value in bytes.
    pub len: u64,
}

impl fmt::Debug for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One value. Integers that do not fit 64 signed bits become floats, as in JavaScript.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Value {
    /// JSON's null.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// A list.
    List(Arc<Vec<Value>>),
    /// Named values.
    Map(Arc<Map>),
    /// Numbers or byte strings of one type in row-major order.
    Tensor(Tensor),
    /// A value that lies in the blob table.
    Blob(BlobRef),
}

impl Value {
    /// An empty map.
    #[must_use]
    pub fn empty_map() -> Self {
        Self::Map(Arc::default())
    }

    /// The entry of a map under a key; none for a missing key and for what is no map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(map) => map.get(key),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The name of the value's kind, for error messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Tensor(_) => "a tensor",
            Self::Blob(_) => "a blob",
        }
    }

    /// Roughly the bytes that the value holds in memory and in the journal; bounds compare against it.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 8,
            Self::String(text) => 3 + text.len(),
            Self::List(items) => 3 + items.iter().map(Self::size).sum::<usize>(),
            Self::Map(map) => 3 + map.iter().map(|(key, value)| key.len() + 2 + value.size()).sum::<usize>(),
            Self::Tensor(tensor) => 16 + tensor.data().len(),
            Self::Blob(_) => 40,
        }
    }

    /// The value as JSON: tensors as nested lists, floats that are not finite as null, blobs as
    /// `{"$blob": "sha256:..", "len": n}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Map(Arc::new(map))
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::List(Arc::new(items))
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(truth) => Self::Bool(truth),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)), Self::Int)
            }
            serde_json::Value::String(text) => text.into(),
            serde_json::Value::Array(items) => items.into_iter().map(Self::from).collect::<Vec<_>>().into(),
            serde_json::Value::Object(map) => {
                map.into_iter().map(|(key, value)| (key.into(), value.into())).collect::<Map>().into()
            }
        }
    }
}

/// The binary form: one variant name of one letter beside each value, so that no type is guessed.
#[derive(Serialize)]
enum WireRef<'a> {
    #[serde(rename = "n")]
    Null,
    #[serde(rename = "b")]
    Bool(bool),
    #[serde(rename = "i")]
    Int(i64),
    #[serde(rename = "f")]
    Float(f64),
    #[serde(rename = "s")]
    String(&'a str),
    #[serde(rename = "l")]
    List(&'a Vec<Value>),
    #[serde(rename = "m")]
    Map(&'a Map),
    #[serde(rename = "t")]
    Tensor(&'a Tensor),
    #[serde(rename = "r")]
    Blob(BlobRef),
}

#[derive(Deserialize)]
enum Wire {
    #[serde(rename = "n")]
    Null,
    #[serde(rename = "b")]
    Bool(bool),
    #[serde(rename = "i")]
    Int(i64),
    #[serde(rename = "f")]
    Float(f64),
    #[serde(rename = "s")]
    String(Arc<str>),
    #[serde(rename = "l")]
    List(Vec<Value>),
    #[serde(rename = "m")]
    Map(Map),
    #[serde(rename = "t")]
    Tensor(Tensor),
    #[serde(rename = "r")]
    Blob(BlobRef),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            let wire = match self {
                Self::Null => WireRef::Null,
                Self::Bool(truth) => WireRef::Bool(*truth),
                Self::Int(number) => WireRef::Int(*number),
                Self::Float(number) => WireRef::Float(*number),
                Self::String(text) => WireRef::String(text),
                Self::List(items) => WireRef::List(items),
                Self::Map(map) => WireRef::Map(map),
                Self::Tensor(tensor) => WireRef::Tensor(tensor),
                Self::Blob(blob) => WireRef::Blob(*blob),
            };
            return wire.serialize(serializer);
        }
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::String(text) => serializer.serialize_str(text),
            Self::List(items) => items.serialize(serializer),
            Self::Map(map) => map.serialize(serializer),
            Self::Tensor(tensor) => Nested::of(tensor).serialize(serializer),
            Self::Blob(blob) => {
                use serde::ser::SerializeMap;
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("$blob", &blob.to_string())?;
                map.serialize_entry("len", &blob.len)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(ValueVisitor);
        }
        Ok(match Wire::deserialize(deserializer)? {
            Wire::Null => Self::Null,
            Wire::Bool(truth) => Self::Bool(truth),
            Wire::Int(number) => Self::Int(number),
            Wire::Float(number) => Self::Float(number),
            Wire::String(text) => Self::String(text),
            Wire::List(items) => items.into(),
            Wire::Map(map) => map.into(),
            Wire::Tensor(tensor) => Self::Tensor(tensor),
            Wire::Blob(blob) => Self::Blob(blob),
        })
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Float(number as f64), Value::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1024));
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, value)) = access.next_entry::<Arc<str>, Value>()? {
            if map.insert(Arc::clone(&key), value).is_some() {
                return Err(A::Error::custom(format_args!("the key '{key}' stands twice in one map")));
            }
        }
        Ok(map.into())
    }
}

/// A tensor, or one row of it at some depth, as nested lists.
struct Nested<'a> {
    datatype: Datatype,
    shape: &'a [usize],
    elements: Elements<'a>,
}

#[derive(Clone, Copy)]
enum Elements<'a> {
    Fixed(&'a [u8], usize),
    Strings(&'a [&'a [u8]]),
}

impl<'a> Elements<'a> {
    fn slice(self, from: usize, count: usize) -> Self {
        match self {
            Self::Fixed(bytes, size) => Self::Fixed(&bytes[from * size..(from + count) * size], size),
            Self::Strings(strings) => Self::Strings(&strings[from..from + count]),
        }
    }
}

struct Nesting<'a>(&'a Tensor);

impl<'a> Nested<'a> {
    fn of(tensor: &'a Tensor) -> Nesting<'a> {
        Nesting(tensor)
    }
}

impl Serialize for Nesting<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let strings = self.0.byte_strings().unwrap_or_default();
        let elements = match self.0.datatype().size() {
            Some(size) => Elements::Fixed(self.0.data(), size),
            None => Elements::Strings(&strings),
        };
        Nested { datatype: self.0.datatype(), shape: self.0.shape(), elements }.serialize(serializer)
    }
}

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((&rows, row_shape)) = self.shape.split_first() else {
            return match self.elements {
                Elements::Fixed(bytes, _) => serialize_number(self.datatype, bytes, serializer),
                Elements::Strings(strings) => {
                    serializer.serialize_str(&String::from_utf8_lossy(strings.first().copied().unwrap_or_default()))
                }
            };
        };
        let per_row: usize = row_shape.iter().product();
        let mut seq = serializer.serialize_seq(Some(rows))?;
        for row in 0..rows {
            let elements = self.elements.slice(row * per_row, per_row);
            seq.serialize_element(&Nested { datatype: self.datatype, shape: row_shape, elements })?;
        }
        seq.end()
    }
}

fn serialize_number<S: Serializer>(datatype: Datatype, bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut wide = [0u8; 8];
    wide[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
    let bits = u64::from_le_bytes(wide);
    match datatype {
        Datatype::Bool => serializer.serialize_bool(bits != 0),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 | Datatype::Uint64 => serializer.serialize_u64(bits),
        Datatype::Int8 => serializer.serialize_i64(i64::from(bits as i8)),
        Datatype::Int16 => serializer.serialize_i64(i64::from(bits as i16)),
        Datatype::Int32 => serializer.serialize_i64(i64::from(bits as i32)),
        Datatype::Int64 => serializer.serialize_i64(bits as i64),
        Datatype::Fp32 => serializer.serialize_f32(f32::from_bits(bits as u32)),
        Datatype::Fp64 => serializer.serialize_f64(f64::from_bits(bits)),
        Datatype::Bf16 => serializer.serialize_f32(f32::from_bits((bits as u32) << 16)),
        Datatype::Fp16 => serializer.serialize_f32(half_to_f32(bits as u16)),
        Datatype::Bytes => serializer.serialize_unit(),
    }
}

fn half_to_f32(half: u16) -> f32 {
    let sign = if half & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(half >> 10 & 0x1F);
    let fraction = f32::from(half & 0x3FF) / 1024.0;
    match exponent {
        0 => sign * fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        let mut map = Map::new();
        map.insert("null".into(), Value::Null);
        map.insert("int".into(), Value::Int(-3));
        map.insert("float".into(), Value::Float(0.5));
        map.insert("list".into(), vec![Value::Bool(true), "text".into()].into());
        map.insert("tensor".into(), Value::Tensor(Tensor::from_f32(vec![2, 2], &[1., 2., 3., 4.5]).unwrap()));
        map.insert("strings".into(), Value::Tensor(Tensor::from_strings(&["a", "b"])));
        map.insert("blob".into(), Value::Blob(BlobRef { sha256: [7; 32], len: 9 }));
        map.into()
    }

    #[test]
    fn binary_form_keeps_every_kind() {
        let packed = rmp_serde::to_vec_named(&sample()).unwrap();
        assert_eq!(rmp_serde::from_slice::<Value>(&packed).unwrap(), sample());
    }

    #[test]
    fn json_form_shows_tensors_as_lists() {
        let json = sample().to_json();
        assert_eq!(json["tensor"], serde_json::json!([[1.0, 2.0], [3.0, 4.5]]));
        assert_eq!(json["strings"], serde_json::json!(["a", "b"]));
        let back: Value = serde_json::from_value(serde_json::json!({"a": [1, 2.5, null, "x"], "b": u64::MAX})).unwrap();
        assert_eq!(back.get("b"), Some(&Value::Float(u64::MAX as f64)));
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        let error = serde_json::from_str::<Value>(r#"{"a": 1, "a": 2}"#).unwrap_err().to_string();
        assert!(error.contains("stands twice"), "{error}");
    }

    #[test]
    fn half_precision_reads_as_written() {
        for (half, expected) in
            [(0x3C00, 1.0), (0xC000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8), (0x7C00, f32::INFINITY)]
        {
            assert_eq!(half_to_f32(half), expected);
        }
    }
}
