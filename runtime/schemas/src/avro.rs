//! Schemas of Avro, flattened: every type has a number, so that reading a record looks no name up.
//!
//! What a schema may say is the crate's affair; this only walks what it understood. Used by [`crate::CompiledSchema`].
//! Source: the specification of Avro 1.12.

mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, FixedSchema, InnerDecimalSchema, Name, UuidSchema};
use bytes::Bytes;
use motet_engine::value::Value;

use crate::compiled::Mistake;
use crate::decimal::MAX_SCALE;
use crate::port::SchemaText;

/// Types of one schema at most.
const MAX_TYPES: usize = 1 << 16;

/// A type by its number.
type TypeId = usize;

/// What bytes are read as.
#[derive(Debug)]
enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<Arc<str>>),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Record(Vec<(Arc<str>, TypeId)>),
    /// The scale, and the size where it is fixed.
    Decimal(i64, Option<usize>),
    /// A decimal that carries its scale.
    BigDecimal,
    /// Sixteen bytes; whether their number stands before them.
    Uuid(bool),
    Date,
    /// Nanoseconds of its unit, and whether it is a long.
    Time(i128, bool),
    /// Nanoseconds of its unit, and whether it is local.
    Timestamp(i128, bool),
    Duration,
}

/// A schema of Avro.
#[derive(Debug)]
pub(crate) struct AvroSchema {
    types: Vec<Type>,
    root: TypeId,
}

impl AvroSchema {
    /// Understands a schema, or says why not.
    pub(crate) fn compile(schema: &SchemaText) -> Result<Self, String> {
        let references = schema.references.iter().map(|reference| reference.text.as_str());
        let (root, others) =
            Schema::parse_str_with_list(&schema.text, references).map_err(|error| error.to_string())?;
        let mut flat = Flat::default();
        let root = flat.visit(&root)?;
        for other in &others {
            flat.visit(other)?;
        }
        match flat.open.into_iter().next() {
            Some(name) => Err(format!("it refers to '{name}', which nothing defines")),
            None => Ok(Self { types: flat.types, root }),
        }
    }

    /// Reads bytes that were written by it.
    pub(crate) fn decode(&self, bytes: &Bytes) -> Result<Value, Mistake> {
        reading::read(self, bytes)
    }
}

/// Types as they are found.
#[derive(Default)]
struct Flat {
    types: Vec<Type>,
    names: HashMap<String, TypeId>,
    /// Names that were referred to and not found yet.
    open: std::collections::BTreeSet<String>,
}

impl Flat {
    fn add(&mut self, kind: Type) -> Result<TypeId, String> {
        if self.types.len() >= MAX_TYPES {
            return Err(format!("it has more than {MAX_TYPES} types"));
        }
        self.types.push(kind);
        Ok(self.types.len() - 1)
    }

    /// The number of a name, whether its type was found yet or not.
    fn named(&mut self, name: &Name) -> Result<TypeId, String> {
        let name = name.fullname(None);
        if let Some(id) = self.names.get(&name) {
            return Ok(*id);
        }
        let id = self.add(Type::Null)?;
        self.open.insert(name.clone());
        self.names.insert(name, id);
        Ok(id)
    }

    fn define(&mut self, name: &Name, kind: Type) -> Result<TypeId, String> {
        let id = self.named(name)?;
        self.open.remove(&name.fullname(None));
        self.types[id] = kind;
        Ok(id)
    }

    /// Numbers a type and all within it. The parser of JSON has bounded how deep that goes.
    fn visit(&mut self, schema: &Schema) -> Result<TypeId, String> {
        let plain = match schema {
            Schema::Ref { name } => return self.named(name),
            Schema::Record(record) => {
                // Its name is known within it.
                let id = self.named(&record.name)?;
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push((Arc::from(field.name.as_str()), self.visit(&field.schema)?));
                }
                self.define(&record.name, Type::Record(fields))?;
                return Ok(id);
            }
            Schema::Enum(symbols) => {
                let kind = Type::Enum(symbols.symbols.iter().map(|symbol| Arc::from(symbol.as_str())).collect());
                return self.define(&symbols.name, kind);
            }
            Schema::Fixed(fixed) => return self.define(&fixed.name, Type::Fixed(fixed.size)),
            Schema::Decimal(decimal) => return self.decimal(decimal),
            Schema::Uuid(UuidSchema::Fixed(fixed)) => return self.sized(fixed, 16, Type::Uuid(false)),
            Schema::Duration(fixed) => return self.sized(fixed, 12, Type::Duration),
            Schema::Array(array) => Type::Array(self.visit(&array.items)?),
            Schema::Map(map) => Type::Map(self.visit(&map.types)?),
            Schema::Union(union) => {
                Type::Union(union.variants().iter().map(|variant| self.visit(variant)).collect::<Result<_, _>>()?)
            }
            Schema::Null => Type::Null,
            Schema::Boolean => Type::Boolean,
            Schema::Int => Type::Int,
            Schema::Long => Type::Long,
            Schema::Float => Type::Float,
            Schema::Double => Type::Double,
            Schema::Bytes => Type::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Type::String,
            Schema::Uuid(UuidSchema::Bytes) => Type::Uuid(true),
            Schema::BigDecimal => Type::BigDecimal,
            Schema::Date => Type::Date,
            Schema::TimeMillis => Type::Time(1_000_000, false),
            Schema::TimeMicros => Type::Time(1_000, true),
            Schema::TimestampMillis => Type::Timestamp(1_000_000, false),
            Schema::TimestampMicros => Type::Timestamp(1_000, false),
            Schema::TimestampNanos => Type::Timestamp(1, false),
            Schema::LocalTimestampMillis => Type::Timestamp(1_000_000, true),
            Schema::LocalTimestampMicros => Type::Timestamp(1_000, true),
            Schema::LocalTimestampNanos => Type::Timestamp(1, true),
        };
        self.add(plain)
    }

    fn decimal(&mut self, decimal: &DecimalSchema) -> Result<TypeId, String> {
        let scale = i64::try_from(decimal.scale).ok().filter(|scale| *scale <= MAX_SCALE);
        let scale = scale.ok_or_else(|| format!("a decimal has a scale of {}", decimal.scale))?;
        match &decimal.inner {
            InnerDecimalSchema::Bytes => self.add(Type::Decimal(scale, None)),
            InnerDecimalSchema::Fixed(fixed) => self.define(&fixed.name, Type::Decimal(scale, Some(fixed.size))),
        }
    }

    fn sized(&mut self, fixed: &FixedSchema, size: usize, kind: Type) -> Result<TypeId, String> {
        if fixed.size != size {
            return Err(format!("'{}' has {} bytes and needs {size}", fixed.name.fullname(None), fixed.size));
        }
        self.define(&fixed.name, kind)
    }
}
