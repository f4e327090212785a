//! The shard table in memory, and the rules by which it changes.
//!
//! A change is decided first and learned afterwards, so that a store may make it durable in between. Never waits and
//! knows no clock. Used by the memory store, and by the writer of SQLite, which is the only one that changes its
//! database and so remembers the table.

use std::collections::{BTreeMap, BTreeSet};

use motet_engine::id::{Epoch, MAX_SHARDS, ShardId};

use crate::StoreError;
use crate::port::{Assignment, Incarnation, MapVersion, ShardOwner, ShardRow};

/// The table. Rows that nobody ever touched are not in it.
#[derive(Debug, Default)]
pub(crate) struct ShardMap {
    rows: BTreeMap<ShardId, (ShardRow, MapVersion)>,
    version: MapVersion,
}

fn untouched(shard: ShardId) -> ShardRow {
    ShardRow { shard, epoch: Epoch::default(), owner: None, target: None }
}

impl ShardMap {
    pub(crate) fn version(&self) -> MapVersion {
        self.version
    }

    /// The version that the next change makes.
    pub(crate) fn next_version(&self) -> MapVersion {
        MapVersion(self.version.0 + 1)
    }

    pub(crate) fn row(&self, shard: ShardId) -> ShardRow {
        self.rows.get(&shard).map_or_else(|| untouched(shard), |(row, _)| row.clone())
    }

    pub(crate) fn epoch(&self, shard: ShardId) -> Epoch {
        self.rows.get(&shard).map_or_else(Epoch::default, |(row, _)| row.epoch)
    }

    /// The first rows, or those of them that changed after a version.
    pub(crate) fn rows(&self, count: u16, after: Option<MapVersion>) -> Vec<ShardRow> {
        let first = (0..count.min(MAX_SHARDS)).map(ShardId);
        match after {
            None => first.map(|shard| self.row(shard)).collect(),
            Some(after) => first
                .filter_map(|shard| self.rows.get(&shard))
                .filter(|(_, changed)| *changed > after)
                .map(|(row, _)| row.clone())
                .collect(),
        }
    }

    /// Takes rows over as they were decided: one version for all of them.
    pub(crate) fn learn(&mut self, changed: Vec<ShardRow>) {
        if !changed.is_empty() {
            self.version = self.next_version();
        }
        for row in changed {
            self.rows.insert(row.shard, (row, self.version));
        }
    }

    /// A row as the store had it when it was opened.
    pub(crate) fn restore(&mut self, row: ShardRow, changed: MapVersion) {
        self.version = self.version.max(changed);
        self.rows.insert(row.shard, (row, changed));
    }

    /// The table's version as the store had it when it was opened.
    pub(crate) fn restore_version(&mut self, version: MapVersion) {
        self.version = self.version.max(version);
    }

    /// The row of a shard that a node without peers claims, unless `leased` tells that its owner's lease lasts.
    pub(crate) fn claimed(
        &self,
        shard: ShardId,
        epoch: Epoch,
        leased: impl Fn(Incarnation) -> bool,
    ) -> Result<ShardRow, StoreError> {
        match self.row(shard).owner {
            Some(owner) if leased(owner.incarnation) => Err(owned_by_the_living(shard, &owner)),
            _ => Ok(ShardRow { epoch, ..untouched(shard) }),
        }
    }

    pub(crate) fn assigned(&self, plan: &[Assignment]) -> Vec<ShardRow> {
        let mut seen = BTreeSet::new();
        let fits = |wanted: &Assignment| {
            let row = self.row(wanted.shard);
            let new = row.epoch == wanted.epoch && row.target.as_ref() != Some(&wanted.target);
            (exists(wanted.shard) && new).then(|| ShardRow { target: Some(wanted.target.clone()), ..row })
        };
        plan.iter().filter(|wanted| seen.insert(wanted.shard)).filter_map(fits).collect()
    }

    pub(crate) fn taken(
        &self,
        asked: &[(ShardId, Epoch)],
        taker: &ShardOwner,
        lives: impl Fn(Incarnation) -> bool,
    ) -> Vec<ShardRow> {
        let free = |row: &ShardRow| row.owner.as_ref().is_none_or(|owner| !lives(owner.incarnation));
        let taken = |row: ShardRow| ShardRow {
            epoch: Epoch(row.epoch.0 + 1),
            owner: Some(taker.clone()),
            target: Some(taker.node.clone()),
            ..row
        };
        self.under_epochs(asked).into_iter().filter(free).map(taken).collect()
    }

    pub(crate) fn released(&self, asked: &[(ShardId, Epoch)], incarnation: Incarnation) -> Vec<ShardRow> {
        let owned = |row: &ShardRow| row.owner.as_ref().is_some_and(|owner| owner.incarnation == incarnation);
        let released = |row: ShardRow| ShardRow { epoch: Epoch(row.epoch.0 + 1), owner: None, ..row };
        self.under_epochs(asked).into_iter().filter(owned).map(released).collect()
    }

    /// The rows that still have the epochs named, in order, each once.
    fn under_epochs(&self, asked: &[(ShardId, Epoch)]) -> Vec<ShardRow> {
        let asked: BTreeSet<_> = asked.iter().filter(|(shard, _)| exists(*shard)).collect();
        let fits = |(shard, epoch): &(ShardId, Epoch)| Some(self.row(*shard)).filter(|row| row.epoch == *epoch);
        asked.into_iter().filter_map(fits).collect()
    }
}

fn exists(shard: ShardId) -> bool {
    shard.0 < MAX_SHARDS
}

/// Shards with their epochs, as stores answer with them.
pub(crate) fn with_epochs(rows: &[ShardRow]) -> Vec<(ShardId, Epoch)> {
    rows.iter().map(|row| (row.shard, row.epoch)).collect()
}

/// Why a node that runs alone gets no shard.
pub(crate) fn owned_by_the_living(shard: ShardId, owner: &ShardOwner) -> StoreError {
    StoreError::Refused(format!(
        "shard {shard} is owned by the node '{}' ({}), whose lease lasts: a node that runs alone cannot share its \
         store; stop the others, or let this one join their cluster",
        owner.node, owner.incarnation
    ))
}
