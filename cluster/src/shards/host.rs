//! Who serves shards on this node: what the keeper demands of the actors.
//!
//! Implemented by the actors; used by the keeper.

use std::time::Duration;

use async_trait::async_trait;
use motet_engine::id::{Epoch, ShardId};

/// Who serves shards on this node.
///
/// The keeper calls it for one shard in turn, never twice at once; but when a shard is lost, it drops the call that is
/// under way, at whichever await that waits, and calls [`ShardHost::lost`] next.
#[async_trait]
pub trait ShardHost: Send + Sync + 'static {
    /// Serve this shard from now on, under this epoch. Returns soon, when work for it is taken; recovery of its runs goes
    /// on behind. What does not return in time is treated as [`ShardHost::lost`].
    async fn take_over(&self, shard: ShardId, epoch: Epoch);

    /// Stop taking work for it, finish the handler in hand, flush, and return when nothing of it lives here; at most
    /// `patience`. What returns late is treated as [`ShardHost::lost`].
    async fn hand_over(&self, shard: ShardId, patience: Duration);

    /// It belongs to somebody else already, or may: drop everything of it at once, without writing.
    fn lost(&self, shard: ShardId);
}
