//! Records that come in: who reads which partition, how far it was read, and what could not become a run.
//!
//! The row of a partition is the truth about its position; what a broker remembers of it is for displays. Every write
//! carries the epoch of the claim under which it is done. Never talks to a broker. Implemented by every store; used by
//! the actors of partitions, and by whoever steers them.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::{Epoch, Name, Namespace};
use motet_engine::time::Timestamp;

use super::{Admission, Admitted};
use crate::{StoreError, check};

/// A partition of a topic as one stream reads it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionKey {
    /// Tenant of the stream.
    pub namespace: Namespace,
    /// The stream.
    pub stream: Name,
    /// The topic, 1 to 249 bytes.
    pub topic: String,
    /// Number of the partition in its topic, from 0.
    pub partition: i32,
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, stream, topic, partition } = self;
        write!(f, "partition {partition} of the topic '{topic}' (stream '{stream}' in '{namespace}')")
    }
}

/// What is remembered of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionRow {
    /// Which one.
    pub key: PartitionKey,
    /// Number of the replay, from 0: part of the ids of its runs.
    pub generation: u32,
    /// When the generation began.
    pub since: Timestamp,
    /// Number of the last claim or seek; writes under any other are refused.
    pub epoch: Epoch,
    /// Who claimed it, as it called itself; empty when nobody has it.
    pub owner: String,
    /// The first offset that is not durable here; none before the position was ever known.
    pub next: Option<i64>,
    /// Cluster and topic as the broker identifies them; empty before the first begin.
    pub origin: String,
    /// Claims since the last progress.
    pub barren: u32,
    /// Whether an operator stopped it.
    pub paused: bool,
    /// Why it cannot be read, with advice.
    pub trouble: Option<String>,
    /// When the row last changed.
    pub changed_at: Timestamp,
}

/// What an operator wants of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Steer {
    /// Stops it or lets it go on. Its owner keeps it.
    Pause(bool),
    /// Goes to an offset. Raises the epoch, so that its owner is fenced and nobody has it; takes trouble and barren
    /// claims away, which belong to the position that is left, and the origin: the offset is one of what is there now.
    Seek {
        /// The offset that is read next, from 0.
        offset: i64,
        /// Whether to begin a new generation, so that records that became runs become new ones; otherwise only what is
        /// missing becomes a run.
        again: bool,
    },
    /// Takes trouble and barren claims away: it is tried again where it stood.
    Clear,
}

/// What became of the records between two offsets of a partition: all of it is kept, or nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ingest {
    /// The partition.
    pub key: PartitionKey,
    /// The epoch of the writer's claim.
    pub epoch: Epoch,
    /// The position that the writer goes on from, at least 0.
    pub seen: i64,
    /// The position after it, beyond `seen`: past gaps and records that are skipped too.
    pub next: i64,
    /// When the records came in.
    pub at: Timestamp,
    /// Runs that begin, without idempotency keys.
    pub admissions: Vec<Admission>,
    /// Records that could not become runs. One that is there already stays as it is.
    pub dead: Vec<DeadLetter>,
}

/// What became of a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum DeadState {
    /// Nobody has dealt with it.
    Open = 0,
    /// It was tried again.
    Redriven = 1,
    /// It was given up.
    Discarded = 2,
}

impl DeadState {
    /// Every state with the name that users see.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Open, "open"), (Self::Redriven, "redriven"), (Self::Discarded, "discarded")];
}

/// A record that could not become a run, byte for byte, and why. At most 128 MiB; the headers, 15 MiB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// Where it came from.
    pub key: PartitionKey,
    /// The generation that read it.
    pub generation: u32,
    /// Its offset.
    pub offset: i64,
    /// When it was read.
    pub at: Timestamp,
    /// The time that the record carries, in milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// At which stage it failed.
    pub stage: String,
    /// Which kind of failure it was.
    pub class: String,
    /// The failure in words.
    pub message: String,
    /// The record's key.
    pub record_key: Option<Bytes>,
    /// The record's value.
    pub value: Option<Bytes>,
    /// The record's headers in order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// What became of it.
    pub state: DeadState,
    /// Whether it is in the dead-letter topic, or need not be there.
    pub sent: bool,
}

impl DeadLetter {
    /// Its place in lists.
    #[must_use]
    pub fn place(&self) -> DeadPlace {
        DeadPlace { at: self.at, key: self.key.clone(), generation: self.generation, offset: self.offset }
    }

    /// What every store refuses, told beforehand.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when no store could keep it.
    pub fn check(&self) -> Result<(), StoreError> {
        check::dead(self)
    }
}

impl Admission {
    /// What every store refuses, told beforehand, so that one record does not take its neighbours along.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when no store could keep it.
    pub fn check(&self) -> Result<(), StoreError> {
        check::admission(self)
    }
}

/// The place of a dead letter in lists: by time, then by where it came from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeadPlace {
    /// When it was read.
    pub at: Timestamp,
    /// Where it came from.
    pub key: PartitionKey,
    /// The generation that read it.
    pub generation: u32,
    /// Its offset.
    pub offset: i64,
}

/// Which dead letters to list, newest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadQuery {
    /// Tenant.
    pub namespace: Namespace,
    /// Only those of this stream.
    pub stream: Option<Name>,
    /// Only those of partitions with this number.
    pub partition: Option<i32>,
    /// Only those in this state.
    pub state: Option<DeadState>,
    /// Only those behind this one: the cursor of the page before.
    pub after: Option<DeadPlace>,
    /// At most this many, 1 to 1,000.
    pub limit: u32,
    /// Whether to read keys, values and headers too; they are left out otherwise.
    pub with_bytes: bool,
}

impl DeadQuery {
    /// The newest dead letters of a namespace, without their bytes.
    #[must_use]
    pub fn newest(namespace: Namespace, limit: u32) -> Self {
        Self { namespace, stream: None, partition: None, state: None, after: None, limit, with_bytes: false }
    }
}

/// Partitions of streams, by epoch, and the records that could not become runs.
#[async_trait]
pub trait IngestStore: Send + Sync + 'static {
    /// Takes a partition over, whoever has it: raises its epoch by one and counts a barren claim. The row is made when
    /// it is not there. Waits for an ingest that is being committed, and then sees what it left.
    async fn claim_partition(
        &self,
        key: &PartitionKey,
        owner: &str,
        now: Timestamp,
    ) -> Result<PartitionRow, StoreError>;

    /// Makes a position durable from which nothing was read yet, and where it is one: before the first record of a
    /// partition, and after its origin was taken away.
    ///
    /// # Errors
    /// [`StoreError::PartitionFenced`] when the epoch is not the partition's.
    async fn begin_partition(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        origin: &str,
        next: i64,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Makes durable what became of some records, all of it or nothing, and answers in the order of the admissions:
    /// [`Admitted::New`], or [`Admitted::Replayed`] with the same id when the run was there already; nothing at all is
    /// written for such a run. It is progress: no claim is barren any more.
    ///
    /// # Errors
    /// [`StoreError::PartitionFenced`] when the epoch is not the partition's, and [`StoreError::OffsetGap`] when its
    /// position is not `seen`: neither may be tried again. [`StoreError::Refused`] when one of the rows cannot be kept.
    /// After [`StoreError::Storage`] nobody knows whether it was done, since the answer of a commit may be lost: read
    /// the row. With the own epoch and `next` as its position, it was done; with `seen`, it was not and may be tried
    /// again, which does no harm when it is being committed after all.
    async fn ingest(&self, ingest: Ingest) -> Result<Vec<Admitted>, StoreError>;

    /// Gives a partition up, and takes the barren claim back. The epoch stays. Doing so again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::PartitionFenced`] when the epoch is not the partition's.
    async fn release_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError>;

    /// Takes all barren claims back: this one has nothing in hand, so that the end of its owner says nothing of the
    /// records that come next.
    ///
    /// # Errors
    /// [`StoreError::PartitionFenced`] when the epoch is not the partition's.
    async fn forgive_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError>;

    /// Notes why a partition cannot be read, or that it can.
    ///
    /// # Errors
    /// [`StoreError::PartitionFenced`] when the epoch is not the partition's.
    async fn trouble_partition(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        trouble: Option<String>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Does what an operator wants, whoever has the partition; the row afterwards. None when it is not known.
    async fn steer_partition(
        &self,
        key: &PartitionKey,
        steer: Steer,
        now: Timestamp,
    ) -> Result<Option<PartitionRow>, StoreError>;

    /// The rows of partitions by their keys: of one stream or all, of one namespace or all.
    async fn partitions(
        &self,
        namespace: Option<&Namespace>,
        stream: Option<&Name>,
    ) -> Result<Vec<PartitionRow>, StoreError>;

    /// The row of a partition.
    async fn partition(&self, key: &PartitionKey) -> Result<Option<PartitionRow>, StoreError>;

    /// Lists dead letters, newest first.
    async fn dead_letters(&self, query: &DeadQuery) -> Result<Vec<DeadLetter>, StoreError>;

    /// One dead letter with its bytes.
    async fn dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
    ) -> Result<Option<DeadLetter>, StoreError>;

    /// Settles an open dead letter, or opens a settled one again. False, and nothing is changed, when it is not there
    /// or was settled before: of two who settle it one is told so.
    async fn settle_dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
        state: DeadState,
    ) -> Result<bool, StoreError>;

    /// Dead letters of a partition that must be sent to the dead-letter topic, oldest offset first, with their bytes;
    /// at most `limit`, 1 to 1,000.
    async fn unsent_dead_letters(&self, key: &PartitionKey, limit: u32) -> Result<Vec<DeadLetter>, StoreError>;

    /// Marks dead letters, named by generation and offset, as sent.
    ///
    /// # Errors
    /// [`StoreError::PartitionFenced`] when the epoch is not the partition's.
    async fn dead_letters_sent(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        offsets: &[(u32, i64)],
    ) -> Result<(), StoreError>;
}

/// The place of a run in an order that its neighbours of the same line keep too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Line {
    /// Which line.
    pub line: [u8; 16],
    /// The place in it: smaller ones go first.
    pub place: i64,
}
