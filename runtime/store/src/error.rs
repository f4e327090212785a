//! How a store fails, by what the caller can do about it.
//!
//! Used by every implementation of the ports and by everyone who calls them.

use motet_engine::id::{Epoch, RunId, Seq, ShardId};

use crate::port::{Incarnation, PartitionKey};

/// What the caller can do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// Trying the same again later may help.
    Retryable,
    /// Trying the same again cannot help.
    Permanent,
    /// Someone else owns the shard: stop at once.
    Fenced,
    /// The store's queue is full: slow down.
    Busy,
}

/// Why the store did not do what was asked. Unless it says otherwise, nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The shard's epoch is not the writer's any more.
    #[error("shard {shard} is owned under epoch {current}, the write carried epoch {carried}")]
    Fenced {
        /// The shard.
        shard: ShardId,
        /// Epoch that the write carried.
        carried: Epoch,
        /// Epoch of the present owner.
        current: Epoch,
    },
    /// The node that writes was declared dead, or its boot is unknown: it must stop and register again.
    #[error("{0} is fenced: the node must stop its work and register again")]
    IncarnationFenced(Incarnation),
    /// The partition was claimed by another owner, or sent elsewhere: the writer must stop reading it.
    #[error("{key} is owned under epoch {current}, the write carried epoch {carried}")]
    PartitionFenced {
        /// The partition.
        key: Box<PartitionKey>,
        /// Epoch that the write carried.
        carried: Epoch,
        /// Epoch of the present owner; 0 when the partition is not known.
        current: Epoch,
    },
    /// The position of the partition is not the one that the write goes on from: the writer's picture of it is wrong.
    #[error("{key} stands at {}, the write went on from offset {seen}", position(.next))]
    OffsetGap {
        /// The partition.
        key: Box<PartitionKey>,
        /// The position that the write went on from.
        seen: i64,
        /// The position that is durable, when there is one.
        next: Option<i64>,
    },
    /// The event number is taken: the writer's picture of the run is stale and must be loaded again.
    #[error("event {seq} of {run} is already recorded")]
    SeqTaken {
        /// The run.
        run: RunId,
        /// The event number.
        seq: Seq,
    },
    /// The run is unknown.
    #[error("{0} does not exist")]
    UnknownRun(RunId),
    /// The queue of writes is full.
    #[error("the store's write queue is full")]
    Busy,
    /// Another process uses the same files.
    #[error("{path} is in use by another process{holder}; stop it or choose another data folder with --data")]
    InUse {
        /// The data folder or file.
        path: String,
        /// Who holds it, as far as it is known.
        holder: String,
    },
    /// The disk failed or is full, or the database server cannot be reached. A local store refuses further writes until
    /// the process starts again, since what the system says after a failed flush cannot be trusted; a store on a server
    /// recovers by itself. The write may turn out to be there.
    #[error("storage failed: {0}")]
    Storage(String),
    /// What was read is not what was written.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// The database refuses this write for a reason that does not concern others.
    #[error("{0}")]
    Refused(String),
}

fn position(next: &Option<i64>) -> String {
    next.map_or_else(|| "no offset yet".to_owned(), |next| format!("offset {next}"))
}

impl StoreError {
    /// What the caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Fenced { .. } | Self::IncarnationFenced(_) | Self::PartitionFenced { .. } => ErrorClass::Fenced,
            Self::Busy => ErrorClass::Busy,
            Self::Storage(_) | Self::Closed => ErrorClass::Retryable,
            Self::SeqTaken { .. }
            | Self::OffsetGap { .. }
            | Self::UnknownRun(_)
            | Self::InUse { .. }
            | Self::Corrupt(_)
            | Self::Refused(_) => ErrorClass::Permanent,
        }
    }
}
