//! Where a run comes from when a record began it: kept with its submission, so that its result can refer to it.
//!
//! Plain data, part of the journal and of snapshots: fields are only ever added, with a default, and none is left out
//! when it is written, since snapshots have no names. Used by submissions, by results and by whoever shows a run.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::Name;

/// The record that began a run, and the stream that read it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source {
    /// The stream.
    pub stream: Name,
    /// The revision of its definition, which says what becomes of the result.
    pub revision: Arc<str>,
    /// How often the stream's records were read anew on purpose.
    pub generation: u32,
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Place in the partition; also the run's place in its order.
    pub offset: i64,
    /// The record's time in milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The order that the run holds a place in.
    #[serde(with = "serde_bytes")]
    pub order: Option<[u8; 16]>,
    /// Headers that go to the result unchanged.
    pub reply: Vec<(Arc<str>, Option<Bytes>)>,
    /// The event that the record carried.
    pub event: Option<Cause>,
}

/// The event that caused a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cause {
    /// Its id.
    pub id: Arc<str>,
    /// Where it happened.
    pub source: Arc<str>,
    /// What happened.
    pub kind: Arc<str>,
    /// What it belongs to, by its `correlationid`.
    pub correlation: Option<Arc<str>>,
}
