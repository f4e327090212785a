//! The two ports of this room: what decodes records, and what holds the schemas that it needs.
//!
//! Plain data and traits, without any implementation. Used by the actors, by the decoder and by registries.

use std::fmt;

use async_trait::async_trait;
use motet_engine::definition::Format;
use motet_engine::stream::{DeadReason, Decoded, Incoming, Undecoded};

/// Decodes what of a record needs a schema.
#[async_trait]
pub trait RecordDecoder: Send + Sync + 'static {
    /// Decodes the key and the value of a record as far as `undecoded` says so. Waits at most as long as the source of
    /// schemas may take.
    ///
    /// # Errors
    /// Whether the record is a dead letter, or nobody can say now.
    async fn decode(&self, undecoded: Undecoded, incoming: &Incoming) -> Result<Decoded, Undecided>;
}

/// Why a record is not decoded.
#[derive(Clone, PartialEq, Debug)]
pub enum Undecided {
    /// It never will be: the record is a dead letter.
    Dead(DeadReason),
    /// It is tried again after a while; the words say what is waited for.
    Later(String),
}

/// How a record names its schema.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SchemaKey {
    /// The number that the registry gave.
    Id(u32),
    /// The identifier that is the same in every registry, in the order in which it is written.
    Guid([u8; 16]),
}

impl fmt::Display for SchemaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Guid(bytes) => {
                for (place, byte) in bytes.iter().enumerate() {
                    let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

/// A schema as it was registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchemaText {
    /// `avro`, `protobuf` or `json-schema`.
    pub format: Format,
    /// JSON, or the text of a `.proto` file.
    pub text: String,
    /// Every schema that it refers to, however indirectly, each name once.
    pub references: Vec<Reference>,
}

impl SchemaText {
    /// Bytes of all texts together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
            + self.references.iter().map(|reference| reference.name.len() + reference.text.len()).sum::<usize>()
    }
}

/// A schema that another one refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// What the other one calls it: a full name in Avro, an import in Protobuf, a URI in JSON Schema.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Why there is no schema. Words are for people, and hold no secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceError {
    /// Nobody can say now: the source is away, or lets nobody in.
    #[error("{0}")]
    Away(String),
    /// The source knows no such schema; somebody may register it.
    #[error("{0}")]
    Unknown(String),
    /// There is one that cannot be used, and never will be.
    #[error("{0}")]
    Unusable(String),
}

/// Holds schemas, which never change.
#[async_trait]
pub trait SchemaSource: Send + Sync + 'static {
    /// Brings a schema and all that it refers to, within a bounded time.
    ///
    /// # Errors
    /// Why there is none.
    async fn schema(&self, key: SchemaKey) -> Result<SchemaText, SourceError>;
}
