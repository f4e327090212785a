//! Which records of each shard somebody has in hand: a lane for each topic, and up to where the outbox needs no reading.
//!
//! Holds no records and sends none. What lies below the mark is forgotten by the store, or belongs to a lane that knows
//! where its first left record stands: so a look begins at the mark and passes nothing that it should see. Used by the
//! relay.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use motet_engine::id::{Epoch, ShardId};

/// The lanes of all shards.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    shards: Mutex<HashMap<ShardId, Lined>>,
}

/// What is known of a shard.
#[derive(Debug)]
struct Lined {
    epoch: Epoch,
    /// Looks begin after this position.
    read_to: u64,
    /// Rises whenever the mark went back, so that a look that is under way does not move it on.
    changes: u64,
    /// The topics in somebody's hand, with the first position that looks have passed over because of that.
    lanes: HashMap<String, Option<u64>>,
}

impl Lined {
    fn back_to(&mut self, position: u64) {
        self.read_to = self.read_to.min(position.saturating_sub(1));
        self.changes += 1;
    }
}

/// One reading of a shard's outbox.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    /// The last position that was read.
    pub(super) after: u64,
    changes: u64,
    /// The first position that nobody could be given.
    left: Option<u64>,
}

impl Look {
    /// Whether records were left to which nobody will come back by himself.
    pub(super) fn left_some(&self) -> bool {
        self.left.is_some()
    }
}

impl Lanes {
    /// Begins to read a shard.
    pub(super) fn begin(&self, shard: ShardId, epoch: Epoch) -> Look {
        let mut shards = self.lock();
        let fresh = || Lined { epoch, read_to: 0, changes: 0, lanes: HashMap::new() };
        let lined = shards.entry(shard).or_insert_with(fresh);
        if lined.epoch != epoch {
            *lined = fresh();
        }
        Look { shard, epoch, after: lined.read_to, changes: lined.changes, left: None }
    }

    /// Takes a topic in hand, whose first record stands at a position; none when somebody has it, who is told.
    pub(super) fn take(self: &Arc<Self>, look: &Look, topic: &str, first: u64) -> Option<Turn> {
        let mut shards = self.lock();
        let lined = shards.get_mut(&look.shard).filter(|lined| lined.epoch == look.epoch)?;
        if let Some(left) = lined.lanes.get_mut(topic) {
            lower(left, first);
            return None;
        }
        lined.lanes.insert(topic.to_owned(), None);
        let (lanes, topic) = (Arc::clone(self), topic.to_owned());
        Some(Turn { lanes, shard: look.shard, epoch: look.epoch, topic, left: Some(first), ended: false })
    }

    /// Passes over records of a topic that may not be sent yet, the first of which stands at a position.
    pub(super) fn pass(&self, look: &mut Look, topic: &str, first: u64) {
        let mut shards = self.lock();
        match shards.get_mut(&look.shard).and_then(|lined| lined.lanes.get_mut(topic)) {
            Some(left) => lower(left, first),
            None => lower(&mut look.left, first),
        }
    }

    /// Ends a look: the next one begins where this one came to, unless something before that is to be looked at.
    pub(super) fn end(&self, look: &Look) {
        let mut shards = self.lock();
        let lined = shards.get_mut(&look.shard);
        if let Some(lined) = lined.filter(|lined| lined.epoch == look.epoch && lined.changes == look.changes) {
            lined.read_to = look.left.map_or(look.after, |left| look.after.min(left.saturating_sub(1)));
        }
    }

    /// Has every shard read from its start.
    pub(super) fn rewind(&self) {
        self.lock().values_mut().for_each(|lined| lined.back_to(0));
    }

    /// Forgets all shards but these.
    pub(super) fn keep(&self, own: &BTreeSet<ShardId>) {
        self.lock().retain(|shard, _| own.contains(shard));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ShardId, Lined>> {
        // Each change leaves the map whole.
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lower(left: &mut Option<u64>, position: u64) {
    *left = Some(left.map_or(position, |left| left.min(position)));
}

/// A topic in hand. Dropping it frees the topic.
#[derive(Debug)]
pub(super) struct Turn {
    lanes: Arc<Lanes>,
    shard: ShardId,
    epoch: Epoch,
    topic: String,
    /// The first record that was not sent; none when all of them were.
    pub(super) left: Option<u64>,
    ended: bool,
}

impl Turn {
    /// Frees the topic; whether records of it are to be looked at.
    pub(super) fn end(mut self) -> bool {
        self.settle()
    }

    fn settle(&mut self) -> bool {
        if std::mem::replace(&mut self.ended, true) {
            return false;
        }
        let mut shards = self.lanes.lock();
        let Some(lined) = shards.get_mut(&self.shard).filter(|lined| lined.epoch == self.epoch) else { return false };
        let mut left = self.left;
        if let Some(passed) = lined.lanes.remove(&self.topic).flatten() {
            lower(&mut left, passed);
        }
        if let Some(left) = left {
            lined.back_to(left);
        }
        left.is_some()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    fn look(lanes: &Lanes) -> Look {
        lanes.begin(SHARD, Epoch(1))
    }

    /// Reads on to a position and ends; where the next look begins.
    fn read_to(lanes: &Lanes, mut look: Look, position: u64) -> u64 {
        look.after = position;
        lanes.end(&look);
        lanes.begin(SHARD, Epoch(1)).after
    }

    #[test]
    fn a_look_goes_on_where_the_last_one_ended() {
        let lanes = Arc::new(Lanes::default());
        let first = look(&lanes);
        let mut turn = lanes.take(&first, "a", 1).unwrap();
        turn.left = None;
        assert!(!turn.end());
        assert_eq!(read_to(&lanes, first, 10), 10);
        assert_eq!(lanes.begin(SHARD, Epoch(2)).after, 0, "another owner knows nothing of it");
    }

    #[test]
    fn what_was_passed_over_is_read_when_its_lane_is_free() {
        let lanes = Arc::new(Lanes::default());
        let first = look(&lanes);
        let turn = lanes.take(&first, "a", 4).unwrap();
        let mut other = lanes.take(&first, "b", 5).unwrap();
        other.left = None;
        assert_eq!(read_to(&lanes, first, 10), 10, "the lane knows what it has");
        let second = look(&lanes);
        assert!(lanes.take(&second, "a", 11).is_none());
        assert!(lanes.take(&second, "b", 12).is_none());
        assert_eq!(read_to(&lanes, second, 20), 20);
        assert!(other.end(), "its later records wait");
        assert_eq!(look(&lanes).after, 11);
        assert!(turn.end());
        assert_eq!(look(&lanes).after, 3);
    }

    #[test]
    fn a_look_does_not_pass_what_came_back_meanwhile() {
        let lanes = Arc::new(Lanes::default());
        let first = look(&lanes);
        let turn = lanes.take(&first, "a", 4).unwrap();
        assert_eq!(read_to(&lanes, first, 10), 10);
        let second = look(&lanes);
        drop(turn);
        assert_eq!(read_to(&lanes, second, 20), 3);
    }

    #[test]
    fn what_nobody_takes_is_read_again() {
        let lanes = Arc::new(Lanes::default());
        let mut first = look(&lanes);
        lanes.pass(&mut first, "a", 7);
        lanes.pass(&mut first, "b", 8);
        assert!(first.left_some());
        assert_eq!(read_to(&lanes, first, 10), 6);
        let second = look(&lanes);
        assert_eq!(read_to(&lanes, second, 10), 10);
        lanes.rewind();
        assert_eq!(look(&lanes).after, 0);
    }
}
