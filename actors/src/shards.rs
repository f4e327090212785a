//! The shards that this node serves, and under which epochs.
//!
//! Knows nothing of other nodes and decides nothing: whoever claims and releases shards tells. Used by `runs`, and
//! through it by timers, recovery and schedules.

use std::sync::atomic::{AtomicU64, Ordering};

use motet_engine::id::{Epoch, ShardId};

/// Every shard there is, with the epoch of this node or none.
#[derive(Debug)]
pub(crate) struct OwnShards {
    /// 0 where the shard is not this node's.
    epochs: Vec<AtomicU64>,
}

impl OwnShards {
    /// None of `count` shards.
    pub(crate) fn new(count: u16) -> Self {
        Self { epochs: (0..count).map(|_| AtomicU64::new(0)).collect() }
    }

    /// How many shards there are.
    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.epochs.len()).unwrap_or(u16::MAX)
    }

    /// The shard is this node's from now on.
    pub(crate) fn take(&self, shard: ShardId, epoch: Epoch) {
        if let Some(slot) = self.epochs.get(usize::from(shard.0)) {
            slot.store(epoch.0, Ordering::Release);
        }
    }

    /// The shard is not this node's any more; whether it was.
    pub(crate) fn give_up(&self, shard: ShardId) -> bool {
        self.epochs.get(usize::from(shard.0)).is_some_and(|slot| slot.swap(0, Ordering::AcqRel) > 0)
    }

    /// The epoch under which this node serves a shard; none when it does not.
    pub(crate) fn epoch(&self, shard: ShardId) -> Option<Epoch> {
        let epoch = self.epochs.get(usize::from(shard.0))?.load(Ordering::Acquire);
        (epoch > 0).then_some(Epoch(epoch))
    }

    /// The shards of this node, in order.
    pub(crate) fn own(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0..self.count()).map(ShardId).filter(|shard| self.epoch(*shard).is_some())
    }

    /// One of this node's shards, by a random number; none when it has none.
    pub(crate) fn any(&self, drawn: u64) -> Option<ShardId> {
        let count = self.epochs.len() as u64;
        let first = drawn.checked_rem(count)?;
        // Nearly always the first one tried, since a node that takes runs mostly has many shards, or all of them.
        (first..count)
            .chain(0..first)
            .filter_map(|shard| u16::try_from(shard).ok())
            .map(ShardId)
            .find(|shard| self.epoch(*shard).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_served_until_it_is_given_up() {
        let shards = OwnShards::new(4);
        assert_eq!((shards.own().count(), shards.any(7), shards.epoch(ShardId(9))), (0, None, None));
        shards.take(ShardId(1), Epoch(3));
        shards.take(ShardId(3), Epoch(1));
        assert_eq!(shards.epoch(ShardId(1)), Some(Epoch(3)));
        assert_eq!(shards.own().collect::<Vec<_>>(), [ShardId(1), ShardId(3)]);
        for (drawn, found) in [(0, 1), (1, 1), (2, 3), (3, 3), (4, 1)] {
            assert_eq!(shards.any(drawn), Some(ShardId(found)), "drawn {drawn}");
        }
        assert!(shards.give_up(ShardId(1)) && !shards.give_up(ShardId(1)));
        assert_eq!(shards.any(0), Some(ShardId(3)));
    }
}
