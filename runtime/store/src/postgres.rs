//! Everything that several nodes remember together, in a PostgreSQL database.
//!
//! Two connections write, behind queues and writers that commit many writes in one statement; two more take records in;
//! small pools read and do the rest. Every write of a run is compared with its shard's epoch in the statement that writes it, under a lock on
//! the shard's row. Never answers a write before its commit, and never guesses about a commit whose answer was lost:
//! it reads back. Used by servers that share their runs, or that keep them away from their own disk.
//!
//! While the server cannot be reached, reads and writes wait for a bounded time and then fail; [`Store::health`] tells
//! the fault, and the store recovers by itself.

mod batch;
mod definition;
mod fullness;
mod ingest;
mod key;
mod lease;
mod link;
mod options;
mod outbox;
mod partition;
mod passfile;
mod plan;
mod queue;
mod reader;
mod retention;
mod schema;
mod shard;
#[cfg(test)]
mod tests;
mod trouble;
mod writer;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use motet_engine::id::{Epoch, Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use motet_engine::value::BlobRef;
use sha2::{Digest, Sha256};
use sqlx::Executor;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::port::{
    Admission, Admitted, Append, Assignment, BlobStore, DefinitionKind, DefinitionStore, Entry, HeadState, Incarnation,
    Leader, LeaseStore, LiveNode, MapVersion, OutboxRecord, OutboxStore, PutOutcome, RunHead, RunQuery, RunStore,
    ShardRow, ShardStore, Snapshot, Store, StoreHealth, StoredDefinition, StoredRun, Term, TimerStore,
};
use crate::{StoreError, check};
use ingest::{LANES, Lanes};
pub use options::PostgresOptions;
use queue::{Op, Outcome, Queue, Status, WRITERS};
use retention::Horizon;
use writer::Writer;

/// Connections for leases, shards, definitions and forgetting, apart from the readers: a long list must not cost a node
/// its lease, nor must one that forgets and one that waits for a shard.
const CONTROLS: u32 = 3;

/// Connections for partitions that change hands or are steered, apart from the controls: a claim waits for the ingest
/// of a process that is frozen, and must not cost this node its lease meanwhile.
const STREAMS: u32 = 2;

/// Longest wait for a free connection of a pool.
const POOL_WAIT: Duration = Duration::from_secs(5);

/// How long a connection of a pool may stand idle.
const POOL_IDLE: Duration = Duration::from_secs(300);

/// Tables grow while statements stay prepared, and every question has its index.
const READER_GREETING: &str = "set enable_seqscan = off; set jit = off";

/// A [`Store`] in a PostgreSQL database, 14 or newer.
#[derive(Debug)]
pub struct PostgresStore {
    queue: Queue,
    readers: PgPool,
    controls: PgPool,
    streams: PgPool,
    lanes: Lanes,
    /// Where this store counts runs by state when it forgets them.
    slot: i32,
}

impl PostgresStore {
    /// Brings the database's schema up to date, and makes the journal's next partitions. Several processes may do so at
    /// the same time. Returns the number of the schema.
    ///
    /// # Errors
    /// [`StoreError::Storage`] when the server cannot be reached, [`StoreError::Refused`] when it is too old, when a
    /// newer version of the program migrated the database, or when the user lacks the right.
    pub async fn migrate(options: &PostgresOptions) -> Result<i32, StoreError> {
        schema::migrate(options).await
    }

    /// Opens the store of a database whose schema is up to date.
    ///
    /// # Errors
    /// [`StoreError::Storage`] when the server cannot be reached, [`StoreError::Refused`] with advice when server or
    /// schema are too old or too new.
    pub async fn open(options: PostgresOptions) -> Result<Arc<Self>, StoreError> {
        if options.migrate_at_start {
            schema::migrate(&options).await?;
        } else {
            schema::check(&options).await?;
        }
        let options = Arc::new(options);
        let status = Arc::new(Status::default());
        let (queue, taken) = Queue::new(Arc::clone(&status));
        let slot = free_slot();
        for (place, writes) in (0..).zip(taken) {
            let writer = Writer::new(Arc::clone(&options), writes, Arc::clone(&status), slot, place);
            let status = Arc::clone(&status);
            tokio::spawn(async move {
                if AssertUnwindSafe(writer.run()).catch_unwind().await.is_err() {
                    // Whoever looks after the process must see that nothing is written any more.
                    status.set_fault("a writer stopped unexpectedly");
                }
            });
        }
        let (readers, controls) = (pool(&options, options.readers), pool(&options, CONTROLS));
        let streams = pool(&options, STREAMS);
        let slot = slot + WRITERS as i32;
        let lanes = Lanes::new(&options, &queue.status, slot + 1);
        Ok(Arc::new(Self { queue, readers, controls, streams, lanes, slot }))
    }

    fn open_controls(&self) -> Result<&PgPool, StoreError> {
        if self.queue.is_closed() { Err(StoreError::Closed) } else { Ok(&self.controls) }
    }
}

/// A beginning of slots for counting: drawn, so that stores of other processes hardly ever share one; sharing would
/// only make them wait for each other.
fn free_slot() -> i32 {
    let draw = RandomState::new().build_hasher().finish() % (1 << 20);
    i32::try_from(draw).unwrap_or_default() * (WRITERS as i32 + 1 + LANES as i32)
}

fn pool(options: &Arc<PostgresOptions>, connections: u32) -> PgPool {
    let greeting = Arc::new(format!("{} {READER_GREETING}", options.greeting()));
    PgPoolOptions::new()
        .max_connections(connections.max(1))
        .acquire_timeout(POOL_WAIT)
        .idle_timeout(POOL_IDLE)
        .after_connect(move |connection, _| {
            let greeting = Arc::clone(&greeting);
            Box::pin(async move { connection.execute(sqlx::raw_sql(&greeting)).await.map(drop) })
        })
        .connect_lazy_with(options.connect())
}

/// The writer answers every operation with its own kind of outcome; another one would be a fault of this crate.
fn mismatch<T>(outcome: Outcome) -> Result<T, StoreError> {
    Err(StoreError::Corrupt(format!("the writer answered {outcome:?} to another question")))
}

#[async_trait]
impl RunStore for PostgresStore {
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        check::admission(&admission)?;
        match self.queue.write_now(Op::Admit(Box::new(admission))).await? {
            Outcome::Admitted(admitted) => Ok(admitted),
            other => mismatch(other),
        }
    }

    async fn append(&self, append: Append) -> Result<(), StoreError> {
        check::append(&append)?;
        self.queue.write(Op::Append(Box::new(append))).await.map(drop)
    }

    async fn save_snapshot(&self, run: RunId, epoch: Epoch, snapshot: Snapshot) -> Result<(), StoreError> {
        check::payload(&snapshot.state)?;
        self.queue.write(Op::Snapshot { run, epoch, snapshot }).await.map(drop)
    }

    async fn load(&self, run: RunId, from_start: bool) -> Result<Option<StoredRun>, StoreError> {
        reader::load(&self.readers, run, from_start).await
    }

    async fn head(&self, run: RunId) -> Result<Option<RunHead>, StoreError> {
        reader::head(&self.readers, run).await
    }

    async fn entries(&self, run: RunId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError> {
        reader::entries(&self.readers, run, after, limit).await
    }

    async fn list(&self, query: &RunQuery) -> Result<Vec<RunHead>, StoreError> {
        reader::list(&self.readers, query).await
    }

    async fn unfinished(&self, shard: ShardId, after: Option<RunId>, limit: u32) -> Result<Vec<RunId>, StoreError> {
        reader::unfinished(&self.readers, shard, after, limit).await
    }

    async fn lines(&self, shard: ShardId, after: Option<RunId>, limit: u32) -> Result<Vec<RunHead>, StoreError> {
        reader::lines(&self.readers, shard, after, limit).await
    }

    async fn line_head(&self, shard: ShardId, line: [u8; 16]) -> Result<Option<RunHead>, StoreError> {
        reader::line_head(&self.readers, shard, line).await
    }

    async fn counts(&self) -> Result<Vec<(HeadState, u64)>, StoreError> {
        reader::counts(&self.readers).await
    }

    async fn retain(&self, ended_before: Timestamp, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        retention::forget(self.open_controls()?, &Horizon { ended_before, now, slot: self.slot }, limit).await
    }
}

#[async_trait]
impl TimerStore for PostgresStore {
    async fn due(&self, shard: ShardId, now: Timestamp, limit: u32) -> Result<Vec<RunId>, StoreError> {
        reader::due(&self.readers, shard, now, limit).await
    }

    async fn next_wake(&self, shard: ShardId) -> Result<Option<Timestamp>, StoreError> {
        reader::next_wake(&self.readers, shard).await
    }
}

#[async_trait]
impl ShardStore for PostgresStore {
    async fn claim(&self, shard: ShardId, owner: &str) -> Result<Epoch, StoreError> {
        match self.queue.write(Op::Claim { shard, owner: owner.to_owned() }).await? {
            Outcome::Claimed(epoch) => Ok(epoch),
            other => mismatch(other),
        }
    }

    async fn epoch(&self, shard: ShardId) -> Result<Epoch, StoreError> {
        reader::epoch(&self.readers, shard).await
    }

    async fn map_version(&self) -> Result<MapVersion, StoreError> {
        shard::version(&self.controls).await
    }

    async fn shards(&self, count: u16, after: Option<MapVersion>) -> Result<(MapVersion, Vec<ShardRow>), StoreError> {
        shard::rows(&self.controls, count, after).await
    }

    async fn assign(&self, role: &Name, term: Term, plan: &[Assignment]) -> Result<bool, StoreError> {
        check::plan(plan)?;
        shard::assign(self.open_controls()?, role, term, plan).await
    }

    async fn take(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
        shard::take(self.open_controls()?, shards, incarnation).await
    }

    async fn release(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
        shard::release(self.open_controls()?, shards, incarnation).await
    }
}

#[async_trait]
impl DefinitionStore for PostgresStore {
    async fn put_definition(&self, definition: StoredDefinition) -> Result<PutOutcome, StoreError> {
        check::definition(&definition)?;
        definition::put(self.open_controls()?, &definition).await
    }

    async fn definition(
        &self,
        kind: DefinitionKind,
        namespace: &Namespace,
        name: &Name,
        version: Option<&str>,
    ) -> Result<Option<StoredDefinition>, StoreError> {
        definition::get(&self.readers, kind, namespace, name, version).await
    }

    async fn definitions(
        &self,
        kind: DefinitionKind,
        namespace: Option<&Namespace>,
    ) -> Result<Vec<StoredDefinition>, StoreError> {
        definition::list(&self.readers, kind, namespace).await
    }
}

#[async_trait]
impl BlobStore for PostgresStore {
    async fn put_blob(&self, run: RunId, data: Bytes) -> Result<BlobRef, StoreError> {
        check::payload(&data)?;
        let blob = BlobRef { sha256: Sha256::digest(&data).into(), len: data.len() as u64 };
        self.queue.write(Op::Blob { run, blob, data }).await?;
        Ok(blob)
    }

    async fn blob(&self, blob: BlobRef) -> Result<Option<Bytes>, StoreError> {
        reader::blob(&self.readers, blob).await
    }
}

#[async_trait]
impl OutboxStore for PostgresStore {
    async fn outbox(&self, shard: ShardId, after: u64, limit: u32) -> Result<Vec<OutboxRecord>, StoreError> {
        outbox::read(&self.readers, shard, after, limit).await
    }

    async fn outbox_done(&self, shard: ShardId, epoch: Epoch, positions: &[u64]) -> Result<(), StoreError> {
        outbox::forget(self.open_controls()?, shard, epoch, positions).await
    }

    async fn outbox_rows(&self, at_most: u64) -> Result<u64, StoreError> {
        outbox::rows(&self.readers, at_most).await
    }

    async fn outbox_origin(&self) -> Result<String, StoreError> {
        outbox::origin(&self.readers).await
    }
}

#[async_trait]
impl LeaseStore for PostgresStore {
    async fn lead(&self, role: &Name, holder: &str, lease: Duration) -> Result<Option<Term>, StoreError> {
        lease::lead(self.open_controls()?, role, holder, lease).await
    }

    async fn usurp(
        &self,
        role: &Name,
        holder: &str,
        lease: Duration,
        left: Duration,
    ) -> Result<Option<Term>, StoreError> {
        lease::usurp(self.open_controls()?, role, holder, lease, left).await
    }

    async fn renew_lead(&self, role: &Name, term: Term, lease: Duration) -> Result<bool, StoreError> {
        lease::renew_lead(self.open_controls()?, role, term, lease).await
    }

    async fn resign(&self, role: &Name, term: Term) -> Result<(), StoreError> {
        lease::resign(self.open_controls()?, role, term).await
    }

    async fn leader(&self, role: &Name) -> Result<Option<Leader>, StoreError> {
        lease::leader(&self.controls, role).await
    }

    async fn register(&self, node: &str, address: &str, lease: Duration) -> Result<Incarnation, StoreError> {
        check::node(node, address)?;
        lease::register(self.open_controls()?, node, address, lease).await
    }

    async fn renew(&self, incarnation: Incarnation, lease: Duration) -> Result<bool, StoreError> {
        lease::renew(self.open_controls()?, incarnation, lease).await
    }

    async fn fence(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        lease::fence(self.open_controls()?, incarnation).await
    }

    async fn fence_expired(&self, incarnation: Incarnation) -> Result<bool, StoreError> {
        lease::fence_expired(self.open_controls()?, incarnation).await
    }

    async fn live(&self) -> Result<Vec<LiveNode>, StoreError> {
        lease::live(&self.controls).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn health(&self) -> StoreHealth {
        self.queue.health()
    }

    async fn close(&self) -> Result<(), StoreError> {
        let closed = self.queue.close().await;
        self.readers.close().await;
        self.controls.close().await;
        self.streams.close().await;
        self.lanes.close().await;
        closed
    }
}
