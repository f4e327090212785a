//! Definitions and large values: what is kept beside runs.
//!
//! Knows nothing of runs but that bytes belong to one. Implemented by every store; used by the catalog and by drivers.

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::{Name, Namespace, RunId};
use motet_engine::time::Timestamp;
use motet_engine::value::BlobRef;

use crate::StoreError;

/// Which kind of definition a stored document is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum DefinitionKind {
    /// A workflow.
    Workflow = 0,
    /// A model.
    Model = 1,
    /// A vector index.
    Index = 2,
    /// A schedule; its version counts how often it was changed.
    Schedule = 3,
    /// A stream; its version counts how often it was changed.
    Stream = 4,
}

/// A stored definition.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredDefinition {
    /// Kind of the definition.
    pub kind: DefinitionKind,
    /// Tenant.
    pub namespace: Namespace,
    /// Name.
    pub name: Name,
    /// Version.
    pub version: String,
    /// The document.
    pub document: serde_json::Value,
    /// When this version was first put.
    pub created_at: Timestamp,
}

/// What became of a definition that was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// This version is new.
    Created,
    /// This version is there with equal content.
    Unchanged,
    /// This version is there with other content; nothing was changed.
    Conflict,
}

/// Definitions: immutable per version, the newest put is the current one.
#[async_trait]
pub trait DefinitionStore: Send + Sync + 'static {
    /// Stores a version unless it is there.
    async fn put_definition(&self, definition: StoredDefinition) -> Result<PutOutcome, StoreError>;

    /// Reads one version, or the newest when none is named.
    async fn definition(
        &self,
        kind: DefinitionKind,
        namespace: &Namespace,
        name: &Name,
        version: Option<&str>,
    ) -> Result<Option<StoredDefinition>, StoreError>;

    /// The newest version of every definition of a kind, by name; of all namespaces when none is given.
    async fn definitions(
        &self,
        kind: DefinitionKind,
        namespace: Option<&Namespace>,
    ) -> Result<Vec<StoredDefinition>, StoreError>;
}

/// Large values by the digest of their bytes. Putting the same bytes twice keeps them once.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Makes bytes durable under their SHA-256, as used by `run`; they are forgotten with the last run that uses them.
    async fn put_blob(&self, run: RunId, data: Bytes) -> Result<BlobRef, StoreError>;

    /// Reads bytes back; checks their digest.
    async fn blob(&self, blob: BlobRef) -> Result<Option<Bytes>, StoreError>;
}
