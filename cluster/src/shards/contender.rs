//! In which order nodes may own a shard: by rendezvous hashing of shards and nodes.
//!
//! Used by the planner, and by nodes that take the shards of a dead one.

use motet_engine::id::ShardId;

use crate::rendezvous::Item;
pub use crate::rendezvous::{Contender, order, successor};
pub(crate) use crate::rendezvous::{mix, place_in_line};

impl From<ShardId> for Item {
    fn from(shard: ShardId) -> Self {
        Self::numbered(u64::from(shard.0))
    }
}
