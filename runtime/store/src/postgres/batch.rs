//! One commit as one statement in one round trip: the rows of many writes as arrays.
//!
//! The statement locks the shards' rows in key order, compares epochs and incarnations, and writes only what passes;
//! its rows tell what did not pass. Its text has the parts that the batch needs, so that a handful of texts is prepared
//! once. Decides nothing about writes. Used by the planner, which fills it, and by the writer, which runs it.

mod columns;
mod fresh;
mod outbox;
mod parts;

use motet_engine::id::{Epoch, RunId, ShardId};
use motet_engine::time::Timestamp;
use sqlx::postgres::PgArguments;

pub(super) use columns::{Fresh, Outbox};
use columns::{Heads, Later, Snapshots};
pub(super) use parts::Parts;

use super::partition::born;
use crate::StoreError;
use crate::port::{Admission, Entry, HeadChange, HeadState, Incarnation, OutboxRow, Snapshot};

/// A fence that rows stand behind: their shard, under which epoch, written by which life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Gate {
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    pub(super) incarnation: Option<Incarnation>,
}

/// Rows for one commit.
#[derive(Default)]
pub(super) struct Batch<'a> {
    pub(super) gates: Vec<Gate>,
    fresh: Fresh<'a>,
    later: Later<'a>,
    heads: Heads,
    snapshots: Snapshots<'a>,
    outbox: Outbox<'a>,
    /// Digest, run and bytes.
    blobs: Vec<([u8; 32], [u8; 16], &'a [u8])>,
    pub(super) entries: u64,
    pub(super) events: u64,
}

impl<'a> Batch<'a> {
    /// The number of a fence; it is put up when it is not there.
    pub(super) fn gate(&mut self, gate: Gate) -> i32 {
        let place = self.gates.iter().position(|there| *there == gate).unwrap_or_else(|| {
            self.gates.push(gate);
            self.gates.len() - 1
        });
        i32::try_from(place).unwrap_or(i32::MAX)
    }

    pub(super) fn run(&mut self, admission: &'a Admission, head: HeadChange) -> Result<(), StoreError> {
        self.fresh.push(admission, head)?;
        for row in &admission.outbox {
            self.outbox.push(None, admission.run, row)?;
        }
        self.count(&admission.entry);
        Ok(())
    }

    pub(super) fn entry(&mut self, gate: i32, run: RunId, entry: &'a Entry) {
        let later = &mut self.later;
        later.gates.push(gate);
        later.born.push(born(run));
        later.runs.push(run.to_bytes());
        later.seqs.push(entry.seq.0.cast_signed());
        later.counts.push(entry.count.cast_signed());
        later.at.push(entry.at.as_millis());
        later.payloads.push(&entry.payload);
        self.count(entry);
    }

    fn count(&mut self, entry: &Entry) {
        self.entries += 1;
        self.events += u64::from(entry.count);
    }

    pub(super) fn head(&mut self, gate: i32, run: RunId, old: HeadState, head: HeadChange, at: Timestamp) {
        self.heads.gates.push(gate);
        self.heads.runs.push(run.to_bytes());
        self.heads.old.push(old as i16);
        self.heads.states.push(head.state as i16);
        self.heads.finished.push(head.state.is_end().then(|| at.as_millis()));
        self.heads.wakes.push(head.wake_at.map(Timestamp::as_millis));
        self.heads.leaves.push(head.leaves_line);
    }

    pub(super) fn snapshot(&mut self, gate: i32, run: RunId, snapshot: &'a Snapshot) {
        self.snapshots.gates.push(gate);
        self.snapshots.runs.push(run.to_bytes());
        self.snapshots.seqs.push(snapshot.seq.0.cast_signed());
        self.snapshots.schemas.push(snapshot.schema.cast_signed());
        self.snapshots.states.push(&snapshot.state);
    }

    pub(super) fn outbox(&mut self, gate: i32, run: RunId, row: &'a OutboxRow) -> Result<(), StoreError> {
        self.outbox.push(Some(gate), run, row)
    }

    pub(super) fn blob(&mut self, run: RunId, sha256: [u8; 32], data: &'a [u8]) {
        self.blobs.push((sha256, run.to_bytes(), data));
    }

    /// The days on which the admitted runs were born.
    pub(super) fn days(&self) -> impl Iterator<Item = i32> + use<'_, 'a> {
        self.fresh.days()
    }

    /// The whole commit as one text with its arguments; none when there is nothing to write. Its rows are
    /// (0, number of the gate that did not open, the shard's epoch, whether the epoch fits) and (1, run whose key was
    /// free).
    pub(super) fn statement(&self, slot: i32) -> Result<Option<(String, PgArguments)>, StoreError> {
        if self.gates.is_empty() && self.fresh.is_empty() && self.blobs.is_empty() {
            return Ok(None);
        }
        let mut parts = Parts::default();
        self.gates_part(&mut parts)?;
        if !self.fresh.is_empty() {
            self.fresh.part(&mut parts)?;
        }
        self.later_part(&mut parts)?;
        self.outbox.part(&mut parts)?;
        self.blobs_part(&mut parts)?;
        if !self.fresh.is_empty() || !self.heads.runs.is_empty() {
            parts.counts(slot, !self.fresh.is_empty(), !self.heads.runs.is_empty())?;
        }
        let mut answers = Vec::new();
        if !self.gates.is_empty() {
            answers.push("select 0, gate, epoch, owns, null::bytea from gate where not (owns and lives)");
        }
        if self.fresh.is_keyed() {
            answers.push("select 1, 0, 0::bigint, false, run from taken");
        }
        if answers.is_empty() {
            answers.push("select 0, 0, 0::bigint, false, null::bytea where false");
        }
        Ok(Some((format!("with {}\n{}", parts.text, answers.join(" union all ")), parts.arguments)))
    }

    fn gates_part(&self, parts: &mut Parts) -> Result<(), StoreError> {
        let ungated = self.outbox.ungated();
        let shards: Vec<i16> = self.gates.iter().map(|gate| gate.shard.0.cast_signed()).collect();
        let locked: Vec<i16> = shards.iter().copied().chain(ungated).collect();
        if self.gates.is_empty() {
            return if locked.is_empty() { Ok(()) } else { parts.locks(locked, true, "") };
        }
        let epochs: Vec<i64> = self.gates.iter().map(|gate| gate.epoch.0.cast_signed()).collect();
        let lives: Vec<Option<i64>> =
            self.gates.iter().map(|gate| gate.incarnation.map(|its| its.0.cast_signed())).collect();
        let lives = parts.add(lives)?;
        parts.part(&format!(
            "life as materialized (select number from incarnation where number = any({lives}) and not fenced
               order by number for share)"
        ));
        parts.locks(locked, !self.outbox.is_empty(), "")?;
        let text = format!(
            "gate as materialized (select asked.gate::integer - 1 as gate, coalesce(locked.epoch, 0) as epoch,
                 coalesce(locked.epoch, 0) = asked.epoch as owns,
                 asked.life is null or asked.life in (select number from life) as lives
               from unnest({shards}, {epochs}, {lives}) with ordinality as asked(shard, epoch, life, gate)
               left join locked on locked.shard = asked.shard),
             opened as materialized (select gate from gate where owns and lives)",
            shards = parts.add(shards)?,
            epochs = parts.add(epochs)?,
        );
        parts.part(&text);
        Ok(())
    }

    fn later_part(&self, parts: &mut Parts) -> Result<(), StoreError> {
        let Self { later, heads, snapshots, .. } = self;
        if !later.runs.is_empty() {
            let columns = [
                parts.add(&later.gates)?,
                parts.add(&later.born)?,
                parts.add(&later.runs)?,
                parts.add(&later.seqs)?,
                parts.add(&later.counts)?,
                parts.add(&later.at)?,
                parts.add(&later.payloads)?,
            ];
            parts.part(&format!(
                "later as (insert into journal (born, run, seq, count, at, payload)
                   select born, run, seq, count, at, payload
                   from unnest({}) as l(gate, born, run, seq, count, at, payload)
                   where gate in (select gate from opened))",
                columns.join(", ")
            ));
        }
        if !heads.runs.is_empty() {
            let columns = [
                parts.add(&heads.gates)?,
                parts.add(&heads.runs)?,
                parts.add(&heads.old)?,
                parts.add(&heads.states)?,
                parts.add(&heads.finished)?,
                parts.add(&heads.wakes)?,
                parts.add(&heads.leaves)?,
            ];
            parts.part(&format!(
                "changed as (update run
                   set state = head.state, finished_at = head.finished_at, wake_at = head.wake_at,
                     line = case when head.leaves then null else run.line end,
                     place = case when head.leaves then null else run.place end
                   from unnest({}) as head(gate, run, old, state, finished_at, wake_at, leaves)
                   where run.id = head.run and head.gate in (select gate from opened)
                   returning head.old, run.state)",
                columns.join(", ")
            ));
        }
        if !snapshots.runs.is_empty() {
            let columns = [
                parts.add(&snapshots.gates)?,
                parts.add(&snapshots.runs)?,
                parts.add(&snapshots.seqs)?,
                parts.add(&snapshots.schemas)?,
                parts.add(&snapshots.states)?,
            ];
            parts.part(&format!(
                "pictured as (insert into snapshot as kept (run, seq, schema, state)
                   select run, seq, schema, state from unnest({}) as s(gate, run, seq, schema, state)
                   where gate in (select gate from opened)
                   on conflict (run) do update set seq = excluded.seq, schema = excluded.schema, state = excluded.state
                   where excluded.seq > kept.seq)",
                columns.join(", ")
            ));
        }
        Ok(())
    }

    fn blobs_part(&self, parts: &mut Parts) -> Result<(), StoreError> {
        if self.blobs.is_empty() {
            return Ok(());
        }
        let mut sorted = self.blobs.clone();
        sorted.sort_unstable_by_key(|(sha256, ..)| *sha256);
        let uses = [
            parts.add(sorted.iter().map(|(_, run, _)| *run).collect::<Vec<_>>())?,
            parts.add(sorted.iter().map(|(sha256, ..)| *sha256).collect::<Vec<_>>())?,
        ];
        sorted.dedup_by_key(|(sha256, ..)| *sha256);
        let bytes = [
            parts.add(sorted.iter().map(|(sha256, ..)| *sha256).collect::<Vec<_>>())?,
            parts.add(sorted.iter().map(|(_, _, data)| *data).collect::<Vec<_>>())?,
        ];
        // Bytes that are there are locked all the same: forgetting them waits, and then sees the new use.
        parts.part(&format!(
            "stored as (insert into blob (sha256, data) select * from unnest({})
               on conflict (sha256) do update set sha256 = excluded.sha256),
             used as (insert into blob_use (run, sha256) select * from unnest({}) on conflict do nothing)",
            bytes.join(", "),
            uses.join(", ")
        ));
        Ok(())
    }
}
