//! Decodes keys and values of records by the schemas that they name.
//!
//! Holds no record, and never retries: a source that is away is an answer too, which is remembered for a moment so that
//! not every partition waits for its timeout in turn. Used by the actors that own partitions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::definition::Format;
use motet_engine::stream::{DeadReason, Decoded, Incoming, Stage, Undecoded};
use motet_engine::value::Value;

use crate::cache::{Bounds, Cache, Known};
use crate::compiled::{CompiledSchema, Mistake};
use crate::framing::{self, Part};
use crate::port::{RecordDecoder, SchemaKey, SchemaSource, SchemaText, SourceError, Undecided};

/// Schemas that are kept.
const KEPT: Bounds = Bounds { schemas: 1_000, bytes: 32 << 20 };

/// How long a source that is away is not asked again.
const RESPITE: Duration = Duration::from_millis(500);

/// Decodes records by the schemas of a source.
pub struct RegistryDecoder {
    source: Arc<dyn SchemaSource>,
    cache: Cache,
    away: Mutex<Option<(Instant, String)>>,
}

/// Why a part of a record is not decoded.
enum Failure {
    Mistake(Mistake),
    Away(String),
}

impl From<Mistake> for Failure {
    fn from(mistake: Mistake) -> Self {
        Self::Mistake(mistake)
    }
}

impl RegistryDecoder {
    /// A decoder that knows no schema yet.
    #[must_use]
    pub fn new(source: Arc<dyn SchemaSource>) -> Self {
        Self { source, cache: Cache::new(KEPT), away: Mutex::default() }
    }

    async fn part(&self, format: Format, part: Part, incoming: &Incoming, bytes: &Bytes) -> Result<Value, Failure> {
        let framed = framing::framed(format, part, &incoming.headers, bytes)?;
        let schema = self.schema(framed.schema).await?;
        if schema.format() != format {
            let (found, named) = (schema.format().as_str(), format.as_str());
            let message = format!("schema {} is one of {found}, and the stream reads {named}", framed.schema);
            return Err(Mistake::new("wrong_schema", message).into());
        }
        // Nothing is kept between records, so a panic spoils nothing.
        let decoded = catch_unwind(AssertUnwindSafe(|| schema.decode(&framed.indexes, &framed.body)));
        let decoded = decoded.unwrap_or_else(|_| Err(Mistake::new("panic", "reading it broke the reader")));
        decoded.map_err(|Mistake { class, message }| {
            Mistake::new(class, format!("{message} (schema {})", framed.schema)).into()
        })
    }

    async fn schema(&self, key: SchemaKey) -> Result<Arc<CompiledSchema>, Failure> {
        match self.cache.get(key, async || self.bring(key).await).await.map_err(Failure::Away)? {
            Known::Schema(schema) => Ok(schema),
            Known::Broken(mistake) | Known::Unknown(mistake, _) => Err(mistake.into()),
        }
    }

    async fn bring(&self, key: SchemaKey) -> Result<(Known, usize), String> {
        if let Some((since, words)) = &*self.away.lock().unwrap_or_else(PoisonError::into_inner)
            && since.elapsed() < RESPITE
        {
            return Err(words.clone());
        }
        let found = self.source.schema(key).await;
        metrics::counter!("motet_schema_requests_total", "outcome" => outcome(&found)).increment(1);
        match found {
            Ok(text) => {
                let bytes = text.bytes();
                Ok((compile(key, text).await, bytes))
            }
            Err(SourceError::Unusable(words)) => Ok((Known::Broken(Mistake::new("broken_schema", words)), 0)),
            Err(SourceError::Unknown(words)) => {
                Ok((Known::Unknown(Mistake::new("unknown_schema", words), Instant::now()), 0))
            }
            Err(SourceError::Away(words)) => {
                tracing::debug!(schema = %key, reason = words, "a schema cannot be had now");
                *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), words.clone()));
                Err(words)
            }
        }
    }
}

/// Understands a schema beside the threads that answer others: a large one takes a while.
async fn compile(key: SchemaKey, text: SchemaText) -> Known {
    let compiled = tokio::task::spawn_blocking(move || CompiledSchema::compile(&text)).await;
    // A panic within is one of a parser that a schema has broken.
    let compiled = compiled.unwrap_or_else(|_| Err(Mistake::new("broken_schema", "it broke the parser")));
    match compiled {
        Ok(schema) => Known::Schema(Arc::new(schema)),
        Err(mistake) => {
            let message = format!("schema {key} cannot be used: {}", mistake.message);
            Known::Broken(Mistake::new(mistake.class, message))
        }
    }
}

fn outcome(found: &Result<SchemaText, SourceError>) -> &'static str {
    match found {
        Ok(_) => "found",
        Err(SourceError::Away(_)) => "away",
        Err(SourceError::Unknown(_)) => "unknown",
        Err(SourceError::Unusable(_)) => "unusable",
    }
}

#[async_trait]
impl RecordDecoder for RegistryDecoder {
    async fn decode(&self, undecoded: Undecoded, incoming: &Incoming) -> Result<Decoded, Undecided> {
        let undecided = |failure: Failure, stage: Stage| match failure {
            Failure::Mistake(mistake) => Undecided::Dead(DeadReason::new(stage, mistake.class, &mistake.message)),
            Failure::Away(words) => Undecided::Later(words),
        };
        let mut decoded = Decoded::default();
        if let (Some(format), Some(bytes)) = (undecoded.key, &incoming.key) {
            let key = self.part(format, Part::Key, incoming, bytes).await;
            decoded.key = Some(key.map_err(|failure| undecided(failure, Stage::KeyConverter))?);
        }
        if let (Some(format), Some(bytes)) = (undecoded.value, &incoming.value) {
            let value = self.part(format, Part::Value, incoming, bytes).await;
            decoded.value = Some(value.map_err(|failure| undecided(failure, Stage::ValueConverter))?);
        }
        Ok(decoded)
    }
}
