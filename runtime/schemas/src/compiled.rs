//! A schema that is ready to read records by, whatever its format.
//!
//! Compiling and reading are pure and bounded: by the size of texts, by values and depth of what comes out. Used by the
//! decoder, which keeps them.

use bytes::Bytes;
use motet_engine::definition::Format;
use motet_engine::tensor::{Datatype, Tensor};
use motet_engine::value::Value;

use crate::avro::AvroSchema;
use crate::json_schema::JsonSchema;
use crate::port::SchemaText;
use crate::protobuf::ProtobufSchema;

/// The longest schema with all that it refers to, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 4 << 20;

/// Why bytes cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// Stable name of what is wrong, such as `invalid_avro`.
    pub class: &'static str,
    /// What is wrong, for people.
    pub message: String,
}

impl Mistake {
    pub(crate) fn new(class: &'static str, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }
}

/// A schema that was understood.
#[derive(Debug)]
pub struct CompiledSchema(Kind);

#[derive(Debug)]
enum Kind {
    Avro(AvroSchema),
    Protobuf(ProtobufSchema),
    JsonSchema(JsonSchema),
}

impl CompiledSchema {
    /// Understands a schema.
    ///
    /// # Errors
    /// `broken_schema` where it cannot be: in itself, or for what it refers to.
    pub fn compile(schema: &SchemaText) -> Result<Self, Mistake> {
        if schema.bytes() > MAX_SCHEMA_BYTES {
            let message = format!("it has {} bytes; at most {MAX_SCHEMA_BYTES} are allowed", schema.bytes());
            return Err(broken(message));
        }
        let kind = match schema.format {
            Format::Avro => AvroSchema::compile(schema).map(Kind::Avro),
            Format::Protobuf => ProtobufSchema::compile(schema).map(Kind::Protobuf),
            Format::JsonSchema => JsonSchema::compile(schema).map(Kind::JsonSchema),
            Format::Json | Format::Text | Format::Bytes => Err("its format has no schemas".to_owned()),
        };
        kind.map(Self).map_err(broken)
    }

    /// The format of the records that it describes.
    #[must_use]
    pub fn format(&self) -> Format {
        match self.0 {
            Kind::Avro(_) => Format::Avro,
            Kind::Protobuf(_) => Format::Protobuf,
            Kind::JsonSchema(_) => Format::JsonSchema,
        }
    }

    /// Reads bytes that were written by it. `indexes` names the message in a `.proto` file, one number for each level;
    /// other formats have none.
    ///
    /// # Errors
    /// When the bytes do not fit the schema, or stand for more than a run may begin with.
    pub fn decode(&self, indexes: &[usize], bytes: &Bytes) -> Result<Value, Mistake> {
        match &self.0 {
            Kind::Avro(schema) => schema.decode(bytes),
            Kind::Protobuf(schema) => schema.decode(indexes, bytes),
            Kind::JsonSchema(schema) => schema.decode(bytes),
        }
    }
}

/// Bytes as a tensor, as bodies of HTTP are.
pub(crate) fn plain(bytes: Bytes) -> Value {
    // One byte for each element is what UINT8 takes, so that this always fits.
    Tensor::new(Datatype::Uint8, vec![bytes.len()], bytes).map_or(Value::Null, Value::Tensor)
}

fn broken(message: String) -> Mistake {
    Mistake::new("broken_schema", message)
}
