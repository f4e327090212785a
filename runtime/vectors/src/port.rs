//! The seam behind which vectors are kept and found: shared by the embedded index and by remote services.
//!
//! Never embeds text and never batches calls of others. Used by the vector actor.

use async_trait::async_trait;
use motet_engine::definition::{IndexDefinition, Metric};
use motet_engine::failure::Failure;
use motet_engine::value::Map;

use crate::filter::Filter;

/// A vector with its id and metadata.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct VectorRecord {
    /// Identity inside its namespace, 1 to 512 bytes.
    pub id: String,
    /// The vector; as long as the index says.
    pub values: Vec<f32>,
    /// Strings, numbers, booleans and lists of strings by name.
    pub metadata: Map,
}

/// What to find.
#[derive(Clone, Debug)]
pub struct VectorQuery {
    /// Part of the index to search; the empty string is the default one.
    pub namespace: String,
    /// The vector to be near to.
    pub values: Vec<f32>,
    /// How many matches at most, 1 to 10,000.
    pub top_k: u32,
    /// Only vectors whose metadata fits.
    pub filter: Option<Filter>,
    /// Whether matches carry their vectors.
    pub include_values: bool,
    /// Whether matches carry their metadata.
    pub include_metadata: bool,
}

/// A vector that was found.
#[derive(Clone, PartialEq, Debug)]
pub struct VectorMatch {
    /// Identity.
    pub id: String,
    /// How near: by the index's metric.
    pub score: f32,
    /// The vector, when asked for.
    pub values: Option<Vec<f32>>,
    /// The metadata, when asked for.
    pub metadata: Option<Map>,
}

/// What an index holds.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct IndexStats {
    /// Length of every vector.
    pub dimension: u32,
    /// How near two vectors are.
    pub metric: Metric,
    /// Vectors by namespace.
    pub namespaces: Vec<(String, u64)>,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// One opened index.
#[async_trait]
pub trait VectorIndex: Send + Sync + 'static {
    /// Stores vectors; one of the same id is replaced. Durable when it returns. One batch is applied whole or not.
    async fn upsert(&self, namespace: &str, records: Vec<VectorRecord>) -> Result<(), Failure>;

    /// Finds the nearest vectors, nearest first; equal scores in order of their ids.
    async fn query(&self, query: VectorQuery) -> Result<Vec<VectorMatch>, Failure>;

    /// Reads vectors by id; ids that are not there are left out.
    async fn fetch(&self, namespace: &str, ids: &[String]) -> Result<Vec<VectorRecord>, Failure>;

    /// Removes vectors by id; ids that are not there are no error. Durable when it returns.
    async fn delete(&self, namespace: &str, ids: &[String]) -> Result<(), Failure>;

    /// What the index holds.
    async fn stats(&self) -> Result<IndexStats, Failure>;

    /// Closes files; later calls fail as unavailable.
    async fn close(&self);
}

/// Opens indexes from definitions.
#[async_trait]
pub trait VectorBackend: Send + Sync + 'static {
    /// Name under `backend:` of a definition.
    fn name(&self) -> &'static str;

    /// Opens an index, making it when it is not there. Opening one with another dimension or metric is an error.
    /// `key` names it uniquely among all namespaces and is safe as a folder name.
    async fn open(&self, key: &str, definition: &IndexDefinition) -> Result<Box<dyn VectorIndex>, Failure>;
}
