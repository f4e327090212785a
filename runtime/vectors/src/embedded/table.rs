//! The vectors of one index in memory: per namespace one row-major matrix, ids, metadata, and what each row costs on
//! disk.
//!
//! Never touches a file and never checks limits: what arrives here has been checked and recorded. Used by the embedded
//! index, which guards it with a lock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use motet_engine::definition::Metric;
use motet_engine::value::Map;

use super::operation::Operation;
use crate::limits::{Shape, squared_length};
use crate::port::VectorRecord;

/// Bytes of one frame around its namespace and vectors.
const FRAME_BYTES: u64 = 19;

/// All namespaces of one index.
pub(super) struct Table {
    shape: Shape,
    namespaces: BTreeMap<String, Rows>,
    live_bytes: u64,
}

impl Table {
    /// An empty one.
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, namespaces: BTreeMap::new(), live_bytes: 0 }
    }

    /// Does what was recorded.
    pub(super) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Upsert { namespace, records } => {
                let new_bytes = namespace_bytes(&namespace);
                let rows = self.namespaces.entry(namespace).or_insert_with(|| {
                    self.live_bytes += new_bytes;
                    Rows::new(self.shape)
                });
                for (record, disk_bytes) in records {
                    self.live_bytes += u64::from(disk_bytes);
                    self.live_bytes -= u64::from(rows.put(record, disk_bytes));
                }
            }
            Operation::Delete { namespace, ids } => {
                let Some(rows) = self.namespaces.get_mut(&namespace) else { return };
                for id in ids {
                    self.live_bytes -= u64::from(rows.remove(&id));
                }
                if rows.len() == 0 {
                    self.namespaces.remove(&namespace);
                    self.live_bytes -= namespace_bytes(&namespace);
                }
            }
        }
    }

    /// The rows of a namespace; none where it holds nothing.
    pub(super) fn rows(&self, namespace: &str) -> Option<&Rows> {
        self.namespaces.get(namespace)
    }

    /// All namespaces that hold something, in order of their names.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&str, &Rows)> {
        self.namespaces.iter().map(|(name, rows)| (name.as_str(), rows))
    }

    /// Bytes that all rows take on disk at least.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// What all vectors have in common.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Those of `ids` that are there, each once.
    pub(super) fn known(&self, namespace: &str, ids: &[String]) -> Vec<String> {
        let Some(rows) = self.rows(namespace) else { return Vec::new() };
        let mut seen = HashSet::new();
        ids.iter().filter(|id| rows.positions.contains_key(id.as_str()) && seen.insert(*id)).cloned().collect()
    }
}

/// What a namespace takes on disk beside its vectors. Without it, an index of many small namespaces would look half dead
/// right after its compaction.
fn namespace_bytes(namespace: &str) -> u64 {
    FRAME_BYTES + namespace.len() as u64
}

/// The vectors of one namespace. Position `i` of every list belongs to row `i`.
pub(super) struct Rows {
    dimension: usize,
    positions: HashMap<Arc<str>, usize>,
    ids: Vec<Arc<str>>,
    values: Vec<f32>,
    /// One over each row's length; empty unless the metric is the cosine.
    inverse_lengths: Option<Vec<f32>>,
    metadata: Vec<Map>,
    disk_bytes: Vec<u32>,
}

impl Rows {
    fn new(shape: Shape) -> Self {
        Self {
            dimension: shape.dimension as usize,
            positions: HashMap::new(),
            ids: Vec::new(),
            values: Vec::new(),
            inverse_lengths: (shape.metric == Metric::Cosine).then(Vec::new),
            metadata: Vec::new(),
            disk_bytes: Vec::new(),
        }
    }

    /// Stores a record and returns the disk bytes of the one that it replaces.
    fn put(&mut self, record: VectorRecord, disk_bytes: u32) -> u32 {
        let inverse_length = (1.0 / squared_length(&record.values).sqrt()) as f32;
        if let Some(&row) = self.positions.get(record.id.as_str()) {
            self.values[row * self.dimension..(row + 1) * self.dimension].copy_from_slice(&record.values);
            if let Some(lengths) = &mut self.inverse_lengths {
                lengths[row] = inverse_length;
            }
            self.metadata[row] = record.metadata;
            return std::mem::replace(&mut self.disk_bytes[row], disk_bytes);
        }
        let id: Arc<str> = record.id.into();
        self.positions.insert(Arc::clone(&id), self.ids.len());
        self.ids.push(id);
        self.values.extend_from_slice(&record.values);
        if let Some(lengths) = &mut self.inverse_lengths {
            lengths.push(inverse_length);
        }
        self.metadata.push(record.metadata);
        self.disk_bytes.push(disk_bytes);
        0
    }

    /// Removes a row by moving the last one into its place; returns its disk bytes, 0 where it is not there.
    fn remove(&mut self, id: &str) -> u32 {
        let Some(row) = self.positions.remove(id) else { return 0 };
        let last = self.ids.len() - 1;
        self.ids.swap_remove(row);
        if let Some(moved) = self.ids.get(row) {
            self.positions.insert(Arc::clone(moved), row);
        }
        self.values.copy_within(last * self.dimension.., row * self.dimension);
        self.values.truncate(last * self.dimension);
        if let Some(lengths) = &mut self.inverse_lengths {
            lengths.swap_remove(row);
        }
        self.metadata.swap_remove(row);
        self.disk_bytes.swap_remove(row)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The matrix, row after row.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The vector of a row.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dimension..(row + 1) * self.dimension]
    }

    /// One over the length of each row, where the metric is the cosine.
    pub(super) fn inverse_lengths(&self) -> Option<&[f32]> {
        self.inverse_lengths.as_deref()
    }

    /// The id of a row.
    pub(super) fn id(&self, row: usize) -> &str {
        &self.ids[row]
    }

    /// The metadata of a row.
    pub(super) fn metadata(&self, row: usize) -> &Map {
        &self.metadata[row]
    }

    /// A copy of a row.
    pub(super) fn record(&self, row: usize) -> VectorRecord {
        VectorRecord {
            id: self.id(row).to_owned(),
            values: self.row(row).to_vec(),
            metadata: self.metadata(row).clone(),
        }
    }

    /// Copies of the rows of `ids`, in the order asked for, each once.
    pub(super) fn fetch(&self, ids: &[String]) -> Vec<VectorRecord> {
        let mut seen = HashSet::new();
        ids.iter()
            .filter_map(|id| self.positions.get(id.as_str()).copied())
            .filter(|row| seen.insert(*row))
            .map(|row| self.record(row))
            .collect()
    }
}
