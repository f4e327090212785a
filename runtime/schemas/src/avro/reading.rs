//! Bytes of Avro into values.
//!
//! Takes no memory for what the bytes only announce, and goes no deeper than a value may be nested. Used by the schema.
//! Source: the specification of Avro 1.12, binary encoding.

use std::sync::Arc;

use bytes::Bytes;
use motet_engine::value::{Map, Value};

use super::{AvroSchema, Type, TypeId};
use crate::budget::Budget;
use crate::compiled::{Mistake, plain};
use crate::{decimal, moment};

/// Places that are made for the items of a block before any is read.
const AHEAD: usize = 1_024;

/// Reads one value that takes all of the bytes.
pub(super) fn read(schema: &AvroSchema, bytes: &Bytes) -> Result<Value, Mistake> {
    let mut reader = Reader { schema, bytes, at: 0, budget: Budget::new() };
    let value = reader.value(schema.root, 1)?;
    match bytes.len() - reader.at {
        0 => Ok(value),
        rest => Err(invalid(format!("{rest} bytes follow its value: it was written by another schema"))),
    }
}

fn invalid(message: impl Into<String>) -> Mistake {
    Mistake::new("invalid_avro", message)
}

struct Reader<'a> {
    schema: &'a AvroSchema,
    bytes: &'a Bytes,
    at: usize,
    budget: Budget,
}

impl Reader<'_> {
    fn value(&mut self, id: TypeId, depth: usize) -> Result<Value, Mistake> {
        self.budget.take(1, depth)?;
        let schema = self.schema;
        Ok(match &schema.types[id] {
            Type::Null => Value::Null,
            Type::Boolean => match self.take(1)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                byte => return Err(invalid(format!("the byte {byte} at {} is no boolean", self.at - 1))),
            },
            Type::Int => Value::Int(self.int()?.into()),
            Type::Long => Value::Int(self.long()?),
            Type::Float => Value::Float(f32::from_le_bytes(self.array()?).into()),
            Type::Double => Value::Float(f64::from_le_bytes(self.array()?)),
            Type::Bytes => self.prefixed().map(plain)?,
            Type::String => self.text()?.into(),
            Type::Fixed(size) => self.take(*size).map(plain)?,
            Type::Enum(symbols) => Value::String(Arc::clone(self.chosen(symbols)?)),
            Type::Array(items) => self.list(*items, depth)?,
            Type::Map(values) => self.map(*values, depth)?,
            Type::Union(variants) => {
                let variant = *self.chosen(variants)?;
                self.value(variant, depth)?
            }
            Type::Record(fields) => {
                let mut map = Map::new();
                for (name, kind) in fields {
                    map.insert(Arc::clone(name), self.value(*kind, depth + 1)?);
                }
                map.into()
            }
            logical => self.logical(logical)?,
        })
    }

    /// What numbers and bytes stand for.
    fn logical(&mut self, kind: &Type) -> Result<Value, Mistake> {
        let text = match kind {
            Type::Decimal(scale, size) => {
                let bytes = match size {
                    Some(size) => self.take(*size)?,
                    None => self.prefixed()?,
                };
                decimal::text(&bytes, *scale)?
            }
            Type::BigDecimal => {
                let whole = self.prefixed()?;
                let mut inner = Reader { schema: self.schema, bytes: &whole, at: 0, budget: Budget::new() };
                let unscaled = inner.prefixed()?;
                decimal::text(&unscaled, inner.long()?)?
            }
            Type::Uuid(prefixed) => {
                let bytes = if *prefixed { self.prefixed()? } else { self.take(16)? };
                uuid(&bytes)?
            }
            Type::Date => moment::date(self.int()?)?,
            Type::Time(unit, long) => {
                let count = if *long { self.long()? } else { self.int()?.into() };
                moment::time(i128::from(count) * unit)?
            }
            Type::Timestamp(unit, local) => moment::timestamp(i128::from(self.long()?) * unit, *local)?,
            _ => return self.duration(),
        };
        Ok(text.into())
    }

    fn duration(&mut self) -> Result<Value, Mistake> {
        let mut map = Map::new();
        for name in ["months", "days", "milliseconds"] {
            map.insert(name.into(), Value::Int(u32::from_le_bytes(self.array()?).into()));
        }
        Ok(map.into())
    }

    fn list(&mut self, items: TypeId, depth: usize) -> Result<Value, Mistake> {
        let mut list = vec![];
        while let Some(count) = self.block()? {
            list.reserve(count.min(AHEAD));
            for _ in 0..count {
                list.push(self.value(items, depth + 1)?);
            }
        }
        Ok(list.into())
    }

    fn map(&mut self, values: TypeId, depth: usize) -> Result<Value, Mistake> {
        let mut map = Map::new();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let key = Arc::from(self.text()?.as_str());
                map.insert(key, self.value(values, depth + 1)?);
            }
        }
        Ok(map.into())
    }

    /// How many items come next; none at the end.
    fn block(&mut self) -> Result<Option<usize>, Mistake> {
        let count = self.long()?;
        if count < 0 {
            // The size of the block, for readers that pass over it.
            self.long()?;
        }
        match usize::try_from(count.unsigned_abs()) {
            Ok(0) => Ok(None),
            // Items may take no byte at all, so that only the count tells how many values there would be.
            Ok(count) if count <= self.budget.left() => Ok(Some(count)),
            _ => {
                let message = format!("it announces {} items, more than a value may have", count.unsigned_abs());
                Err(Mistake::new("too_large", message))
            }
        }
    }

    fn chosen<'s, T>(&mut self, among: &'s [T]) -> Result<&'s T, Mistake> {
        let index = self.long()?;
        let found = usize::try_from(index).ok().and_then(|index| among.get(index));
        found.ok_or_else(|| invalid(format!("it chooses number {index} of {}, before byte {}", among.len(), self.at)))
    }

    fn int(&mut self) -> Result<i32, Mistake> {
        let number = self.long()?;
        i32::try_from(number).map_err(|_| invalid(format!("{number} is no int, before byte {}", self.at)))
    }

    /// A number in zigzag form, seven bits a byte.
    fn long(&mut self) -> Result<i64, Mistake> {
        let mut raw = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            raw |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
            }
        }
        Err(invalid(format!("a number is longer than ten bytes, before byte {}", self.at)))
    }

    fn text(&mut self) -> Result<String, Mistake> {
        let bytes = self.prefixed()?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(invalid(format!("a string before byte {} is no UTF-8", self.at))),
        }
    }

    fn prefixed(&mut self) -> Result<Bytes, Mistake> {
        let length = self.long()?;
        let length =
            usize::try_from(length).map_err(|_| invalid(format!("{length} is no length, before byte {}", self.at)))?;
        self.take(length)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Mistake> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Mistake> {
        match self.at.checked_add(length) {
            Some(end) if end <= self.bytes.len() => {
                let taken = self.bytes.slice(self.at..end);
                self.at = end;
                Ok(taken)
            }
            _ => Err(invalid(format!("it ends early: {length} bytes are missing from byte {}", self.at))),
        }
    }
}

fn uuid(bytes: &[u8]) -> Result<String, Mistake> {
    let sixteen: [u8; 16] =
        bytes.try_into().map_err(|_| invalid(format!("a UUID has {} bytes and needs 16", bytes.len())))?;
    Ok(crate::port::SchemaKey::Guid(sixteen).to_string())
}
