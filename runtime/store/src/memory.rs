//! Everything a node remembers, in memory.
//!
//! Forgets all of it when the process ends. One lock guards the whole state, so every promise of the port holds by
//! construction: this is the reference against which the other implementations are read. Used by tests, by the
//! simulation and by a server that was told to keep nothing.

mod ingest;
mod lease;
mod state;
mod volatile;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::{Epoch, Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use motet_engine::value::BlobRef;
use sha2::{Digest, Sha256};

use crate::port::{
    Admission, Admitted, Append, Assignment, BlobStore, DefinitionKind, DefinitionStore, Entry, HeadState, Incarnation,
    Leader, LeaseStore, LiveNode, MapVersion, OutboxRecord, OutboxStore, PutOutcome, RunHead, RunQuery, RunStore,
    ShardRow, ShardStore, Snapshot, Store, StoreHealth, StoredDefinition, StoredRun, Term, TimerStore,
};
use crate::{StoreError, check};
use state::State;
pub use volatile::MemoryVolatile;

/// A [`Store`] that lives as long as the process.
pub struct MemoryStore {
    state: Mutex<State>,
    closed: AtomicBool,
    /// Time since some beginning, for leases.
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    /// Tells its outboxes from those of other stores.
    origin: String,
}

impl Default for MemoryStore {
    fn default() -> Self {
        let begun = Instant::now();
        Self::with_clock(move || begun.elapsed())
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose leases run by a clock of the caller's, which tells the time since some beginning and never
    /// goes back: for simulations.
    #[must_use]
    pub fn with_clock(clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        // Keyed by random numbers of the process, so that one that begins anew is another store.
        let drawn = |half: u8| RandomState::new().hash_one(half);
        let origin = format!("{:016x}{:016x}", drawn(0), drawn(1));
        Self { state: Mutex::default(), closed: AtomicBool::new(false), clock: Box::new(clock), origin }
    }

    fn read(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held can only come from a failed allocation; the maps are still maps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(self.read()) }
    }
}

#[async_trait]
impl RunStore for MemoryStore {
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        check::admission(&admission)?;
        self.write()?.admit(admission)
    }

    async fn append(&self, append: Append) -> Result<(), StoreError> {
        check::append(&append)?;
        self.write()?.append(append)
    }

    async fn save_snapshot(&self, run: RunId, epoch: Epoch, snapshot: Snapshot) -> Result<(), StoreError> {
        check::payload(&snapshot.state)?;
        self.write()?.save_snapshot(run, epoch, snapshot)
    }

    async fn load(&self, run: RunId, from_start: bool) -> Result<Option<StoredRun>, StoreError> {
        Ok(self.read().load(run, from_start))
    }

    async fn head(&self, run: RunId) -> Result<Option<RunHead>, StoreError> {
        Ok(self.read().head(run))
    }

    async fn entries(&self, run: RunId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError> {
        Ok(self.read().entries(run, after, limit as usize))
    }

    async fn list(&self, query: &RunQuery) -> Result<Vec<RunHead>, StoreError> {
        Ok(self.read().list(query))
    }

    async fn unfinished(&self, shard: ShardId, after: Option<RunId>, limit: u32) -> Result<Vec<RunId>, StoreError> {
        Ok(self.read().unfinished(shard, after, limit as usize))
    }

    async fn lines(&self, shard: ShardId, after: Option<RunId>, limit: u32) -> Result<Vec<RunHead>, StoreError> {
        Ok(self.read().lines(shard, after, limit as usize))
    }

    async fn line_head(&self, shard: ShardId, line: [u8; 16]) -> Result<Option<RunHead>, StoreError> {
        Ok(self.read().line_head(shard, line))
    }

    async fn counts(&self) -> Result<Vec<(HeadState, u64)>, StoreError> {
        Ok(self.read().counts())
    }

    async fn retain(&self, ended_before: Timestamp, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        Ok(self.write()?.retain(ended_before, now, limit as usize))
    }
}

#[async_trait]
impl TimerStore for MemoryStore {
    async fn due(&self, shard: ShardId, now: Timestamp, limit: u32) -> Result<Vec<RunId>, StoreError> {
        let state = self.read();
        let due = state.wakes(shard).take_while(|(at, _)| *at <= now).map(|(_, run)| run);
        Ok(due.take(limit as usize).collect())
    }

    async fn next_wake(&self, shard: ShardId) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.read().wakes(shard).next().map(|(at, _)| at))
    }
}

#[async_trait]
impl ShardStore for MemoryStore {
    async fn claim(&self, shard: ShardId, _owner: &str) -> Result<Epoch, StoreError> {
        self.write()?.claim(shard, (self.clock)())
    }

    async fn epoch(&self, shard: ShardId) -> Result<Epoch, StoreError> {
        Ok(self.read().shards.epoch(shard))
    }

    async fn map_version(&self) -> Result<MapVersion, StoreError> {
        Ok(self.read().shards.version())
    }

    async fn shards(&self, count: u16, after: Option<MapVersion>) -> Result<(MapVersion, Vec<ShardRow>), StoreError> {
        let state = self.read();
        Ok((state.shards.version(), state.shards.rows(count, after)))
    }

    async fn assign(&self, role: &Name, term: Term, plan: &[Assignment]) -> Result<bool, StoreError> {
        check::plan(plan)?;
        Ok(self.write()?.assign(role, term, plan))
    }

    async fn take(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
        Ok(self.write()?.take(shards, incarnation))
    }

    async fn release(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
        Ok(self.write()?.release(shards, incarnation))
    }
}

#[async_trait]
impl DefinitionStore for MemoryStore {
    async fn put_definition(&self, definition: StoredDefinition) -> Result<PutOutcome, StoreError> {
        check::definition(&definition)?;
        Ok(self.write()?.put_definition(definition))
    }

    async fn definition(
        &self,
        kind: DefinitionKind,
        namespace: &Namespace,
        name: &Name,
        version: Option<&str>,
    ) -> Result<Option<StoredDefinition>, StoreError> {
        Ok(self.read().definition(kind, namespace, name, version))
    }

    async fn definitions(
        &self,
        kind: DefinitionKind,
        namespace: Option<&Namespace>,
    ) -> Result<Vec<StoredDefinition>, StoreError> {
        Ok(self.read().definitions(kind, namespace))
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    async fn put_blob(&self, run: RunId, data: Bytes) -> Result<BlobRef, StoreError> {
        check::payload(&data)?;
        let blob = BlobRef { sha256: Sha256::digest(&data).into(), len: data.len() as u64 };
        self.write()?.put_blob(run, blob, data);
        Ok(blob)
    }

    async fn blob(&self, blob: BlobRef) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read().blob(blob))
    }
}

#[async_trait]
impl OutboxStore for MemoryStore {
    async fn outbox(&self, shard: ShardId, after: u64, limit: u32) -> Result<Vec<OutboxRecord>, StoreError> {
        Ok(self.read().outbox(shard, after, limit as usize))
    }

    async fn outbox_done(&self, shard: ShardId, epoch: Epoch, positions: &[u64]) -> Result<(), StoreError> {
        self.write()?.outbox_done(shard, epoch, positions)
    }

    async fn outbox_rows(&self, at_most: u64) -> Result<u64, StoreError> {
        Ok(self.read().outbox_rows().min(at_most))
    }

    async fn outbox_origin(&self) -> Result<String, StoreError> {
        Ok(self.origin.clone())
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    async fn lead(&self, role: &Name, holder: &str, lease: Duration) -> Result<Option<Term>, StoreError> {
        Ok(self.write()?.leases.lead(role, holder, (self.clock)(), lease))
    }

    async fn usurp(
        &self,
        role: &Name,
        holder: &str,
        lease: Duration,
        left: Duration,
    ) -> Result<Option<Term>, StoreError> {
        Ok(self.write()?.leases.usurp(role, holder, (self.clock)(), lease, left))
    }

    async fn renew_lead(&self, role: &Name, term: Term, lease: Duration) -> Result<bool, StoreError> {
        Ok(self.write()?.leases.renew_lead(role, term, (self.clock)(), lease))
    }

    async fn resign(&self, role: &Name, term: Term) -> Result<(), StoreError> {
        self.write()?.leases.resign(role, term);
        Ok(())
    }

    async fn leader(&self, role: &Name) -> Result<Option<Leader>, StoreError> {
        Ok(self.read().leases.leader(role, (self.clock)()))
    }

    async fn register(&self, node: &str, address: &str, lease: Duration) -> Result<Incarnation, StoreError> {
        check::node(node, address)?;
        Ok(self.write()?.leases.register(node, address, (self.clock)(), lease))
    }

    async fn renew(&self, incarnation: Incarnation, lease: Duration) -> Result<bool, StoreError> {
        Ok(self.write()?.leases.renew(incarnation, (self.clock)(), lease))
    }

    async fn fence(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.write()?.leases.fence(incarnation);
        Ok(())
    }

    async fn fence_expired(&self, incarnation: Incarnation) -> Result<bool, StoreError> {
        Ok(self.write()?.leases.fence_expired(incarnation, (self.clock)()))
    }

    async fn live(&self) -> Result<Vec<LiveNode>, StoreError> {
        Ok(self.read().leases.live((self.clock)()))
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn health(&self) -> StoreHealth {
        self.read().health.clone()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::contract;

    #[tokio::test]
    async fn keeps_every_promise_of_the_port() {
        for (name, check) in contract::CHECKS {
            eprintln!("memory: {name}");
            check(Arc::new(MemoryStore::new())).await;
        }
    }
}
