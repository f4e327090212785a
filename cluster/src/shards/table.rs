//! What routers see of the shard table: the home of every shard, as far as this node knows.
//!
//! Cheap to ask and often a little old: whoever is asked in vain answers where the shard has gone, and the table learns
//! it. Never asks the store. Filled by the keeper; used by routers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use motet_engine::id::{Epoch, ShardId};
use motet_store::port::{Incarnation, MapVersion};
use tokio::sync::watch;

/// Where a shard is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Home {
    /// The node's name.
    pub node: Arc<str>,
    /// Its life.
    pub incarnation: Incarnation,
    /// The epoch under which it owns the shard.
    pub epoch: Epoch,
}

/// What is known of a shard: the newest epoch, and its owner unless nobody owns it.
#[derive(Clone, Default)]
struct Known {
    epoch: Epoch,
    home: Option<Home>,
}

/// The home of every shard.
pub struct ShardTable {
    known: RwLock<Vec<Known>>,
    version: AtomicU64,
    changes: watch::Sender<u64>,
}

impl ShardTable {
    /// A table of so many shards, none of which has a home that is known.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        let known = RwLock::new(vec![Known::default(); usize::from(shards)]);
        Self { known, version: AtomicU64::new(0), changes: watch::Sender::new(0) }
    }

    /// Where a shard is served; none when nobody serves it, as far as is known, or there is no such shard.
    #[must_use]
    pub fn home(&self, shard: ShardId) -> Option<Home> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(usize::from(shard.0)).and_then(|known| known.home.clone())
    }

    /// The version of the store's table that was last read.
    #[must_use]
    pub fn version(&self) -> MapVersion {
        MapVersion(self.version.load(Ordering::Acquire))
    }

    /// Takes over what another node told; returns whether it was news. An epoch that is not newer tells nothing.
    pub fn learn(&self, shard: ShardId, home: Home) -> bool {
        self.enter([(shard, home.epoch, Some(home))])
    }

    /// A number that changes with every change of a home.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes rows over; those with epochs that are not newer tell nothing. Returns whether there was news.
    pub(super) fn enter(&self, rows: impl IntoIterator<Item = (ShardId, Epoch, Option<Home>)>) -> bool {
        let mut changed = false;
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for (shard, epoch, home) in rows {
                if let Some(there) = known.get_mut(usize::from(shard.0)).filter(|there| epoch > there.epoch) {
                    *there = Known { epoch, home };
                    changed = true;
                }
            }
        }
        if changed {
            self.changes.send_modify(|number| *number += 1);
        }
        changed
    }

    pub(super) fn set_version(&self, version: MapVersion) {
        self.version.fetch_max(version.0, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(node: &str, epoch: u64) -> Home {
        Home { node: node.into(), incarnation: Incarnation(1), epoch: Epoch(epoch) }
    }

    #[test]
    fn newer_epochs_win_whoever_tells_them() {
        let table = ShardTable::new(4);
        let changes = table.subscribe();
        let shard = ShardId(2);
        for (epoch, node, news) in
            [(3, Some("a"), true), (3, Some("b"), false), (2, Some("b"), false), (4, None, true), (5, Some("b"), true)]
        {
            let home = node.map(|node| home(node, epoch));
            assert_eq!(table.enter([(shard, Epoch(epoch), home.clone())]), news, "{epoch}");
            if news {
                assert_eq!(table.home(shard), home);
            }
        }
        assert!(!table.learn(shard, home("c", 5)) && table.learn(shard, home("c", 6)));
        assert_eq!(table.home(shard).unwrap().node.as_ref(), "c");
        assert_eq!(*changes.borrow(), 4);
        assert!(!table.learn(ShardId(4), home("c", 9)), "there is no such shard");
        assert_eq!((table.home(ShardId(4)), table.home(ShardId(0))), (None, None));
        table.set_version(MapVersion(7));
        table.set_version(MapVersion(6));
        assert_eq!(table.version(), MapVersion(7));
    }
}
