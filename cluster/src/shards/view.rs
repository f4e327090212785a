//! What a node knows: the shard table, the leases of all nodes, and what nodes tell of themselves.
//!
//! Always somewhat old. Of a shard the row with the highest epoch counts, however late it came: epochs only rise. Never
//! asks anybody. Used by the machine, which fills it, and by everything that decides from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use motet_engine::id::{Epoch, ShardId};
use motet_store::port::{Incarnation, LiveNode, MapVersion, ShardOwner, ShardRow};

use super::contender::Contender;
use super::members::Members;

/// A life that nobody fenced, as far as is known.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Life {
    node: String,
    /// Whether its lease lasted when it was last looked at.
    leased: bool,
}

/// What a node knows.
#[derive(Clone, Debug)]
pub struct View {
    own: Contender,
    incarnation: Option<Incarnation>,
    rows: Vec<ShardRow>,
    version: Option<MapVersion>,
    lives: BTreeMap<Incarnation, Life>,
    members: Arc<Members>,
    /// Nodes that may own shards as far as is known, this one excepted.
    others: Vec<Contender>,
    /// Rises with every change.
    revision: u64,
    /// Shards whose row changed since somebody asked.
    touched: BTreeSet<ShardId>,
}

impl View {
    /// Nothing is known yet but the node itself and the number of shards.
    #[must_use]
    pub fn new(own: Contender, shards: u16) -> Self {
        let free = |shard| ShardRow { shard: ShardId(shard), epoch: Epoch::default(), owner: None, target: None };
        Self {
            own,
            incarnation: None,
            rows: (0..shards).map(free).collect(),
            version: None,
            lives: BTreeMap::new(),
            members: Arc::default(),
            others: Vec::new(),
            revision: 0,
            touched: BTreeSet::new(),
        }
    }

    /// This node.
    #[must_use]
    pub fn own(&self) -> &Contender {
        &self.own
    }

    /// This node's life; none while it has no lease that it may rely on.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// The version of the table as it was last read.
    #[must_use]
    pub fn version(&self) -> Option<MapVersion> {
        self.version
    }

    /// The number of this state of the view.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All rows, by shard.
    #[must_use]
    pub fn rows(&self) -> &[ShardRow] {
        &self.rows
    }

    /// A shard's row.
    #[must_use]
    pub fn row(&self, shard: ShardId) -> Option<&ShardRow> {
        self.rows.get(usize::from(shard.0))
    }

    /// Other nodes that may own shards: those with a lease that lasts of which nothing else is known.
    #[must_use]
    pub fn others(&self) -> &[Contender] {
        &self.others
    }

    /// Whether a life has a lease that lasts, as it was last looked at; none when it is fenced.
    #[must_use]
    pub fn is_leased(&self, incarnation: Incarnation) -> Option<bool> {
        self.lives.get(&incarnation).map(|life| life.leased)
    }

    /// Takes over under which life this node works now.
    pub fn learn_own(&mut self, incarnation: Option<Incarnation>) {
        if self.incarnation != incarnation {
            self.incarnation = incarnation;
            self.sort_others();
        }
    }

    /// Takes over what was read of the table. What is older than what is known counts for nothing.
    pub fn learn_rows(&mut self, version: MapVersion, rows: Vec<ShardRow>) {
        if self.version.is_some_and(|known| known > version) {
            return;
        }
        self.version = Some(version);
        for row in rows {
            let known = self.row(row.shard);
            if known.is_some_and(|known| row.epoch >= known.epoch && row != *known) {
                self.replace(row);
            }
        }
    }

    /// Takes over what a change of this node's own made of a row, unless more is known of it by now: its target may
    /// have been changed since.
    fn learn_change(&mut self, row: ShardRow) {
        if self.row(row.shard).is_some_and(|known| row.epoch > known.epoch) {
            self.replace(row);
        }
    }

    fn replace(&mut self, row: ShardRow) {
        if let Some(there) = self.rows.get_mut(usize::from(row.shard.0)) {
            self.touched.insert(row.shard);
            *there = row;
            self.revision += 1;
        }
    }

    /// Takes over that a life of this node took shards.
    pub fn learn_taken(&mut self, taken: &[(ShardId, Epoch)], incarnation: Incarnation) {
        let node = self.own.name().to_string();
        for (shard, epoch) in taken {
            let owner = Some(ShardOwner { incarnation, node: node.clone() });
            self.learn_change(ShardRow { shard: *shard, epoch: *epoch, owner, target: Some(node.clone()) });
        }
    }

    /// Takes over that a life of this node gave shards up.
    pub fn learn_released(&mut self, released: &[(ShardId, Epoch)]) {
        for (shard, epoch) in released {
            let target = self.row(*shard).and_then(|row| row.target.clone());
            self.learn_change(ShardRow { shard: *shard, epoch: *epoch, owner: None, target });
        }
    }

    /// Takes over the leases of all nodes. Returns what is left of the one that ends first.
    pub fn learn_lives(&mut self, live: &[LiveNode]) -> Option<Duration> {
        let life = |node: &LiveNode| (node.incarnation, Life { node: node.node.clone(), leased: !node.left.is_zero() });
        let lives: BTreeMap<_, _> = live.iter().map(life).collect();
        if lives != self.lives {
            self.lives = lives;
            self.sort_others();
        }
        live.iter().map(|node| node.left).filter(|left| !left.is_zero()).min()
    }

    /// Takes over whether a life is over after it was tried to fence it.
    pub fn learn_fenced(&mut self, incarnation: Incarnation, over: bool) {
        let changed = if over {
            self.lives.remove(&incarnation).is_some()
        } else {
            self.lives.get_mut(&incarnation).is_some_and(|life| !std::mem::replace(&mut life.leased, true))
        };
        if changed {
            self.sort_others();
        }
    }

    /// Takes over what nodes tell of themselves.
    pub fn learn_members(&mut self, members: Arc<Members>) {
        if *members != *self.members {
            self.members = members;
            self.sort_others();
        }
    }

    fn sort_others(&mut self) {
        let may_own = |(incarnation, life): (&Incarnation, &Life)| {
            if !life.leased || Some(*incarnation) == self.incarnation || *life.node == **self.own.name() {
                return None;
            }
            match self.members.get(*incarnation) {
                Some(member) if !member.serves_runs || member.draining => None,
                Some(member) => Some(Contender::new(&life.node, member.weight)),
                // It lives and has not told its roles yet: waiting for it in vain costs less than taking its share.
                None => Some(Contender::new(&life.node, self.own.weight())),
            }
        };
        self.others = self.lives.iter().filter_map(may_own).collect();
        self.revision += 1;
    }

    /// The shards whose row changed since this was last asked.
    pub(super) fn take_touched(&mut self) -> BTreeSet<ShardId> {
        std::mem::take(&mut self.touched)
    }

    /// The node with this name, when it may own shards.
    pub(super) fn other(&self, name: &str) -> Option<&Contender> {
        self.others.iter().find(|other| **other.name() == *name)
    }

    /// The lives that nobody fenced, with whether their lease lasted, and what they tell of themselves.
    pub(super) fn lives(&self) -> impl Iterator<Item = (Incarnation, bool, Option<&super::members::Member>)> {
        self.lives.iter().map(|(incarnation, life)| (*incarnation, life.leased, self.members.get(*incarnation)))
    }
}
