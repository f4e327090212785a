//! Which node owns which shard, under which epoch, and where the leader wants it to be.
//!
//! The table is the truth and every change of it compares before it sets, so that any number of nodes and leaders may
//! try at once. Never looks at clocks: whether an owner's lease has run out is decided when it is fenced. Implemented
//! by every store; used by the cluster, and by a node that runs alone.

use async_trait::async_trait;
use motet_engine::id::{Epoch, Name, ShardId};

use super::{Incarnation, Term};
use crate::StoreError;

/// Number of a state of the shard table: rises with every change of an owner or a target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MapVersion(pub u64);

/// Who owns a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardOwner {
    /// The boot that took the shard.
    pub incarnation: Incarnation,
    /// Its node's name.
    pub node: String,
}

/// A row of the shard table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardRow {
    /// The shard.
    pub shard: ShardId,
    /// Its epoch; writes under any other are refused.
    pub epoch: Epoch,
    /// Its owner, who may be fenced by now. None before anybody took it, after a release, and while a node that runs
    /// alone has claimed it.
    pub owner: Option<ShardOwner>,
    /// The node that shall own it; its owner's own name unless the leader wants it to move.
    pub target: Option<String>,
}

/// What the leader wants to become of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// The shard.
    pub shard: ShardId,
    /// Its epoch when it was planned: a plan for a shard that has changed hands since is out of date and is dropped.
    pub epoch: Epoch,
    /// Name of the node that shall own it.
    pub target: String,
}

/// Who owns which shard, by epoch.
#[async_trait]
pub trait ShardStore: Send + Sync + 'static {
    /// Takes a shard over for a node that runs alone: raises its epoch by one and fences every earlier owner. Holds no
    /// lease, so nodes of a cluster see a shard without an owner and may take it: a node with peers uses
    /// [`ShardStore::take`] instead. Refused while an owner has a lease that lasts.
    async fn claim(&self, shard: ShardId, owner: &str) -> Result<Epoch, StoreError>;

    /// The shard's present epoch; 0 before the first owner.
    async fn epoch(&self, shard: ShardId) -> Result<Epoch, StoreError>;

    /// The version of the shard table. Cheap: one row.
    async fn map_version(&self) -> Result<MapVersion, StoreError>;

    /// The version of the shard table, and of its first `count` shards those that changed after a version, or all of
    /// them, in order; all as of one moment.
    async fn shards(&self, count: u16, after: Option<MapVersion>) -> Result<(MapVersion, Vec<ShardRow>), StoreError>;

    /// Writes a leader's plan. False, and nothing is changed, when its term is over. Owners go on until they hand over.
    async fn assign(&self, role: &Name, term: Term, plan: &[Assignment]) -> Result<bool, StoreError>;

    /// Takes shards over, those of them that still have the epoch named beside them and no owner, or one that is
    /// fenced. Each one's epoch rises by one, and its target becomes the taker. Nothing is taken by a life that is
    /// fenced. Returns what was taken with the new epochs, in order.
    async fn take(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError>;

    /// Gives shards up, those of them that this life still owns under the epoch named beside them. Each one's epoch
    /// rises by one, so that nothing more is written under the one that ended; nobody is given the new one, and the
    /// next owner raises it again. Returns what was given up with the new epochs, in order.
    async fn release(
        &self,
        shards: &[(ShardId, Epoch)],
        incarnation: Incarnation,
    ) -> Result<Vec<(ShardId, Epoch)>, StoreError>;
}
