//! A writer with an epoch of the past: what a node would write that does not know yet that its shards are somebody
//! else's.
//!
//! Writes through the store's own port, as a node does, and expects to be refused each time. Used by the rows of the
//! fault matrix about clusters.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use motet_engine::id::{Epoch, RunId, Seq, ShardId};
use motet_store::StoreError;
use motet_store::port::{Append, Entry, Incarnation, RunStore, ShardRow, ShardStore, Snapshot};

/// What an owner held at some moment.
#[derive(Debug, Clone)]
pub struct Owned {
    /// Its shards, with their epochs and its life.
    pub shards: BTreeMap<ShardId, (Epoch, Incarnation)>,
}

impl Owned {
    /// What a node owns now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn by(store: &dyn ShardStore, count: u16, node: &str) -> Result<Self> {
        let (_, rows) = store.shards(count, None).await?;
        let owned = |row: ShardRow| {
            let owner = row.owner.filter(|owner| owner.node == node)?;
            Some((row.shard, (row.epoch, owner.incarnation)))
        };
        Ok(Self { shards: rows.into_iter().filter_map(owned).collect() })
    }

    /// Tries to write to a run of each of the shards as it would have been written then, once with the life of the
    /// owner and once by the epoch alone. Returns how many writes were refused: all of them.
    ///
    /// # Errors
    /// When a write is not refused for its epoch or its life.
    pub async fn write_late(&self, store: &(impl RunStore + ?Sized), runs: &BTreeMap<ShardId, RunId>) -> Result<usize> {
        let mut refused = 0;
        for (shard, (epoch, incarnation)) in &self.shards {
            let run = *runs.get(shard).with_context(|| format!("no run on shard {shard}"))?;
            let last = store.load(run, true).await?.and_then(|stored| stored.entries.last().cloned());
            let last = last.with_context(|| format!("{run} has no entry"))?;
            let next = Entry { seq: Seq(last.seq.0 + u64::from(last.count)), ..last };
            for incarnation in [Some(*incarnation), None] {
                let append =
                    Append { run, epoch: *epoch, incarnation, entry: next.clone(), head: None, outbox: vec![] };
                is_fenced(store.append(append).await, "an event")?;
                refused += 1;
            }
            let snapshot = Snapshot { seq: last.seq, schema: u32::MAX, state: vec![0].into() };
            is_fenced(store.save_snapshot(run, *epoch, snapshot).await, "a snapshot")?;
            refused += 1;
        }
        ensure!(refused > 0, "the node owned nothing");
        Ok(refused)
    }
}

fn is_fenced(written: Result<(), StoreError>, what: &str) -> Result<()> {
    match written {
        Err(StoreError::Fenced { .. } | StoreError::IncarnationFenced(_)) => Ok(()),
        other => bail!("{what} of a stale owner should be refused, and was {other:?}"),
    }
}
