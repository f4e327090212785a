//! The bounded queues of writes between the callers and the writers.
//!
//! Bounded by number and by bytes. A shard's writes always go through the same writer; the second writer gets its half
//! of the shards only when the first one cannot keep up. Never touches the database. Used by `postgres` to hand writes
//! in, and by its writers to take them out.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use motet_engine::id::{Epoch, RunId, ShardId};
use motet_engine::value::BlobRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::port::{Admission, Admitted, Append, Snapshot, StoreHealth};
use crate::{StoreError, check};

/// Writers at most.
pub(super) const WRITERS: usize = 2;

/// Writes that may wait for one writer.
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
    Close,
}

impl Op {
    /// Whether the write cannot be one of a batch.
    pub(super) fn stands_alone(&self) -> bool {
        matches!(self, Self::Claim { .. } | Self::Close)
    }

    fn shard(&self) -> ShardId {
        match self {
            Self::Admit(admission) => admission.run.shard(),
            Self::Append(append) => append.run.shard(),
            Self::Snapshot { run, .. } | Self::Blob { run, .. } => run.shard(),
            Self::Claim { shard, .. } => *shard,
            Self::Close => ShardId(0),
        }
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::Admit(admission) => admission.entry.payload.len() + check::outbox_bytes(&admission.outbox),
            Self::Append(append) => append.entry.payload.len() + check::outbox_bytes(&append.outbox),
            Self::Snapshot { snapshot, .. } => snapshot.state.len(),
            Self::Blob { data, .. } => data.len(),
            Self::Claim { .. } | Self::Close => 0,
        }
    }
}

/// What became of a write.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Done,
    Admitted(Admitted),
    Claimed(Epoch),
}

/// A write on its way, with the way back to its caller.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) op: Op,
    pub(super) bytes: usize,
    /// Whether it was in flight when a connection was lost: it may have been committed already.
    pub(super) in_doubt: bool,
    reply: oneshot::Sender<Result<Outcome, StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl Write {
    /// Tells the caller; one that went away is not missed.
    pub(super) fn answer(self, outcome: Result<Outcome, StoreError>) {
        let _ = self.reply.send(outcome);
    }
}

/// What callers and the writers both see of each other.
#[derive(Debug, Default)]
pub(super) struct Status {
    fault: Mutex<Option<String>>,
    pub(super) commits: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) events: AtomicU64,
    /// Writers that are in use besides the first.
    pub(super) further: AtomicUsize,
}

impl Status {
    pub(super) fn set_fault(&self, why: &str) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    pub(super) fn clear_fault(&self) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The callers' end of the queues.
#[derive(Debug)]
pub(super) struct Queue {
    writers: Vec<mpsc::Sender<Write>>,
    room: Arc<Semaphore>,
    pub(super) status: Arc<Status>,
}

impl Queue {
    /// A queue for each writer.
    pub(super) fn new(status: Arc<Status>) -> (Self, Vec<mpsc::Receiver<Write>>) {
        let (writers, taken) = (0..WRITERS).map(|_| mpsc::channel(QUEUE_WRITES)).unzip();
        (Self { writers, room: Arc::new(Semaphore::new(QUEUE_KIB)), status }, taken)
    }

    fn writer(&self, op: &Op) -> Result<&mpsc::Sender<Write>, StoreError> {
        let used = 1 + self.status.further.load(Ordering::Relaxed);
        self.writers.get(usize::from(op.shard().0) % used.min(WRITERS)).ok_or(StoreError::Closed)
    }

    /// Hands a write in when there is room at once, and waits for its commit.
    pub(super) async fn write_now(&self, op: Op) -> Result<Outcome, StoreError> {
        let (bytes, weight) = weigh(&op);
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight).map_err(|_| StoreError::Busy)?;
        let (reply, answer) = oneshot::channel();
        let writer = self.writer(&op)?;
        writer.try_send(Write { op, bytes, in_doubt: false, reply, _room: room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })?;
        wait(answer).await
    }

    /// Waits for room, hands a write in, and waits for its commit.
    pub(super) async fn write(&self, op: Op) -> Result<Outcome, StoreError> {
        let writer = self.writer(&op)?;
        Self::write_to(writer, &self.room, op).await
    }

    async fn write_to(writer: &mpsc::Sender<Write>, room: &Arc<Semaphore>, op: Op) -> Result<Outcome, StoreError> {
        let (bytes, weight) = weigh(&op);
        let (reply, answer) = oneshot::channel();
        let enter = async {
            let room = Arc::clone(room).acquire_many_owned(weight).await.map_err(|_| StoreError::Closed)?;
            let write = Write { op, bytes, in_doubt: false, reply, _room: room };
            writer.send(write).await.map_err(|_| StoreError::Closed)
        };
        tokio::time::timeout(QUEUE_WAIT, enter).await.unwrap_or(Err(StoreError::Busy))?;
        wait(answer).await
    }

    /// Tells every writer to finish what waits and to end.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        for writer in &self.writers {
            match Self::write_to(writer, &self.room, Op::Close).await {
                Ok(_) | Err(StoreError::Closed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.writers.iter().any(mpsc::Sender::is_closed)
    }

    pub(super) fn health(&self) -> StoreHealth {
        let queued: usize = self.writers.iter().map(|writer| writer.max_capacity() - writer.capacity()).sum();
        StoreHealth {
            fault: self.status.fault(),
            commits: self.status.commits.load(Ordering::Relaxed),
            entries: self.status.entries.load(Ordering::Relaxed),
            events: self.status.events.load(Ordering::Relaxed),
            queued: queued as u64,
        }
    }
}

/// The writer's answer. There is no timeout here: giving up would not take the write back, and the writer has one.
async fn wait(answer: oneshot::Receiver<Result<Outcome, StoreError>>) -> Result<Outcome, StoreError> {
    answer.await.unwrap_or(Err(StoreError::Closed))
}

fn weigh(op: &Op) -> (usize, u32) {
    let bytes = op.payload_bytes() + WRITE_BYTES;
    (bytes, u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX))
}
