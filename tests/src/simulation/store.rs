//! What a simulated node sees of the store: the port, with every request going through the disk's gate.
//!
//! Decides nothing: the world settles the fate of each request. Definitions never change during a simulation and are
//! read at once; leases, shards that move, the outbox and streams are not part of it. Used by the simulated nodes.

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::{Epoch, Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use motet_engine::value::BlobRef;
use motet_store::StoreError;
use motet_store::port::{
    Admission, Admitted, Append, Assignment, BlobStore, DeadLetter, DeadQuery, DeadState, DefinitionKind,
    DefinitionStore, Entry, HeadState, Incarnation, Ingest, IngestStore, Leader, LeaseStore, LiveNode, MapVersion,
    OutboxRecord, OutboxStore, PartitionKey, PartitionRow, PutOutcome, RunHead, RunQuery, RunStore, ShardRow,
    ShardStore, Snapshot, Steer, Store, StoreHealth, StoredDefinition, StoredRun, Term, TimerStore,
};

use super::disk::{Boot, Disk, Request, at_once};

/// The store as one boot of a node sees it.
pub(super) struct GatedStore {
    pub(super) disk: Arc<Disk>,
    pub(super) by: Boot,
}

impl GatedStore {
    async fn ask<T: Send + 'static>(
        &self,
        what: String,
        write: bool,
        act: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = Arc::new(Mutex::new(None));
        let (told, refused, disk) = (Arc::clone(&answer), Arc::clone(&answer), Arc::clone(&self.disk));
        self.disk.enter(Request {
            by: self.by,
            what,
            write,
            carry_out: Box::new(move || {
                let outcome = act(&disk);
                Box::new(move || *told.lock().unwrap() = Some(outcome))
            }),
            refuse: Box::new(move || {
                *refused.lock().unwrap() = Some(Err(StoreError::Storage("the connection broke".to_owned())));
            }),
        });
        futures::future::poll_fn(move |_| answer.lock().unwrap().take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

#[async_trait]
impl RunStore for GatedStore {
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        self.ask(format!("admit {}", admission.run), true, move |disk| disk.admit(admission)).await
    }

    async fn append(&self, append: Append) -> Result<(), StoreError> {
        let (by, what) = (self.by, format!("append {} {} under {}", append.run, append.entry.seq, append.epoch));
        self.ask(what, true, move |disk| disk.append(by, append)).await
    }

    async fn save_snapshot(&self, run: RunId, epoch: Epoch, snapshot: Snapshot) -> Result<(), StoreError> {
        let what = format!("snapshot {run} {}", snapshot.seq);
        self.ask(what, true, move |disk| at_once(disk.memory.save_snapshot(run, epoch, snapshot))).await
    }

    async fn load(&self, run: RunId, from_start: bool) -> Result<Option<StoredRun>, StoreError> {
        self.ask(format!("load {run}"), false, move |disk| at_once(disk.memory.load(run, from_start))).await
    }

    async fn head(&self, run: RunId) -> Result<Option<RunHead>, StoreError> {
        self.disk.memory.head(run).await
    }

    async fn entries(&self, run: RunId, after: Seq, limit: u32) -> Result<Vec<Entry>, StoreError> {
        self.disk.memory.entries(run, after, limit).await
    }

    async fn list(&self, query: &RunQuery) -> Result<Vec<RunHead>, StoreError> {
        self.disk.memory.list(query).await
    }

    async fn unfinished(&self, shard: ShardId, after: Option<RunId>, limit: u32) -> Result<Vec<RunId>, StoreError> {
        let what = format!("unfinished of {shard}");
        self.ask(what, false, move |disk| at_once(disk.memory.unfinished(shard, after, limit))).await
    }

    async fn lines(&self, shard: ShardId, after: Option<RunId>, limit: u32) -> Result<Vec<RunHead>, StoreError> {
        self.disk.memory.lines(shard, after, limit).await
    }

    async fn line_head(&self, shard: ShardId, line: [u8; 16]) -> Result<Option<RunHead>, StoreError> {
        self.disk.memory.line_head(shard, line).await
    }

    async fn counts(&self) -> Result<Vec<(HeadState, u64)>, StoreError> {
        self.disk.memory.counts().await
    }

    async fn retain(&self, ended_before: Timestamp, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.disk.memory.retain(ended_before, now, limit).await
    }
}

#[async_trait]
impl TimerStore for GatedStore {
    async fn due(&self, shard: ShardId, now: Timestamp, limit: u32) -> Result<Vec<RunId>, StoreError> {
        self.ask(format!("due of {shard}"), false, move |disk| at_once(disk.memory.due(shard, now, limit))).await
    }

    async fn next_wake(&self, shard: ShardId) -> Result<Option<Timestamp>, StoreError> {
        self.disk.memory.next_wake(shard).await
    }
}

#[async_trait]
impl ShardStore for GatedStore {
    async fn claim(&self, shard: ShardId, _: &str) -> Result<Epoch, StoreError> {
        let by = self.by;
        self.ask(format!("claim {shard}"), true, move |disk| disk.claim(by, shard)).await
    }

    async fn epoch(&self, shard: ShardId) -> Result<Epoch, StoreError> {
        self.disk.memory.epoch(shard).await
    }

    async fn map_version(&self) -> Result<MapVersion, StoreError> {
        self.disk.memory.map_version().await
    }

    async fn shards(&self, count: u16, after: Option<MapVersion>) -> Result<(MapVersion, Vec<ShardRow>), StoreError> {
        self.disk.memory.shards(count, after).await
    }

    async fn assign(&self, role: &Name, term: Term, plan: &[Assignment]) -> Result<bool, StoreError> {
        self.disk.memory.assign(role, term, plan).await
    }

    async fn take(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
        self.disk.memory.take(shards, incarnation).await
    }

    async fn release(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError> {
        self.disk.memory.release(shards, incarnation).await
    }
}

#[async_trait]
impl DefinitionStore for GatedStore {
    async fn put_definition(&self, definition: StoredDefinition) -> Result<PutOutcome, StoreError> {
        self.disk.memory.put_definition(definition).await
    }

    async fn definition(
        &self,
        kind: DefinitionKind,
        namespace: &Namespace,
        name: &Name,
        version: Option<&str>,
    ) -> Result<Option<StoredDefinition>, StoreError> {
        self.disk.memory.definition(kind, namespace, name, version).await
    }

    async fn definitions(
        &self,
        kind: DefinitionKind,
        namespace: Option<&Namespace>,
    ) -> Result<Vec<StoredDefinition>, StoreError> {
        self.disk.memory.definitions(kind, namespace).await
    }
}

#[async_trait]
impl BlobStore for GatedStore {
    async fn put_blob(&self, run: RunId, data: Bytes) -> Result<BlobRef, StoreError> {
        let what = format!("blob of {run}, {} bytes", data.len());
        self.ask(what, true, move |disk| at_once(disk.memory.put_blob(run, data))).await
    }

    async fn blob(&self, blob: BlobRef) -> Result<Option<Bytes>, StoreError> {
        self.ask(format!("blob {blob}"), false, move |disk| at_once(disk.memory.blob(blob))).await
    }
}

#[async_trait]
impl OutboxStore for GatedStore {
    async fn outbox(&self, shard: ShardId, after: u64, limit: u32) -> Result<Vec<OutboxRecord>, StoreError> {
        self.disk.memory.outbox(shard, after, limit).await
    }

    async fn outbox_done(&self, shard: ShardId, epoch: Epoch, positions: &[u64]) -> Result<(), StoreError> {
        self.disk.memory.outbox_done(shard, epoch, positions).await
    }

    async fn outbox_rows(&self, at_most: u64) -> Result<u64, StoreError> {
        self.disk.memory.outbox_rows(at_most).await
    }

    async fn outbox_origin(&self) -> Result<String, StoreError> {
        self.disk.memory.outbox_origin().await
    }
}

#[async_trait]
impl LeaseStore for GatedStore {
    async fn lead(&self, role: &Name, holder: &str, lease: Duration) -> Result<Option<Term>, StoreError> {
        self.disk.memory.lead(role, holder, lease).await
    }

    async fn usurp(
        &self,
        role: &Name,
        holder: &str,
        lease: Duration,
        left: Duration,
    ) -> Result<Option<Term>, StoreError> {
        self.disk.memory.usurp(role, holder, lease, left).await
    }

    async fn renew_lead(&self, role: &Name, term: Term, lease: Duration) -> Result<bool, StoreError> {
        self.disk.memory.renew_lead(role, term, lease).await
    }

    async fn resign(&self, role: &Name, term: Term) -> Result<(), StoreError> {
        self.disk.memory.resign(role, term).await
    }

    async fn leader(&self, role: &Name) -> Result<Option<Leader>, StoreError> {
        self.disk.memory.leader(role).await
    }

    async fn register(&self, node: &str, address: &str, lease: Duration) -> Result<Incarnation, StoreError> {
        self.disk.memory.register(node, address, lease).await
    }

    async fn renew(&self, incarnation: Incarnation, lease: Duration) -> Result<bool, StoreError> {
        self.disk.memory.renew(incarnation, lease).await
    }

    async fn fence(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.disk.memory.fence(incarnation).await
    }

    async fn fence_expired(&self, incarnation: Incarnation) -> Result<bool, StoreError> {
        self.disk.memory.fence_expired(incarnation).await
    }

    async fn live(&self) -> Result<Vec<LiveNode>, StoreError> {
        self.disk.memory.live().await
    }
}

#[async_trait]
impl IngestStore for GatedStore {
    async fn claim_partition(
        &self,
        key: &PartitionKey,
        owner: &str,
        now: Timestamp,
    ) -> Result<PartitionRow, StoreError> {
        self.disk.memory.claim_partition(key, owner, now).await
    }

    async fn begin_partition(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        origin: &str,
        next: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.disk.memory.begin_partition(key, epoch, origin, next, now).await
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Vec<Admitted>, StoreError> {
        self.disk.memory.ingest(ingest).await
    }

    async fn release_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
        self.disk.memory.release_partition(key, epoch, now).await
    }

    async fn forgive_partition(&self, key: &PartitionKey, epoch: Epoch, now: Timestamp) -> Result<(), StoreError> {
        self.disk.memory.forgive_partition(key, epoch, now).await
    }

    async fn trouble_partition(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        trouble: Option<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.disk.memory.trouble_partition(key, epoch, trouble, now).await
    }

    async fn steer_partition(
        &self,
        key: &PartitionKey,
        steer: Steer,
        now: Timestamp,
    ) -> Result<Option<PartitionRow>, StoreError> {
        self.disk.memory.steer_partition(key, steer, now).await
    }

    async fn partitions(
        &self,
        namespace: Option<&Namespace>,
        stream: Option<&Name>,
    ) -> Result<Vec<PartitionRow>, StoreError> {
        self.disk.memory.partitions(namespace, stream).await
    }

    async fn partition(&self, key: &PartitionKey) -> Result<Option<PartitionRow>, StoreError> {
        self.disk.memory.partition(key).await
    }

    async fn dead_letters(&self, query: &DeadQuery) -> Result<Vec<DeadLetter>, StoreError> {
        self.disk.memory.dead_letters(query).await
    }

    async fn dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
    ) -> Result<Option<DeadLetter>, StoreError> {
        self.disk.memory.dead_letter(key, generation, offset).await
    }

    async fn settle_dead_letter(
        &self,
        key: &PartitionKey,
        generation: u32,
        offset: i64,
        state: DeadState,
    ) -> Result<bool, StoreError> {
        self.disk.memory.settle_dead_letter(key, generation, offset, state).await
    }

    async fn unsent_dead_letters(&self, key: &PartitionKey, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        self.disk.memory.unsent_dead_letters(key, limit).await
    }

    async fn dead_letters_sent(
        &self,
        key: &PartitionKey,
        epoch: Epoch,
        offsets: &[(u32, i64)],
    ) -> Result<(), StoreError> {
        self.disk.memory.dead_letters_sent(key, epoch, offsets).await
    }
}

#[async_trait]
impl Store for GatedStore {
    fn health(&self) -> StoreHealth {
        self.disk.memory.health()
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
