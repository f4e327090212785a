//! The traits behind which state is remembered, and the records that cross them.
//!
//! Entries are bytes here: what they mean is the codec's and the engine's affair. Every write of a run carries its
//! shard and epoch and is conditional on them. Implemented by `memory`, `sqlite` and `postgres`; used by the actors.

mod ingest;
mod keeping;
mod lease;
mod outbox;
mod shard;
mod volatile;

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::{Epoch, Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;

use crate::StoreError;
pub use ingest::{
    DeadLetter, DeadPlace, DeadQuery, DeadState, Ingest, IngestStore, Line, PartitionKey, PartitionRow, Steer,
};
pub use keeping::{BlobStore, DefinitionKind, DefinitionStore, PutOutcome, StoredDefinition};
pub use lease::{Incarnation, Leader, LeaseStore, LiveNode, Term};
pub use outbox::{OutboxRecord, OutboxRow, OutboxStore};
pub use shard::{Assignment, MapVersion, ShardOwner, ShardRow, ShardStore};
pub use volatile::{
    Cache, CacheKey, Claim, Claimed, HINTS_WAITING, Hint, HintReceiver, Hints, Holding, Lease, MAX_HINT_BYTES,
    Volatile, VolatileError,
};

/// State of a run as its head row shows it, for lists and recovery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum HeadState {
    /// Admitted, nothing begun.
    Pending = 0,
    /// Calls are owed.
    Running = 1,
    /// Only a later time or a signal is owed; holds no actor.
    Waiting = 2,
    /// Stopped by an operator.
    Paused = 3,
    /// Ended with an output.
    Succeeded = 4,
    /// Ended with a failure.
    Failed = 5,
    /// Ended by request.
    Cancelled = 6,
    /// Ended by its own timeout.
    TimedOut = 7,
}

impl HeadState {
    /// Every state with the name that users see.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Pending, "pending"),
        (Self::Running, "running"),
        (Self::Waiting, "waiting"),
        (Self::Paused, "paused"),
        (Self::Succeeded, "succeeded"),
        (Self::Failed, "failed"),
        (Self::Cancelled, "cancelled"),
        (Self::TimedOut, "timed_out"),
    ];

    /// Whether nothing can happen to the run any more.
    #[must_use]
    pub fn is_end(self) -> bool {
        self >= Self::Succeeded
    }
}

/// Events that one decision recorded together: one row of the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Number of the first event.
    pub seq: Seq,
    /// How many events the payload holds, at least 1.
    pub count: u32,
    /// When they were recorded.
    pub at: Timestamp,
    /// The encoded events.
    pub payload: Bytes,
}

/// What changes in a run's head row together with an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadChange {
    /// The new state; an end state also stamps the time of finishing with the entry's time.
    pub state: HeadState,
    /// When the run wants to be woken although nothing else happens.
    pub wake_at: Option<Timestamp>,
    /// Whether the run leaves its line, and for good. One that ends as succeeded or cancelled always does; one that
    /// failed or timed out stays until it is told to leave.
    pub leaves_line: bool,
}

/// The key under which a client may repeat a submission, and what it was for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyKey {
    /// The client's key, 1 to 255 characters.
    pub key: String,
    /// Digest of method, path and body.
    pub fingerprint: [u8; 32],
    /// When the key may be forgotten.
    pub expires_at: Timestamp,
}

/// A new run. Inserting is guarded by the idempotency key and the run id, not by an epoch, so that any node admits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admission {
    /// Identity of the run; carries its shard.
    pub run: RunId,
    /// Tenant.
    pub namespace: Namespace,
    /// Workflow by name and version.
    pub workflow: Name,
    /// Version that the run is pinned to.
    pub version: String,
    /// Labels for finding the run again.
    pub tags: Vec<String>,
    /// The first entry; its seq is 1.
    pub entry: Entry,
    /// The head as it is after the first entry.
    pub head: HeadChange,
    /// The client's key for repeating safely.
    pub idempotency: Option<IdempotencyKey>,
    /// Records that leave the system because of the first entry; they are kept exactly when the run is new. Their
    /// positions are given out without comparing an epoch: any node may admit.
    pub outbox: Vec<OutboxRow>,
    /// The run's place in an order, when it has one.
    pub line: Option<Line>,
}

/// What became of an admission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// The run is durable.
    New,
    /// The key was used before for the same request: this run is meant.
    Replayed(RunId),
    /// The key was used before for another request, which started this run.
    KeyReused(RunId),
}

/// Later events of a run. Refused when the epoch is not the shard's, or when the seq is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    /// The run; its id names the shard.
    pub run: RunId,
    /// Epoch under which the writer owns the run's shard.
    pub epoch: Epoch,
    /// The boot of the node that writes, where nodes are fenced as a whole; a fenced one is refused like an old epoch.
    pub incarnation: Option<Incarnation>,
    /// The events.
    pub entry: Entry,
    /// The head's change, when there is one.
    pub head: Option<HeadChange>,
    /// Records that leave the system because of the events; they are kept exactly when the events are.
    pub outbox: Vec<OutboxRow>,
}

/// A run's state at some event, so that recovery reads the journal from there. Disposable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The last event that the state contains.
    pub seq: Seq,
    /// Schema version of the bytes.
    pub schema: u32,
    /// The encoded state.
    pub state: Bytes,
}

/// The head row of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunHead {
    /// Identity.
    pub run: RunId,
    /// Tenant.
    pub namespace: Namespace,
    /// Workflow by name.
    pub workflow: Name,
    /// Version that the run is pinned to.
    pub version: String,
    /// Labels.
    pub tags: Vec<String>,
    /// State.
    pub state: HeadState,
    /// When it was admitted.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it wants to be woken.
    pub wake_at: Option<Timestamp>,
    /// Its place in an order, as long as it holds one.
    pub line: Option<Line>,
}

/// Everything needed to bring a run back: head, newest readable snapshot, entries after it in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRun {
    /// The head row.
    pub head: RunHead,
    /// The newest snapshot.
    pub snapshot: Option<Snapshot>,
    /// The entries whose events the snapshot does not contain; all of them without one.
    pub entries: Vec<Entry>,
}

/// Which runs to list, newest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunQuery {
    /// Tenant.
    pub namespace: Namespace,
    /// Only runs of this workflow.
    pub workflow: Option<Name>,
    /// Only runs in one of these states; all when empty.
    pub states: Vec<HeadState>,
    /// Only runs with this label.
    pub tag: Option<String>,
    /// Only runs created at or after this time.
    pub created_from: Option<Timestamp>,
    /// Only runs created before this time.
    pub created_before: Option<Timestamp>,
    /// Only runs that ended and still hold a place in a line.
    pub holding: bool,
    /// Only runs older than this one: the cursor of the page before.
    pub before: Option<RunId>,
    /// At most this many, 1 to 1,000.
    pub limit: u32,
}

impl RunQuery {
    /// The newest runs of a namespace, whatever they are.
    #[must_use]
    pub fn newest(namespace: Namespace, limit: u32) -> Self {
        Self {
            namespace,
            workflow: None,
            states: vec![],
            tag: None,
            created_from: None,
            created_before: None,
            holding: false,
            before: None,
            limit,
        }
    }
}

/// Journal and heads of runs.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Makes a new run durable. Returns only after the commit.
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError>;

    /// Makes later events durable. Returns only after the commit.
    async fn append(&self, append: Append) -> Result<(), StoreError>;

    /// Keeps a snapshot when it is newer than the one there.
    async fn save_snapshot(&self, run: RunId, epoch: Epoch, snapshot: Snapshot) -> Result<(), StoreError>;

    /// Reads a run back; with `from_start` the snapshot is left out and all entries are read.
    async fn load(&self, run: RunId, from_start: bool) -> Result<Option<StoredRun>, StoreError>;

    /// Reads a head row.
    async fn head(&self, run: RunId) -> Result<Option<RunHead>, StoreError>;

    /// Reads entries whose last event is after `after`, in order, at most `limit` of them.
    async fn entries(&self, run: RunId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError>;

    /// Lists heads, newest first.
    async fn list(&self, query: &RunQuery) -> Result<Vec<RunHead>, StoreError>;

    /// Runs of a shard that have not ended and are not waiting or paused, oldest first, after `after`.
    async fn unfinished(&self, shard: ShardId, after: Option<RunId>, limit: u32) -> Result<Vec<RunId>, StoreError>;

    /// Runs of a shard that hold a place in a line, whatever their state, oldest first, after `after`.
    async fn lines(&self, shard: ShardId, after: Option<RunId>, limit: u32) -> Result<Vec<RunHead>, StoreError>;

    /// The run with the smallest place of those of a shard that hold one in a line, whatever its state.
    async fn line_head(&self, shard: ShardId, line: [u8; 16]) -> Result<Option<RunHead>, StoreError>;

    /// Number of runs by state, over all namespaces.
    async fn counts(&self) -> Result<Vec<(HeadState, u64)>, StoreError>;

    /// Forgets runs that ended before `ended_before` with all that belongs to them, unless they hold a place in a line;
    /// idempotency keys that expired before `now`; and dead letters that are settled and were read before
    /// `ended_before`, a bounded number of them. At most `limit` runs. Returns how many runs went.
    async fn retain(&self, ended_before: Timestamp, now: Timestamp, limit: u32) -> Result<u64, StoreError>;
}

/// Wake-ups that were recorded with heads.
#[async_trait]
pub trait TimerStore: Send + Sync + 'static {
    /// Runs of a shard whose `wake_at` is at or before `now`, earliest first. A run stays due until an append
    /// changes its head.
    async fn due(&self, shard: ShardId, now: Timestamp, limit: u32) -> Result<Vec<RunId>, StoreError>;

    /// The earliest `wake_at` of a shard.
    async fn next_wake(&self, shard: ShardId) -> Result<Option<Timestamp>, StoreError>;
}

/// Whether the store can be written, and how its writer does.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StoreHealth {
    /// Why the store refuses writes; none while it works.
    pub fault: Option<String>,
    /// Commits since the start.
    pub commits: u64,
    /// Journal entries written since the start.
    pub entries: u64,
    /// Events written since the start.
    pub events: u64,
    /// Writes that wait for the next commit.
    pub queued: u64,
}

/// Everything that a node remembers, behind one object.
#[async_trait]
pub trait Store:
    RunStore + TimerStore + ShardStore + DefinitionStore + BlobStore + OutboxStore + LeaseStore + IngestStore
{
    /// How the store does.
    fn health(&self) -> StoreHealth;

    /// Finishes what was accepted, then closes files and connections. Later writes are refused.
    async fn close(&self) -> Result<(), StoreError>;
}
