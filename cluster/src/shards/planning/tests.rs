//! When the leader moves shards, and when it leaves them.

use std::time::Duration;

use motet_store::port::ShardOwner;

use super::*;
use crate::shards::members::Member;

const SHARDS: u16 = 30;

fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds))
}

/// The n-th node has the n-th life.
fn name(life: u64) -> String {
    format!("node-{life}")
}

fn lives(of: &[(u64, u64)]) -> Vec<LiveNode> {
    let life = |(life, left): &(u64, u64)| LiveNode {
        incarnation: Incarnation(*life),
        node: name(*life),
        address: String::new(),
        left: Duration::from_secs(*left),
    };
    of.iter().map(life).collect()
}

fn members(of: &[(u64, bool)]) -> Arc<Members> {
    let member = |(life, draining): &(u64, bool)| Member {
        node: name(*life),
        incarnation: Incarnation(*life),
        weight: 1,
        serves_runs: true,
        draining: *draining,
        heard: true,
    };
    Arc::new(of.iter().map(member).collect())
}

fn owned(shard: u16, epoch: u64, life: u64, target: u64) -> ShardRow {
    let owner = Some(ShardOwner { incarnation: Incarnation(life), node: name(life) });
    ShardRow { shard: ShardId(shard), epoch: Epoch(epoch), owner, target: Some(name(target)) }
}

/// A leader's view, looked at again and again.
struct Leader {
    planning: Planning,
    version: u64,
}

impl Leader {
    fn new() -> Self {
        Self { planning: Planning::new(ShardSettings::new(SHARDS)), version: 0 }
    }

    fn look(&mut self, second: u64, rows: Vec<ShardRow>, live: &[(u64, u64)], told: &[(u64, bool)]) -> Vec<Assignment> {
        self.version += 1;
        self.planning.learn((MapVersion(self.version), rows), &lives(live), members(told), at(second));
        self.planning.plan(at(second))
    }
}

#[test]
fn moves_wait_until_nodes_have_settled_and_the_dead_do_not() {
    let mut leader = Leader::new();
    let all = |life| (0..SHARDS).map(|shard| owned(shard, 1, life, life)).collect::<Vec<_>>();
    let both = [(1, 3), (2, 3)];
    assert_eq!(leader.look(0, all(1), &both, &[(1, false), (2, false)]), []);
    assert_eq!(leader.look(4, vec![], &both, &[(1, false), (2, false)]), []);
    let plan = leader.look(5, vec![], &both, &[(1, false), (2, false)]);
    assert_eq!(plan.len(), 15, "the second one gets its share");
    assert!(plan.iter().all(|new| new.target == name(2) && new.epoch == Epoch(1)));
    // A third one comes: all begins anew, but the first one's death does not wait for it.
    let three = [(1, 0), (2, 3), (3, 3)];
    let told = [(1, false), (2, false), (3, false)];
    let plan = leader.look(6, vec![], &three, &told);
    assert_eq!(plan.len(), usize::from(SHARDS), "everything was the dead one's: {plan:?}");
    assert!(plan.iter().all(|new| new.target != name(1)));
    assert_eq!(leader.planning.expired().collect::<Vec<_>>(), [Incarnation(1)]);
}

#[test]
fn who_tells_nothing_or_drains_gets_nothing() {
    let mut leader = Leader::new();
    let rows: Vec<_> = (0..SHARDS).map(|shard| owned(shard, 1, 1, 1)).collect();
    let live = [(1, 3), (2, 3), (3, 3)];
    leader.look(0, rows, &live, &[(1, false), (3, true)]);
    assert_eq!(leader.look(9, vec![], &live, &[(1, false), (3, true)]), [], "nobody knows what the second one is");
    leader.look(10, vec![], &live, &[(1, true), (2, false), (3, true)]);
    let plan = leader.look(15, vec![], &live, &[(1, true), (2, false), (3, true)]);
    assert_eq!(plan.len(), usize::from(SHARDS));
    assert!(plan.iter().all(|new| new.target == name(2)));
}

#[test]
fn a_node_that_takes_nothing_is_left_in_peace_for_a_while() {
    let mut leader = Leader::new();
    let (live, told) = ([(1, 3), (2, 3)], [(1, false), (2, false)]);
    let rows: Vec<_> = (0..SHARDS).map(|shard| owned(shard, 1, 1, 1)).collect();
    leader.look(0, rows, &live, &told);
    let plan = leader.look(5, vec![], &live, &told);
    assert_eq!(plan.len(), 15);
    // The first one hands over, nobody comes, and it takes its shards again.
    let again =
        |plan: &[Assignment], epoch| -> Vec<_> { plan.iter().map(|new| owned(new.shard.0, epoch, 1, 1)).collect() };
    assert_eq!(leader.look(6, again(&plan[..2], 3), &live, &told).len(), 15, "that may happen");
    assert_eq!(leader.look(7, again(&plan, 5), &live, &told), []);
    assert_eq!(leader.look(36, vec![], &live, &told), []);
    let plan = leader.look(37, vec![], &live, &told);
    assert_eq!(plan.len(), 15, "it may have changed its mind");
    let taken: Vec<_> = plan.iter().map(|new| owned(new.shard.0, 7, 2, 2)).collect();
    assert_eq!(leader.look(38, taken, &live, &told), []);
    assert!(leader.planning.vain.is_empty() && leader.planning.wanted.is_empty());
}
