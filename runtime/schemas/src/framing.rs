//! Where a record says which schema it was written by: in front of its bytes, or in a header.
//!
//! Reads only that and never the bytes behind it. Used by the decoder.
//! Source: the wire format of Confluent's serializers, whose newer ones write the header.

use bytes::Bytes;
use motet_engine::definition::Format;
use motet_engine::stream::Headers;

use crate::compiled::Mistake;
use crate::port::SchemaKey;

/// First byte before a number of four bytes.
const NUMBERED: u8 = 0;

/// First byte before an identifier of sixteen bytes.
const IDENTIFIED: u8 = 1;

/// How deep messages of Protobuf may lie within each other.
const MAX_INDEXES: u64 = 32;

/// Which part of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Key,
    Value,
}

impl Part {
    /// The header that names its schema.
    fn header(self) -> &'static str {
        match self {
            Self::Key => "__key_schema_id",
            Self::Value => "__value_schema_id",
        }
    }
}

/// Bytes, and what they were written by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Framed {
    pub(crate) schema: SchemaKey,
    /// Which message of a `.proto` file: one number for each level. Empty for other formats.
    pub(crate) indexes: Vec<usize>,
    pub(crate) body: Bytes,
}

/// Reads which schema the bytes were written by.
pub(crate) fn framed(format: Format, part: Part, headers: &Headers, bytes: &Bytes) -> Result<Framed, Mistake> {
    let header = headers.iter().rev().find(|(name, _)| name == part.header()).and_then(|(_, value)| value.as_ref());
    let mut from = Cursor { bytes: header.unwrap_or(bytes), at: 0 };
    let schema = match from.byte() {
        Some(NUMBERED) => from.array().map(|bytes| SchemaKey::Id(u32::from_be_bytes(bytes))),
        Some(IDENTIFIED) => from.array().map(SchemaKey::Guid),
        first => return Err(unframed(format, first, header.is_some())),
    };
    let schema = schema.ok_or_else(|| Mistake::new("unframed", "it ends within the id of its schema"))?;
    let indexes = if format == Format::Protobuf { indexes(&mut from)? } else { vec![] };
    let body = if header.is_some() { bytes.clone() } else { bytes.slice(from.at..) };
    Ok(Framed { schema, indexes, body })
}

fn unframed(format: Format, first: Option<u8>, header: bool) -> Mistake {
    let place = if header { "the header that names its schema" } else { "it" };
    let found = first.map_or_else(|| "is empty".to_owned(), |byte| format!("begins with the byte {byte}"));
    let advice = match first {
        Some(b'{' | b'[') if !header => "; what was written without a schema registry has the format json",
        _ => "",
    };
    let message = format!("{place} {found}, and {} of a schema registry begins with 0 or 1{advice}", format.as_str());
    Mistake::new("unframed", message)
}

/// The place of a message: a count and that many numbers; the first message is one zero.
fn indexes(from: &mut Cursor<'_>) -> Result<Vec<usize>, Mistake> {
    let broken = || Mistake::new("unframed", "it does not say which message of its schema it is");
    let count = from.number().ok_or_else(broken)?;
    if count == 0 {
        return Ok(vec![0]);
    }
    if count > MAX_INDEXES {
        return Err(broken());
    }
    (0..count).map(|_| from.number().and_then(|index| usize::try_from(index).ok()).ok_or_else(broken)).collect()
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let found = self.bytes.get(self.at..self.at + N)?.try_into().ok()?;
        self.at += N;
        Some(found)
    }

    /// A number in zigzag form that is not negative.
    fn number(&mut self) -> Option<u64> {
        let mut raw = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            raw |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return (raw & 1 == 0).then_some(raw >> 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, headers: &[(&str, &[u8])], bytes: &[u8]) -> Result<Framed, String> {
        let header = |(name, value): &(&str, &[u8])| ((*name).to_owned(), Some(Bytes::copy_from_slice(value)));
        let headers = headers.iter().map(header).collect();
        framed(format, Part::Value, &headers, &Bytes::copy_from_slice(bytes)).map_err(|mistake| mistake.message)
    }

    #[test]
    fn schemas_are_named_before_the_bytes_or_in_a_header() {
        let guid: Vec<u8> = [1].into_iter().chain(0..16).collect();
        let named = SchemaKey::Guid(std::array::from_fn(|place| u8::try_from(place).unwrap()));
        let with = |bytes: &[u8]| [&guid, bytes].concat();
        for (format, headers, bytes, schema, indexes, body) in [
            (Format::Avro, &[][..], &b"\x00\x00\x00\x01\x02ab"[..], SchemaKey::Id(258), &[][..], &b"ab"[..]),
            (Format::JsonSchema, &[], b"\x00\xff\xff\xff\xff", SchemaKey::Id(u32::MAX), &[], b""),
            (Format::Protobuf, &[], b"\x00\x00\x00\x00\x07\x00ab", SchemaKey::Id(7), &[0], b"ab"),
            (Format::Protobuf, &[], b"\x00\x00\x00\x00\x07\x04\x02\x80\x02ab", SchemaKey::Id(7), &[1, 128], b"ab"),
            (Format::Avro, &[], &with(b"x"), named, &[], b"x"),
            (Format::Avro, &[("__value_schema_id", &guid[..])], b"\x00x", named, &[], b"\x00x"),
            (Format::Protobuf, &[("__value_schema_id", &with(b"\x02\x06")[..])], b"x", named, &[3], b"x"),
            (Format::Avro, &[("__key_schema_id", &guid[..])], b"\x00\x00\x00\x00\x07x", SchemaKey::Id(7), &[], b"x"),
        ] {
            let found = read(format, headers, bytes).unwrap();
            let expected = Framed { schema, indexes: indexes.to_vec(), body: Bytes::copy_from_slice(body) };
            assert_eq!(found, expected, "{bytes:?}");
        }
        assert_eq!(named.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn what_names_no_schema_is_told() {
        for (format, headers, bytes, words) in [
            (Format::Avro, &[][..], &b""[..], "is empty"),
            (Format::Avro, &[], b"{}", "the byte 123"),
            (Format::Avro, &[], b"{}", "has the format json"),
            (Format::Avro, &[], b"\x02\x00\x00\x00\x07", "begins with 0 or 1"),
            (Format::Avro, &[], b"\x00\x00\x00\x07", "ends within the id"),
            (Format::Avro, &[("__value_schema_id", &b"{"[..])], b"\x00\x00\x00\x00\x07x", "the header"),
            (Format::Protobuf, &[], b"\x00\x00\x00\x00\x07", "which message"),
            (Format::Protobuf, &[], b"\x00\x00\x00\x00\x07\x01", "which message"),
            (Format::Protobuf, &[], b"\x00\x00\x00\x00\x07\x02", "which message"),
            (Format::Protobuf, &[], b"\x00\x00\x00\x00\x07\xfe\xff\xff\xff\x0f", "which message"),
            (Format::Protobuf, &[], b"\x00\x00\x00\x00\x07\xff\xff\xff\xff\xff\xff", "which message"),
        ] {
            let found = read(format, headers, bytes).unwrap_err();
            assert!(found.contains(words), "{found}");
        }
    }
}
