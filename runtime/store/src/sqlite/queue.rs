//! The bounded queue of writes between the callers and the one writer.
//!
//! Bounded by number and by bytes. Never touches the database. Used by `sqlite` to hand writes in, and by its writer
//! to take them out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use motet_engine::id::{Epoch, RunId, ShardId};
use motet_engine::time::Timestamp;
use motet_engine::value::BlobRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::ingest::LetterOp;
use super::lease::LeaseOp;
use super::shard::ShardOp;
use crate::partition_rules::Change;
use crate::port::{
    Admission, Admitted, Append, Ingest, PartitionKey, PartitionRow, PutOutcome, Snapshot, StoreHealth,
    StoredDefinition,
};
use crate::{StoreError, check};

/// Writes that may wait for a commit.
const QUEUE_WRITES: usize = 8_192;

/// Bytes that may wait for a commit, in KiB: 64 MiB.
const QUEUE_KIB: usize = 64 << 10;

/// What a write weighs beside its payload, in bytes.
const WRITE_BYTES: usize = 256;

/// Longest wait for a place in the queue.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// What is to be written.
#[derive(Debug)]
pub(super) enum Op {
    Admit(Box<Admission>),
    Append(Box<Append>),
    Snapshot { run: RunId, epoch: Epoch, snapshot: Snapshot },
    Claim { shard: ShardId, owner: String },
    Blob { run: RunId, blob: BlobRef, data: Bytes },
    Define(Box<StoredDefinition>),
    Retain { ended_before: Timestamp, now: Timestamp, limit: u32 },
    OutboxDone { shard: ShardId, epoch: Epoch, positions: Vec<u64> },
    Ingest(Box<Ingest>),
    Partition { key: PartitionKey, change: Change, now: Timestamp },
    Letter(LetterOp),
    Lease(LeaseOp),
    Shard(ShardOp),
    Close,
}

impl Op {
    /// Whether the write needs a transaction of its own.
    pub(super) fn stands_alone(&self) -> bool {
        matches!(
            self,
            Self::Define(_)
                | Self::Retain { .. }
                | Self::OutboxDone { .. }
                | Self::Letter(_)
                | Self::Lease(_)
                | Self::Shard(_)
                | Self::Close
        )
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::Admit(admission) => admission.entry.payload.len() + check::outbox_bytes(&admission.outbox),
            Self::Append(append) => append.entry.payload.len() + check::outbox_bytes(&append.outbox),
            Self::Ingest(ingest) => check::ingest_bytes(ingest) + ingest.admissions.len() * WRITE_BYTES,
            Self::Snapshot { snapshot, .. } => snapshot.state.len(),
            Self::Blob { data, .. } => data.len(),
            Self::Claim { .. }
            | Self::Define(_)
            | Self::Retain { .. }
            | Self::OutboxDone { .. }
            | Self::Partition { .. }
            | Self::Letter(_)
            | Self::Lease(_)
            | Self::Shard(_)
            | Self::Close => 0,
        }
    }
}

/// What became of a write.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Done,
    Admitted(Admitted),
    Claimed(Epoch),
    /// The term or life that a change of a lease left, if there is one.
    Lease(Option<u64>),
    /// The shards that changed, with their epochs; none when the leader's term is over.
    Shards(Option<Vec<(ShardId, Epoch)>>),
    Put(PutOutcome),
    Forgotten(u64),
    Ingested(Vec<Admitted>),
    /// The row after the change, when there is one.
    Partition(Option<Box<PartitionRow>>),
    /// Whether a dead letter was settled.
    Settled(bool),
}

/// A write in the queue, with the way back to its caller.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) op: Op,
    pub(super) bytes: usize,
    reply: oneshot::Sender<Result<Outcome, StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl Write {
    /// Tells the caller; one that went away is not missed.
    pub(super) fn answer(self, outcome: Result<Outcome, StoreError>) {
        let _ = self.reply.send(outcome);
    }
}

/// What callers and the writer both see of each other.
#[derive(Debug, Default)]
pub(super) struct Status {
    /// Why writes are refused, once they are.
    pub(super) fault: OnceLock<String>,
    pub(super) commits: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) events: AtomicU64,
}

/// The callers' end of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    writes: mpsc::Sender<Write>,
    room: Arc<Semaphore>,
    status: Arc<Status>,
}

impl Queue {
    pub(super) fn new(status: Arc<Status>) -> (Self, mpsc::Receiver<Write>) {
        let (writes, taken) = mpsc::channel(QUEUE_WRITES);
        (Self { writes, room: Arc::new(Semaphore::new(QUEUE_KIB)), status }, taken)
    }

    /// Hands a write in when there is room at once, and waits for its commit.
    pub(super) async fn write_now(&self, op: Op) -> Result<Outcome, StoreError> {
        let (bytes, weight) = self.weigh(&op)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight).map_err(|_| StoreError::Busy)?;
        let (reply, answer) = oneshot::channel();
        self.writes.try_send(Write { op, bytes, reply, _room: room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => self.gone(),
        })?;
        self.wait(answer).await
    }

    /// Waits for room, hands a write in, and waits for its commit.
    pub(super) async fn write(&self, op: Op) -> Result<Outcome, StoreError> {
        let (bytes, weight) = self.weigh(&op)?;
        let (reply, answer) = oneshot::channel();
        let enter = async {
            let room = Arc::clone(&self.room).acquire_many_owned(weight).await.map_err(|_| StoreError::Closed)?;
            self.writes.send(Write { op, bytes, reply, _room: room }).await.map_err(|_| self.gone())
        };
        tokio::time::timeout(QUEUE_WAIT, enter).await.unwrap_or(Err(StoreError::Busy))?;
        self.wait(answer).await
    }

    /// The writer's answer. There is no timeout: giving up would not take the write back.
    async fn wait(&self, answer: oneshot::Receiver<Result<Outcome, StoreError>>) -> Result<Outcome, StoreError> {
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn weigh(&self, op: &Op) -> Result<(usize, u32), StoreError> {
        // A store that cannot write any more can still be closed.
        if let Some(fault) = self.status.fault.get().filter(|_| !matches!(op, Op::Close)) {
            return Err(StoreError::Storage(fault.clone()));
        }
        let bytes = op.payload_bytes() + WRITE_BYTES;
        // One that is larger than the whole room goes alone.
        Ok((bytes, u32::try_from(bytes.div_ceil(1024).min(QUEUE_KIB)).unwrap_or(u32::MAX)))
    }

    fn gone(&self) -> StoreError {
        self.status.fault.get().map_or(StoreError::Closed, |fault| StoreError::Storage(fault.clone()))
    }

    pub(super) fn health(&self) -> StoreHealth {
        StoreHealth {
            fault: self.status.fault.get().cloned(),
            commits: self.status.commits.load(Ordering::Relaxed),
            entries: self.status.entries.load(Ordering::Relaxed),
            events: self.status.events.load(Ordering::Relaxed),
            queued: (self.writes.max_capacity() - self.writes.capacity()) as u64,
        }
    }
}
