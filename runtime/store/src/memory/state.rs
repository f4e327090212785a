//! The maps of the memory store and the rules that change them.
//!
//! Never locks and never waits: the store around it holds the lock. Used by `memory` only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use motet_engine::id::{Epoch, Name, Namespace, RunId, Seq, ShardId};
use motet_engine::time::Timestamp;
use motet_engine::value::BlobRef;

use super::ingest::Streams;
use super::lease::Leases;
use crate::port::{
    Admission, Admitted, Append, Assignment, DefinitionKind, Entry, HeadChange, HeadState, IdempotencyKey, Incarnation,
    OutboxRecord, OutboxRow, PutOutcome, RunHead, RunQuery, ShardRow, Snapshot, StoreHealth, StoredDefinition,
    StoredRun, Term,
};
use crate::shard_map::{self, ShardMap};
use crate::{StoreError, check};

#[derive(Default)]
pub(super) struct State {
    runs: BTreeMap<RunId, Kept>,
    /// Runs of a shard by the time at which they want to be woken.
    wakes: BTreeSet<(ShardId, Timestamp, RunId)>,
    /// Runs that must be brought back when their shard changes hands.
    live: BTreeSet<(ShardId, RunId)>,
    /// Runs that hold a place in a line.
    lines: BTreeSet<(ShardId, RunId)>,
    keys: HashMap<(Namespace, String), (IdempotencyKey, RunId)>,
    pub(super) shards: ShardMap,
    definitions: Vec<StoredDefinition>,
    blobs: HashMap<[u8; 32], (Bytes, BTreeSet<RunId>)>,
    outbox: BTreeMap<(ShardId, u64), OutboxRecord>,
    /// The last position of each shard that was given out.
    positions: HashMap<ShardId, u64>,
    pub(super) leases: Leases,
    pub(super) streams: Streams,
    pub(super) health: StoreHealth,
}

struct Kept {
    head: RunHead,
    snapshot: Option<Snapshot>,
    entries: Vec<Entry>,
}

impl Kept {
    fn next(&self) -> u64 {
        self.entries.last().map_or(1, |last| last.seq.0 + u64::from(last.count))
    }

    fn after(&self, after: Seq) -> impl Iterator<Item = &Entry> {
        let from =
            self.entries.partition_point(|entry| entry.seq.0 + u64::from(entry.count) <= after.0.saturating_add(1));
        self.entries[from..].iter()
    }
}

impl State {
    pub(super) fn admit(&mut self, admission: Admission) -> Result<Admitted, StoreError> {
        let (run, key) = (admission.run, admission.idempotency.clone());
        let name = |key: &IdempotencyKey| (admission.namespace.clone(), key.key.clone());
        let name = key.as_ref().map(name);
        if let (Some(key), Some(name)) = (&key, &name) {
            let kept = self.keys.get(name);
            if let Some((kept, earlier)) = kept.filter(|(kept, _)| kept.expires_at > admission.entry.at) {
                let same = kept.fingerprint == key.fingerprint;
                return Ok(if same { Admitted::Replayed(*earlier) } else { Admitted::KeyReused(*earlier) });
            }
        }
        if !self.begin(admission) {
            return Err(StoreError::SeqTaken { run, seq: Seq(1) });
        }
        self.health.commits += 1;
        if let (Some(key), Some(name)) = (key, name) {
            self.keys.insert(name, (key, run));
        }
        Ok(Admitted::New)
    }

    /// Keeps a new run. False, and nothing is changed, when it is there already.
    pub(super) fn begin(&mut self, admission: Admission) -> bool {
        let line = check::line(&admission);
        let Admission { run, namespace, workflow, version, tags, entry, head, outbox, .. } = admission;
        if self.runs.contains_key(&run) {
            return false;
        }
        let created_at = entry.at;
        let head_row = RunHead {
            run,
            namespace,
            workflow,
            version,
            tags,
            state: head.state,
            created_at,
            finished_at: None,
            wake_at: None,
            line,
        };
        self.count(&entry);
        self.runs.insert(run, Kept { head: head_row, snapshot: None, entries: vec![entry] });
        if line.is_some() {
            self.lines.insert((run.shard(), run));
        }
        self.change_head(run, head, created_at);
        self.owe(run, outbox);
        true
    }

    fn owe(&mut self, run: RunId, outbox: Vec<OutboxRow>) {
        let last = self.positions.entry(run.shard()).or_default();
        for row in outbox {
            *last += 1;
            self.outbox.insert((run.shard(), *last), OutboxRecord { position: *last, run, row });
        }
    }

    pub(super) fn append(&mut self, append: Append) -> Result<(), StoreError> {
        let Append { run, epoch, incarnation, entry, head, outbox } = append;
        check::epoch(run.shard(), epoch, self.shards.epoch(run.shard()))?;
        check::incarnation(incarnation, |incarnation| self.leases.lives(incarnation))?;
        let kept = self.runs.get_mut(&run).ok_or(StoreError::UnknownRun(run))?;
        check::sequence(run, kept.next(), &entry)?;
        let at = entry.at;
        kept.entries.push(entry.clone());
        self.count(&entry);
        self.health.commits += 1;
        if let Some(head) = head {
            self.change_head(run, head, at);
        }
        self.owe(run, outbox);
        Ok(())
    }

    pub(super) fn outbox(&self, shard: ShardId, after: u64, limit: usize) -> Vec<OutboxRecord> {
        let after = self.outbox.range((shard, after.saturating_add(1))..);
        after.take_while(|((its, _), _)| *its == shard).take(limit).map(|(_, record)| record.clone()).collect()
    }

    pub(super) fn outbox_done(&mut self, shard: ShardId, epoch: Epoch, positions: &[u64]) -> Result<(), StoreError> {
        check::epoch(shard, epoch, self.shards.epoch(shard))?;
        for position in positions {
            self.outbox.remove(&(shard, *position));
        }
        Ok(())
    }

    pub(super) fn outbox_rows(&self) -> u64 {
        self.outbox.len() as u64
    }

    fn change_head(&mut self, run: RunId, change: HeadChange, at: Timestamp) {
        let Some(kept) = self.runs.get_mut(&run) else { return };
        let change = check::head(change);
        let shard = run.shard();
        if let Some(wake_at) = std::mem::replace(&mut kept.head.wake_at, change.wake_at) {
            self.wakes.remove(&(shard, wake_at, run));
        }
        if let Some(wake_at) = change.wake_at {
            self.wakes.insert((shard, wake_at, run));
        }
        kept.head.state = change.state;
        kept.head.finished_at = change.state.is_end().then_some(at);
        if change.leaves_line && kept.head.line.take().is_some() {
            self.lines.remove(&(shard, run));
        }
        if change.state < HeadState::Waiting {
            self.live.insert((shard, run));
        } else {
            self.live.remove(&(shard, run));
        }
    }

    fn count(&mut self, entry: &Entry) {
        self.health.entries += 1;
        self.health.events += u64::from(entry.count);
    }

    pub(super) fn save_snapshot(&mut self, run: RunId, epoch: Epoch, snapshot: Snapshot) -> Result<(), StoreError> {
        check::epoch(run.shard(), epoch, self.shards.epoch(run.shard()))?;
        let kept = self.runs.get_mut(&run).ok_or(StoreError::UnknownRun(run))?;
        check::snapshot(run, kept.next(), snapshot.seq)?;
        if kept.snapshot.as_ref().is_none_or(|there| there.seq < snapshot.seq) {
            kept.snapshot = Some(snapshot);
        }
        Ok(())
    }

    pub(super) fn load(&self, run: RunId, from_start: bool) -> Option<StoredRun> {
        let kept = self.runs.get(&run)?;
        let snapshot = kept.snapshot.clone().filter(|_| !from_start);
        let after = snapshot.as_ref().map_or(Seq(0), |snapshot| snapshot.seq);
        Some(StoredRun { head: kept.head.clone(), snapshot, entries: kept.after(after).cloned().collect() })
    }

    pub(super) fn head(&self, run: RunId) -> Option<RunHead> {
        self.runs.get(&run).map(|kept| kept.head.clone())
    }

    pub(super) fn entries(&self, run: RunId, after: Seq, limit: usize) -> Vec<Entry> {
        self.runs.get(&run).map_or_else(Vec::new, |kept| kept.after(after).take(limit).cloned().collect())
    }

    pub(super) fn list(&self, query: &RunQuery) -> Vec<RunHead> {
        let fits = |head: &&RunHead| {
            head.namespace == query.namespace
                && query.workflow.as_ref().is_none_or(|workflow| head.workflow == *workflow)
                && (query.states.is_empty() || query.states.contains(&head.state))
                && query.tag.as_ref().is_none_or(|tag| head.tags.contains(tag))
                && query.created_from.is_none_or(|from| head.created_at >= from)
                && query.created_before.is_none_or(|before| head.created_at < before)
                && query.before.is_none_or(|before| head.run < before)
                && (!query.holding || (head.state.is_end() && head.line.is_some()))
        };
        let newest_first = self.runs.values().rev().map(|kept| &kept.head);
        newest_first.filter(fits).take(query.limit.clamp(1, check::MAX_PAGE) as usize).cloned().collect()
    }

    pub(super) fn unfinished(&self, shard: ShardId, after: Option<RunId>, limit: usize) -> Vec<RunId> {
        let of_shard = self.live.range((shard, RunId::from_bytes([0; 16]))..);
        let of_shard = of_shard.take_while(|(its, _)| *its == shard).map(|(_, run)| *run);
        of_shard.filter(|run| after.is_none_or(|after| *run > after)).take(limit).collect()
    }

    pub(super) fn lines(&self, shard: ShardId, after: Option<RunId>, limit: usize) -> Vec<RunHead> {
        let of_shard = self.lines.range((shard, RunId::from_bytes([0; 16]))..);
        let of_shard = of_shard.take_while(|(its, _)| *its == shard).map(|(_, run)| *run);
        let after = of_shard.filter(|run| after.is_none_or(|after| *run > after));
        after.filter_map(|run| self.head(run)).take(limit).collect()
    }

    pub(super) fn line_head(&self, shard: ShardId, line: [u8; 16]) -> Option<RunHead> {
        let of_line = |head: &RunHead| head.line.filter(|its| its.line == line).map(|its| its.place);
        let heads = self.lines(shard, None, usize::MAX).into_iter();
        heads.filter_map(|head| Some((of_line(&head)?, head))).min_by_key(|(place, _)| *place).map(|(_, head)| head)
    }

    pub(super) fn counts(&self) -> Vec<(HeadState, u64)> {
        let count = |state| self.runs.values().filter(|kept| kept.head.state == state).count() as u64;
        HeadState::ALL.iter().map(|(state, _)| (*state, count(*state))).collect()
    }

    pub(super) fn retain(&mut self, ended_before: Timestamp, now: Timestamp, limit: usize) -> u64 {
        let ended =
            |kept: &&Kept| kept.head.line.is_none() && kept.head.finished_at.is_some_and(|at| at < ended_before);
        let gone: BTreeSet<RunId> = self.runs.values().filter(ended).map(|kept| kept.head.run).take(limit).collect();
        self.runs.retain(|run, _| !gone.contains(run));
        let runs = &self.runs;
        // Bytes may have been put for a run that was never admitted: they go when the run could have ended.
        let horizon = RunId::new(ended_before, ShardId(0), 0);
        self.blobs.retain(|_, (_, users)| {
            users.retain(|run| !gone.contains(run) && (*run >= horizon || runs.contains_key(run)));
            !users.is_empty()
        });
        self.keys.retain(|_, (key, _)| key.expires_at >= now);
        self.streams.forget(ended_before);
        gone.len() as u64
    }

    pub(super) fn wakes(&self, shard: ShardId) -> impl Iterator<Item = (Timestamp, RunId)> {
        let from = (shard, Timestamp::from_millis(i64::MIN), RunId::from_bytes([0; 16]));
        self.wakes.range(from..).take_while(move |(its, ..)| *its == shard).map(|(_, at, run)| (*at, *run))
    }

    pub(super) fn claim(&mut self, shard: ShardId, now: Duration) -> Result<Epoch, StoreError> {
        let epoch = Epoch(self.shards.epoch(shard).0 + 1);
        let row = self.shards.claimed(shard, epoch, |incarnation| self.leases.is_leased(incarnation, now))?;
        self.shards.learn(vec![row]);
        Ok(epoch)
    }

    pub(super) fn assign(&mut self, role: &Name, term: Term, plan: &[Assignment]) -> bool {
        let leads = self.leases.is_term(role, term);
        if leads {
            self.shards.learn(self.shards.assigned(plan));
        }
        leads
    }

    pub(super) fn take(&mut self, asked: &[(ShardId, Epoch)], incarnation: Incarnation) -> Vec<(ShardId, Epoch)> {
        let Some(taker) = self.leases.owner(incarnation) else { return Vec::new() };
        let taken = self.shards.taken(asked, &taker, |owner| self.leases.lives(owner));
        self.change(taken)
    }

    pub(super) fn release(&mut self, asked: &[(ShardId, Epoch)], incarnation: Incarnation) -> Vec<(ShardId, Epoch)> {
        self.change(self.shards.released(asked, incarnation))
    }

    fn change(&mut self, rows: Vec<ShardRow>) -> Vec<(ShardId, Epoch)> {
        let changed = shard_map::with_epochs(&rows);
        self.shards.learn(rows);
        changed
    }

    pub(super) fn put_definition(&mut self, new: StoredDefinition) -> PutOutcome {
        match self.definition(new.kind, &new.namespace, &new.name, Some(&new.version)) {
            Some(there) if there.document == new.document => PutOutcome::Unchanged,
            Some(_) => PutOutcome::Conflict,
            None => {
                self.definitions.push(new);
                PutOutcome::Created
            }
        }
    }

    pub(super) fn definition(
        &self,
        kind: DefinitionKind,
        namespace: &Namespace,
        name: &Name,
        version: Option<&str>,
    ) -> Option<StoredDefinition> {
        let fits = |it: &&StoredDefinition| {
            it.kind == kind
                && it.namespace == *namespace
                && it.name == *name
                && version.is_none_or(|version| it.version == version)
        };
        self.definitions.iter().rev().find(fits).cloned()
    }

    pub(super) fn definitions(&self, kind: DefinitionKind, namespace: Option<&Namespace>) -> Vec<StoredDefinition> {
        let fits = |it: &&StoredDefinition| it.kind == kind && namespace.is_none_or(|wanted| it.namespace == *wanted);
        let newest: BTreeMap<_, _> =
            self.definitions.iter().filter(fits).map(|it| ((&it.name, &it.namespace), it)).collect();
        newest.into_values().cloned().collect()
    }

    pub(super) fn put_blob(&mut self, run: RunId, blob: BlobRef, data: Bytes) {
        self.blobs.entry(blob.sha256).or_insert_with(|| (data, BTreeSet::new())).1.insert(run);
    }

    pub(super) fn blob(&self, blob: BlobRef) -> Option<Bytes> {
        self.blobs.get(&blob.sha256).map(|(data, _)| data.clone())
    }
}
