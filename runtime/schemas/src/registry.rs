//! A schema registry that speaks Confluent's REST protocol: Confluent's own, Karapace, Redpanda's, Apicurio's.
//!
//! Only reads. Never retries, follows no redirect and asks no proxy; every request and every answer is bounded. What it
//! says names no secret. Used by the decoder through [`SchemaSource`].
//! Source: Confluent's Schema Registry API reference.

mod answer;
mod client;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use motet_engine::definition::Format;

use crate::compiled::MAX_SCHEMA_BYTES;
use crate::port::{Reference, SchemaKey, SchemaSource, SchemaText, SourceError};
use answer::Registered;
use client::Client;

/// The longest time in which a schema and all that it refers to must be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Schemas that one schema may refer to, however indirectly.
const MAX_REFERENCES: usize = 64;

/// Where the registry is, and who asks.
#[derive(Clone)]
pub struct RegistrySettings {
    /// Its URL, `http` or `https`, with a path where the protocol lies below one.
    pub url: String,
    /// Who asks; none where the password alone proves it.
    pub user: Option<String>,
    /// Password of the user, or a bearer token where there is none.
    pub password: Option<String>,
    /// The authority that signed its certificate (PEM); the system's where none is given.
    pub authority: Option<String>,
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySettings").field("url", &self.url).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why a registry cannot be asked with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegistryError(pub(crate) String);

/// A registry.
#[derive(Debug)]
pub struct ConfluentRegistry {
    client: Client,
}

impl ConfluentRegistry {
    /// A registry that nobody has asked yet.
    ///
    /// # Errors
    /// When the URL or the authority cannot be read.
    pub fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        Ok(Self { client: Client::new(settings)? })
    }

    async fn whole(&self, key: SchemaKey) -> Result<SchemaText, SourceError> {
        let id = key.to_string();
        let path = match key {
            SchemaKey::Id(_) => ["schemas", "ids", &id],
            SchemaKey::Guid(_) => ["schemas", "guids", &id],
        };
        let what = format!("schema {id}");
        let found = self.client.get(&what, &path).await?;
        let format = format_of(&found, &what)?;
        let mut schema = SchemaText { format, text: found.schema, references: vec![] };
        let mut open = VecDeque::from(found.references);
        let mut names = HashSet::new();
        while let Some(reference) = open.pop_front() {
            // The same schema is often referred to in several ways.
            if !names.insert(reference.name.clone()) {
                continue;
            }
            let too_much = if names.len() > MAX_REFERENCES {
                Some(format!("to more than {MAX_REFERENCES} schemas"))
            } else if schema.bytes() > MAX_SCHEMA_BYTES {
                Some(format!("to more than {MAX_SCHEMA_BYTES} bytes"))
            } else {
                None
            };
            if let Some(words) = too_much {
                return Err(SourceError::Unusable(format!("{what} refers {words}")));
            }
            let version = reference.version.to_string();
            let words = format!("version {version} of '{}' (referred to by {what})", reference.subject);
            let path = ["subjects", &reference.subject, "versions", &version];
            let referred = self.client.get(&words, &path).await?;
            open.extend(referred.references);
            schema.references.push(Reference { name: reference.name, text: referred.schema });
        }
        Ok(schema)
    }
}

fn format_of(found: &Registered, what: &str) -> Result<Format, SourceError> {
    match found.schema_type.as_deref().unwrap_or("AVRO") {
        "AVRO" => Ok(Format::Avro),
        "PROTOBUF" => Ok(Format::Protobuf),
        "JSON" => Ok(Format::JsonSchema),
        other => {
            let other: String = other.chars().take(40).collect();
            Err(SourceError::Unusable(format!("{what} is of the type '{other}', which is not known here")))
        }
    }
}

#[async_trait]
impl SchemaSource for ConfluentRegistry {
    async fn schema(&self, key: SchemaKey) -> Result<SchemaText, SourceError> {
        let whole = tokio::time::timeout(PATIENCE, self.whole(key)).await;
        whole.unwrap_or_else(|_| {
            Err(SourceError::Away(format!("the schema registry gave no answer about schema {key} within {PATIENCE:?}")))
        })
    }
}
