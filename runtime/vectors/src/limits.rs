//! What every index refuses: the limits of the Pinecone protocol, checked before anything is written or searched.
//!
//! Never looks at what an index holds. Used by the embedded index and by adapters of remote services, so that a
//! definition moves between them without surprises.

use std::io;

use motet_engine::definition::Metric;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::value::{Map, Value};

use crate::port::{VectorQuery, VectorRecord};

/// Longest id in bytes.
pub const MAX_ID_BYTES: usize = 512;
/// Longest namespace in bytes.
pub const MAX_NAMESPACE_BYTES: usize = 512;
/// Largest metadata of one vector in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 40 * 1024;
/// Most vectors of one upsert, and most ids of one fetch or delete.
pub const MAX_BATCH: usize = 1000;
/// Most matches of one query.
pub const MAX_TOP_K: u32 = 10_000;
/// Longest vectors.
pub const MAX_DIMENSION: u32 = 20_000;

/// Sums of squares up to here keep every score finite: a product of two vectors is at most the product of their
/// lengths, and a squared distance at most twice the sum of their squares.
const MAX_SQUARED_LENGTH: f64 = f32::MAX as f64 / 4.0;

/// Below this length the products that the cosine needs lose their digits.
const MIN_COSINE_LENGTH: f64 = 1e-15;

/// What all vectors of an index have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Length of every vector.
    pub dimension: u32,
    /// How near two vectors are.
    pub metric: Metric,
}

impl Shape {
    /// Refuses dimensions that no index may have.
    pub fn check(self) -> Result<(), Failure> {
        if self.dimension == 0 || self.dimension > MAX_DIMENSION {
            return Err(invalid(format!("the dimension is {}; it must be 1 to {MAX_DIMENSION}", self.dimension)));
        }
        Ok(())
    }

    /// Refuses an upsert that breaks a limit; the message names the vector.
    pub fn check_records(self, namespace: &str, records: &[VectorRecord]) -> Result<(), Failure> {
        check_namespace(namespace)?;
        check_count("vectors", records.len())?;
        for (position, record) in records.iter().enumerate() {
            check_id(&record.id)
                .and_then(|()| self.check_values(&record.values))
                .and_then(|()| check_metadata(&record.metadata))
                .map_err(|why| invalid(format!("vector {position} ({}): {why}", shown(&record.id))))?;
        }
        Ok(())
    }

    /// Refuses a query that breaks a limit.
    pub fn check_query(self, query: &VectorQuery) -> Result<(), Failure> {
        check_namespace(&query.namespace)?;
        if query.top_k == 0 || query.top_k > MAX_TOP_K {
            return Err(invalid(format!("top_k is {}; it must be 1 to {MAX_TOP_K}", query.top_k)));
        }
        self.check_values(&query.values).map_err(|why| invalid(format!("the query: {why}")))
    }

    fn check_values(self, values: &[f32]) -> Result<(), String> {
        if values.len() != self.dimension as usize {
            return Err(format!("it has {} values, but the index has dimension {}", values.len(), self.dimension));
        }
        if let Some(position) = values.iter().position(|value| !value.is_finite()) {
            return Err(format!("value {position} is {}; values must be finite numbers", values[position]));
        }
        let squared = squared_length(values);
        if squared > MAX_SQUARED_LENGTH {
            return Err(format!("its length {:.1e} is too large for scores to stay finite", squared.sqrt()));
        }
        if self.metric == Metric::Cosine && squared.sqrt() < MIN_COSINE_LENGTH {
            return Err("all values are zero or nearly so: such a vector has no direction, and the index \
                        compares directions (metric cosine)"
                .to_owned());
        }
        Ok(())
    }
}

/// Refuses ids of a fetch or delete that break a limit.
pub fn check_ids(namespace: &str, ids: &[String]) -> Result<(), Failure> {
    check_namespace(namespace)?;
    check_count("ids", ids.len())?;
    ids.iter().try_for_each(|id| check_id(id).map_err(|why| invalid(format!("id {}: {why}", shown(id)))))
}

/// The sum of the squares of all values.
pub(crate) fn squared_length(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum()
}

fn check_count(what: &str, count: usize) -> Result<(), Failure> {
    if count > MAX_BATCH {
        return Err(invalid(format!("{count} {what} in one call; at most {MAX_BATCH} are allowed, so split the call")));
    }
    Ok(())
}

fn check_namespace(namespace: &str) -> Result<(), Failure> {
    if namespace.len() > MAX_NAMESPACE_BYTES {
        let len = namespace.len();
        return Err(invalid(format!("the namespace has {len} bytes; at most {MAX_NAMESPACE_BYTES} are allowed")));
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("the id is empty".to_owned()),
        1..=MAX_ID_BYTES => Ok(()),
        len => Err(format!("the id has {len} bytes; at most {MAX_ID_BYTES} are allowed")),
    }
}

fn check_metadata(metadata: &Map) -> Result<(), String> {
    for (key, value) in metadata {
        let fine = match value {
            Value::String(_) | Value::Bool(_) | Value::Int(_) => true,
            Value::Float(number) => number.is_finite(),
            Value::List(items) => items.iter().all(|item| matches!(item, Value::String(_))),
            Value::Null | Value::Map(_) | Value::Tensor(_) | Value::Blob(_) => false,
        };
        if !fine {
            let kind = match value {
                Value::Float(_) => "a number that is not finite",
                Value::List(_) => "a list of other things than strings",
                other => other.kind(),
            };
            return Err(format!(
                "metadata {} is {kind}; allowed are strings, numbers, booleans and lists of strings",
                shown(key)
            ));
        }
    }
    let mut counter = ByteCounter(0);
    let counted = serde_json::to_writer(&mut counter, metadata);
    if counted.is_err() || counter.0 > MAX_METADATA_BYTES {
        return Err(format!("the metadata has {} bytes; at most {MAX_METADATA_BYTES} are allowed", counter.0));
    }
    Ok(())
}

/// A name as it stands in messages: long ones are cut.
fn shown(name: &str) -> String {
    match name.char_indices().nth(40) {
        Some((end, _)) => format!("'{}...'", &name[..end]),
        None => format!("'{name}'"),
    }
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureClass::Invalid, message)
}

/// Counts what is written to it.
struct ByteCounter(usize);

impl io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
