//! Everything a node remembers, in one SQLite file.
//!
//! One connection writes, behind a queue and a writer that commits many writes at a time; a few read-only ones read.
//! A lock on the folder keeps a second process away. Never holds a lock across a wait and never answers a write
//! before its commit is on the disk. Used by a server that runs alone.
//!
//! After a failure of the disk, a full one included, the store goes on reading and refuses every write until it is
//! opened again; [`Store::health`] says why. What was acknowledged is never lost; what was reported as failed may be
//! there after the next start, as with any commit whose answer was lost.

mod batch;
mod connection;
mod definition;
mod ingest;
mod lease;
mod lock;
mod outbox;
mod plan;
mod queue;
mod reader;
mod retention;
mod schema;
mod shard;
#[cfg(test)]
mod tests;
mod writer;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use motet_engine::id::{Epoch, Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use motet_engine::value::BlobRef;
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

use crate::port::{
    Admission, Admitted, Append, Assignment, BlobStore, DefinitionKind, DefinitionStore, Entry, HeadState, Incarnation,
    Leader, LeaseStore, LiveNode, MapVersion, OutboxRecord, OutboxStore, PutOutcome, RunHead, RunQuery, RunStore,
    ShardRow, ShardStore, Snapshot, Store, StoreHealth, StoredDefinition, StoredRun, Term, TimerStore,
};
use crate::{StoreError, check};
use lease::LeaseOp;
use lock::FolderLock;
use queue::{Op, Outcome, Queue, Status};
use schema::Trouble;
use shard::ShardOp;
use writer::Writer;

/// Connections that read at the same time; more would only fight for the cores.
const READERS: u32 = 4;

/// Longest wait for a free reader.
const READER_WAIT: Duration = Duration::from_secs(5);

/// A [`Store`] in a folder of the local disk.
#[derive(Debug)]
pub struct SqliteStore {
    queue: Queue,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the store of a folder, which is made when it is missing. Takes the folder's lock until [`Store::close`]
    /// returns, or until the writer has ended after the store was dropped.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process holds the folder, [`StoreError::Refused`] when a newer version of
    /// the program wrote the file, [`StoreError::Corrupt`] when it is no database.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        let unusable = |error: std::io::Error| StoreError::Storage(format!("{}: {error}", folder.display()));
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let lock = FolderLock::take(folder)?;
        let connection = schema::open_writer(folder).await?;
        let status = Arc::new(Status::default());
        let (queue, writes) = Queue::new(Arc::clone(&status));
        let writer = Writer::open(connection, writes, Arc::clone(&status), lock).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(READER_WAIT)
            // The connections are files of this process: asking whether they live would double every read.
            .test_before_acquire(false)
            .connect_with(schema::read_options(folder))
            .await
            .map_err(|error| Trouble::of(&error).into_error())?;
        tokio::spawn(async move {
            if AssertUnwindSafe(writer.run()).catch_unwind().await.is_err() {
                // Whoever looks after the process must see that nothing is written any more.
                let _ = status.fault.set("the writer stopped unexpectedly".to_owned());
            }
        });
        Ok(Self { queue, readers })
    }

    /// Reads the whole file and checks that it is sound; takes as long as reading it does.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the first thing that is wrong.
    pub async fn verify(&self) -> Result<(), StoreError> {
        reader::verify(&self.readers).await
    }
}

impl SqliteStore {
    async fn change_lease(&self, op: LeaseOp) -> Result<Option<u64>, StoreError> {
        match self.queue.write(Op::Lease(op)).await? {
            Outcome::Lease(number) => Ok(number),
            other => mismatch(other),
        }
    }

    async fn change_shards(&self, op: ShardOp) -> Result<Option<Vec<(ShardId, Epoch)>>, StoreError> {
        match self.queue.write(Op::Shard(op)).await? {
            Outcome::Shards(changed) => Ok(changed),
            other => mismatch(other),
        }
    }
}

/// The writer answers every operation with its own kind of outcome; another one would be a fault of this crate.
fn mismatch<T>(outcome: Outcome) -> Result<T, StoreError> {
    Err(StoreError::Corrupt(format!("the writer answered {outcome:?} to another question")))
}

#[async_trait]
impl RunStore for SqliteStore {
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
        let mut gone = 0;
        // Small transactions, so that other writes come in between.
        loop {
            let left = u32::try_from(u64::from(limit).saturating_sub(gone)).unwrap_or(u32::MAX);
            let at_once = left.min(retention::RUNS_AT_ONCE);
            let op = Op::Retain { ended_before, now, limit: at_once };
            let some = match self.queue.write(op).await? {
                Outcome::Forgotten(some) => some,
                other => return mismatch(other),
            };
            gone += some;
            if some < u64::from(at_once) || at_once == left {
                return Ok(gone);
            }
        }
    }
}

#[async_trait]
impl TimerStore for SqliteStore {
    async fn due(&self, shard: ShardId, now: Timestamp, limit: u32) -> Result<Vec<RunId>, StoreError> {
        reader::due(&self.readers, shard, now, limit).await
    }

    async fn next_wake(&self, shard: ShardId) -> Result<Option<Timestamp>, StoreError> {
        reader::next_wake(&self.readers, shard).await
    }
}

#[async_trait]
impl ShardStore for SqliteStore {
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
        shard::version(&self.readers).await
    }

    async fn shards(&self, count: u16, after: Option<MapVersion>) -> Result<(MapVersion, Vec<ShardRow>), StoreError> {
        shard::rows(&self.readers, count, after).await
    }

    async fn assign(&self, role: &Name, term: Term, plan: &[Assignment]) -> Result<bool, StoreError> {
        check::plan(plan)?;
        let op = ShardOp::Assign { role: role.clone(), term, plan: plan.to_vec() };
        Ok(self.change_shards(op).await?.is_some())
    }

    async fn take(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
        let op = ShardOp::Take { asked: shards.to_vec(), incarnation };
        Ok(self.change_shards(op).await?.unwrap_or_default())
    }

    async fn release(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
        let op = ShardOp::Release { asked: shards.to_vec(), incarnation };
        Ok(self.change_shards(op).await?.unwrap_or_default())
    }
}

#[async_trait]
impl DefinitionStore for SqliteStore {
    async fn put_definition(&self, definition: StoredDefinition) -> Result<PutOutcome, StoreError> {
        check::definition(&definition)?;
        match self.queue.write(Op::Define(Box::new(definition))).await? {
            Outcome::Put(outcome) => Ok(outcome),
            other => mismatch(other),
        }
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
impl BlobStore for SqliteStore {
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
impl OutboxStore for SqliteStore {
    async fn outbox(&self, shard: ShardId, after: u64, limit: u32) -> Result<Vec<OutboxRecord>, StoreError> {
        outbox::read(&self.readers, shard, after, limit).await
    }

    async fn outbox_done(&self, shard: ShardId, epoch: Epoch, positions: &[u64]) -> Result<(), StoreError> {
        let positions = positions.to_vec();
        self.queue.write(Op::OutboxDone { shard, epoch, positions }).await.map(drop)
    }

    async fn outbox_rows(&self, at_most: u64) -> Result<u64, StoreError> {
        outbox::rows(&self.readers, at_most).await
    }

    async fn outbox_origin(&self) -> Result<String, StoreError> {
        outbox::origin(&self.readers).await
    }
}

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn lead(&self, role: &Name, holder: &str, lease: Duration) -> Result<Option<Term>, StoreError> {
        let op = LeaseOp::Lead { role: role.clone(), holder: holder.to_owned(), lease };
        Ok(self.change_lease(op).await?.map(Term))
    }

    async fn usurp(
        &self,
        role: &Name,
        holder: &str,
        lease: Duration,
        left: Duration,
    ) -> Result<Option<Term>, StoreError> {
        let op = LeaseOp::Usurp { role: role.clone(), holder: holder.to_owned(), lease, left };
        Ok(self.change_lease(op).await?.map(Term))
    }

    async fn renew_lead(&self, role: &Name, term: Term, lease: Duration) -> Result<bool, StoreError> {
        Ok(self.change_lease(LeaseOp::RenewLead { role: role.clone(), term, lease }).await?.is_some())
    }

    async fn resign(&self, role: &Name, term: Term) -> Result<(), StoreError> {
        self.change_lease(LeaseOp::Resign { role: role.clone(), term }).await.map(drop)
    }

    async fn leader(&self, role: &Name) -> Result<Option<Leader>, StoreError> {
        lease::leader(&self.readers, role).await
    }

    async fn register(&self, node: &str, address: &str, lease: Duration) -> Result<Incarnation, StoreError> {
        check::node(node, address)?;
        let op = LeaseOp::Register { node: node.to_owned(), address: address.to_owned(), lease };
        let number = self.change_lease(op).await?;
        number.map(Incarnation).ok_or_else(|| StoreError::Corrupt("a registered node has no number".to_owned()))
    }

    async fn renew(&self, incarnation: Incarnation, lease: Duration) -> Result<bool, StoreError> {
        Ok(self.change_lease(LeaseOp::Renew { incarnation, lease }).await?.is_some())
    }

    async fn fence(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.change_lease(LeaseOp::Fence { incarnation }).await.map(drop)
    }

    async fn fence_expired(&self, incarnation: Incarnation) -> Result<bool, StoreError> {
        Ok(self.change_lease(LeaseOp::FenceExpired { incarnation }).await?.is_none())
    }

    async fn live(&self) -> Result<Vec<LiveNode>, StoreError> {
        lease::live(&self.readers).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn health(&self) -> StoreHealth {
        self.queue.health()
    }

    async fn close(&self) -> Result<(), StoreError> {
        // Readers first: the write-ahead log can only be emptied when nobody reads from it.
        self.readers.close().await;
        match self.queue.write(Op::Close).await {
            Ok(_) | Err(StoreError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
