//! What is recorded of one batch, and its bytes.
//!
//! Never touches a file: framing and checksums are the log's. Used by the writer and at open.
//!
//! Layout, all numbers little-endian: code (1), namespace (u16 length, bytes), count (u32), then per vector its id (u16
//! length, bytes), metadata (u32 length, MessagePack; length 0 for none) and values (4 bytes each); per deleted id its
//! length (u16) and bytes.

use motet_engine::value::Map;

use crate::port::VectorRecord;

const UPSERT: u8 = 1;
const DELETE: u8 = 2;

/// One batch.
pub(super) enum Operation {
    /// Store vectors; with each the bytes that it takes in the record.
    Upsert { namespace: String, records: Vec<(VectorRecord, u32)> },
    /// Remove vectors.
    Delete { namespace: String, ids: Vec<String> },
}

/// Appends the record of an upsert to `out` and returns the bytes of each vector in it.
pub(super) fn encode_upsert<'a>(
    out: &mut Vec<u8>,
    namespace: &str,
    records: impl ExactSizeIterator<Item = (&'a str, &'a [f32], &'a Map)>,
) -> Result<Vec<u32>, String> {
    head(out, UPSERT, namespace, records.len())?;
    let mut sizes = Vec::with_capacity(records.len());
    for (id, values, metadata) in records {
        let start = out.len();
        text(out, id)?;
        let length_at = out.len();
        out.extend([0; 4]);
        if !metadata.is_empty() {
            rmp_serde::encode::write(out, metadata).map_err(|error| error.to_string())?;
        }
        let length = u32::try_from(out.len() - length_at - 4).map_err(|_| "metadata is too long".to_owned())?;
        out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        sizes.push(u32::try_from(out.len() - start).map_err(|_| "the vector is too long".to_owned())?);
    }
    Ok(sizes)
}

/// Appends the record of a deletion to `out`.
pub(super) fn encode_delete(out: &mut Vec<u8>, namespace: &str, ids: &[String]) -> Result<(), String> {
    head(out, DELETE, namespace, ids.len())?;
    ids.iter().try_for_each(|id| text(out, id))
}

/// Reads a record.
pub(super) fn decode(payload: &[u8], dimension: u32) -> Result<Operation, String> {
    let mut reader = Reader(payload);
    let code = reader.take(1)?[0];
    let namespace = reader.text()?;
    let count = reader.u32()?;
    let operation = match code {
        UPSERT => Operation::Upsert {
            namespace,
            records: (0..count).map(|_| reader.vector(dimension as usize)).collect::<Result<_, _>>()?,
        },
        DELETE => Operation::Delete { namespace, ids: (0..count).map(|_| reader.text()).collect::<Result<_, _>>()? },
        other => return Err(format!("it holds an operation of the unknown kind {other}")),
    };
    match reader.0.len() {
        0 => Ok(operation),
        extra => Err(format!("it holds {extra} bytes too many")),
    }
}

fn head(out: &mut Vec<u8>, code: u8, namespace: &str, count: usize) -> Result<(), String> {
    out.push(code);
    text(out, namespace)?;
    out.extend(u32::try_from(count).map_err(|_| "the batch is too long".to_owned())?.to_le_bytes());
    Ok(())
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<(), String> {
    out.extend(u16::try_from(text.len()).map_err(|_| "a name is too long".to_owned())?.to_le_bytes());
    out.extend(text.as_bytes());
    Ok(())
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, left) = self.0.split_at_checked(count).ok_or("it ends too early")?;
        self.0 = left;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.take(2)?;
        let bytes = self.take(usize::from(u16::from_le_bytes([length[0], length[1]])))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| "a name in it is not UTF-8".to_owned())
    }

    fn vector(&mut self, dimension: usize) -> Result<(VectorRecord, u32), String> {
        let before = self.0.len();
        let id = self.text()?;
        let length = self.u32()? as usize;
        let packed = self.take(length)?;
        let metadata = match length {
            0 => Map::new(),
            _ => rmp_serde::from_slice(packed).map_err(|error| format!("metadata in it cannot be read: {error}"))?,
        };
        let (values, _) = self.take(dimension * 4)?.as_chunks::<4>();
        let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let size = u32::try_from(before - self.0.len()).map_err(|_| "a vector in it is too long".to_owned())?;
        Ok((VectorRecord { id, values, metadata }, size))
    }
}
