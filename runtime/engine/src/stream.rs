//! The rules of records: what a record begins, under which identity, and which record a run's end becomes.
//!
//! Pure: bytes come in, verdicts and records go out; nothing here reads a topic, asks a schema registry or writes. No
//! bytes whatever make it panic or work without bound. Used by the actors that own partitions and by the relay.

mod cloud_event;
mod coordinates;
mod decode;
mod letter;
mod reading;
mod result;
mod source;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use coordinates::{Coordinates, Origin, run_id};
pub use decode::{MAX_INPUT_BYTES, MAX_INPUT_NESTING};
pub use letter::{Letter, MAX_LETTER_MESSAGE, letter_headers};
pub use reading::{Decoded, Undecoded, read, undecoded};
pub use result::{ResultRecord, result_record};
pub use source::{Cause, Source};

use crate::expression::wording::shorten;
use crate::id::RunId;
use crate::trace::TraceContext;
use crate::value::Value;

/// Headers by name; names may stand several times, and the last one counts for whoever reads one.
pub type Headers = Vec<(String, Option<Bytes>)>;

/// A record as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incoming {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Place in the partition.
    pub offset: i64,
    /// The record's time in milliseconds since 1970; none where it has none.
    pub timestamp: Option<i64>,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; none marks that what the key names is gone.
    pub value: Option<Bytes>,
    /// Headers.
    pub headers: Headers,
}

/// What a record means.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// It begins a run.
    Start(Box<StartRun>),
    /// It is passed over.
    Skip(Skip),
    /// It becomes a dead letter.
    Dead(DeadReason),
}

/// A run that a record begins; [`StartRun::begin`] makes it.
#[derive(Clone, PartialEq, Debug)]
pub struct StartRun {
    /// Its id: always the same one for this record in this generation.
    pub id: RunId,
    /// Its input, not yet checked against the workflow's schema.
    pub input: Value,
    /// The order that it holds a place in, which is the record's offset; none where it waits for no other run.
    pub order: Option<[u8; 16]>,
    /// Labels.
    pub tags: Vec<String>,
    /// Higher goes first where calls wait for a model.
    pub priority: i8,
    /// The operation that it is part of: the record's, else one that follows from where the record lies.
    pub trace: TraceContext,
    /// What the producer calls the record by, within the stream's generation: its `idempotency-key`, else the source
    /// and id of its event. A record that was produced twice has the same one.
    pub identity: Option<[u8; 16]>,
    /// Where it comes from, for its submission.
    pub source: Arc<Source>,
}

/// Why a record is passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skip {
    /// It has no value: what its key names is gone.
    Tombstone,
    /// The stream's filter is false for it.
    Filtered,
}

/// Where on a record's way something was wrong, by the names of Kafka Connect where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Its key could not be decoded.
    KeyConverter,
    /// Its value could not be decoded.
    ValueConverter,
    /// Its headers could not be read.
    HeaderConverter,
    /// The stream's filter could not be evaluated.
    Filter,
    /// The stream's input could not be evaluated.
    Input,
    /// The stream's order could not be evaluated.
    Ordering,
    /// The input does not fit the workflow.
    Schema,
    /// Reading it ended the process, again and again.
    Crash,
}

impl Stage {
    /// The name in headers and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyConverter => "KEY_CONVERTER",
            Self::ValueConverter => "VALUE_CONVERTER",
            Self::HeaderConverter => "HEADER_CONVERTER",
            Self::Filter => "FILTER",
            Self::Input => "INPUT",
            Self::Ordering => "ORDERING",
            Self::Schema => "SCHEMA",
            Self::Crash => "CRASH",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Longest message of a reason in characters.
const MAX_REASON: usize = 1_000;

/// Why a record becomes a dead letter.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{stage}: {message}")]
pub struct DeadReason {
    /// Where on its way.
    pub stage: Stage,
    /// Stable name of what was wrong, such as `invalid_json`.
    pub class: Cow<'static, str>,
    /// What was wrong, for people; at most 1,000 characters.
    pub message: String,
}

impl DeadReason {
    /// A reason; words beyond the bound are cut off.
    #[must_use]
    pub fn new(stage: Stage, class: impl Into<Cow<'static, str>>, message: &str) -> Self {
        Self { stage, class: class.into(), message: shorten(message, MAX_REASON) }
    }
}
