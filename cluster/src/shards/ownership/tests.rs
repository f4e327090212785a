//! What a node does about shards, case by case.

use std::sync::Arc;
use std::time::Duration;

use motet_store::port::{LiveNode, MapVersion, ShardOwner};

use super::*;
use crate::shards::contender::{Contender, order};
use crate::shards::members::{Member, Members};

/// The node under test, and its life.
const OWN: &str = "own";
const LIFE: Incarnation = Incarnation(10);

/// The other nodes have the lives 11, 12, ...
const OTHERS: [&str; 3] = ["b", "c", "d"];

fn at(millis: u64) -> Moment {
    Moment::new(Duration::from_millis(1_000_000 + millis))
}

fn settings() -> ShardSettings {
    ShardSettings { max_moves_at_once: 2, ..ShardSettings::new(8) }
}

fn life_of(node: &str) -> Incarnation {
    let place = OTHERS.iter().position(|other| *other == node);
    place.map_or(LIFE, |place| Incarnation(11 + place as u64))
}

fn row(shard: u16, epoch: u64, owner: Option<&str>, target: Option<&str>) -> ShardRow {
    let owner = owner.map(|node| ShardOwner { incarnation: life_of(node), node: node.to_owned() });
    ShardRow { shard: ShardId(shard), epoch: Epoch(epoch), owner, target: target.map(str::to_owned) }
}

/// Nodes with what is left of their leases, in seconds.
fn lives(of: &[(&str, u64)]) -> Vec<LiveNode> {
    let life = |(node, left): &(&str, u64)| LiveNode {
        incarnation: life_of(node),
        node: (*node).to_owned(),
        address: String::new(),
        left: Duration::from_secs(*left),
    };
    of.iter().map(life).collect()
}

struct Node {
    view: View,
    ownership: Ownership,
    version: u64,
}

impl Node {
    /// A registered node that has looked at a table in which nothing is free.
    fn new(live: &[(&str, u64)]) -> Self {
        let mut node = Self {
            view: View::new(Contender::new(OWN, 1), 8),
            ownership: Ownership::new(settings(), true),
            version: 0,
        };
        node.view.learn_own(Some(LIFE));
        node.view.learn_lives(&lives(live));
        node.read((0..8).map(|shard| row(shard, 1, Some("b"), Some("b"))).collect());
        node
    }

    fn read(&mut self, rows: Vec<ShardRow>) {
        self.version += 1;
        self.view.learn_rows(MapVersion(self.version), rows);
    }

    fn step(&mut self, millis: u64) -> Vec<Action> {
        self.ownership.step(&self.view, at(millis))
    }

    /// A node that serves a shard under epoch 5.
    fn serving(shard: u16, live: &[(&str, u64)]) -> Self {
        let mut node = Self::new(live);
        node.read(vec![row(shard, 5, Some(OWN), Some(OWN))]);
        assert_eq!(node.step(0), [Action::TakeOver { shard: ShardId(shard), epoch: Epoch(5) }]);
        node.ownership.took_over(ShardId(shard), Epoch(5));
        assert_eq!(node.step(0), []);
        assert_eq!(node.ownership.serving(ShardId(shard)), Some(Epoch(5)));
        node
    }
}

const ALL: [(&str, u64); 4] = [(OWN, 3), ("b", 3), ("c", 3), ("d", 3)];

/// A shard in whose order this node stands at a place among all.
fn shard_with_place(place: usize) -> u16 {
    let nodes: Vec<_> = [OWN].iter().chain(&OTHERS).map(|name| Contender::new(name, 1)).collect();
    (0..8).find(|shard| &**order(ShardId(*shard), &nodes)[place].name() == OWN).unwrap()
}

#[test]
fn free_shards_are_taken_in_turn() {
    for (place, wait) in [(0, 0), (1, 500), (2, 1_000), (3, 1_500)] {
        let shard = shard_with_place(place);
        let mut node = Node::new(&ALL);
        node.read(vec![row(shard, 4, None, None)]);
        if wait > 0 {
            assert_eq!(node.step(0), [], "{place}");
            assert_eq!(node.ownership.wake_at(), Some(at(wait)), "{place}");
            assert_eq!(node.step(wait - 1), [], "{place}");
        }
        assert_eq!(node.step(wait), [Action::Take(vec![(ShardId(shard), Epoch(4))])], "{place}");
        assert_eq!(node.step(wait + 5_000), [], "it has been asked for");
        // The others have gone meanwhile, or are known not to serve runs: then nobody is waited for.
        for told in [lives(&[(OWN, 3), ("b", 3)]), lives(&ALL)] {
            let mut node = Node::new(&ALL);
            node.read(vec![row(shard, 4, None, None)]);
            let no_runs = |life: &LiveNode| Member {
                node: life.node.clone(),
                incarnation: life.incarnation,
                weight: 1,
                serves_runs: life.node == "b" && told.len() == 2,
                draining: true,
                heard: true,
            };
            let members: Members = told.iter().filter(|life| life.incarnation != LIFE).map(no_runs).collect();
            node.view.learn_lives(&told);
            node.view.learn_members(Arc::new(members));
            assert_eq!(node.step(0), [Action::Take(vec![(ShardId(shard), Epoch(4))])], "{place}");
        }
    }
}

#[test]
fn the_leaders_choice_goes_before_the_order() {
    let (first, last) = (shard_with_place(0), shard_with_place(3));
    for (what, shard, target, live, wait) in [
        ("this node is named", last, OWN, &ALL[..], 0),
        ("another one is named, and then this one comes", first, "c", &ALL[..], 500),
        ("the one that is named is gone", first, "c", &[(OWN, 3), ("b", 3), ("c", 0)][..], 0),
        ("the one that is named was never heard of", first, "x", &ALL[..], 0),
    ] {
        let mut node = Node::new(live);
        node.read(vec![row(shard, 4, None, Some(target))]);
        let before = node.step(0);
        let taken = Action::Take(vec![(ShardId(shard), Epoch(4))]);
        if wait == 0 {
            assert_eq!(before, [taken], "{what}");
        } else {
            assert_eq!((before, node.step(wait)), (vec![], vec![taken]), "{what}");
        }
    }
}

#[test]
fn shards_of_the_dead_are_taken_when_they_are_fenced() {
    let shard = shard_with_place(0);
    let mut node = Node::new(&ALL);
    node.read(vec![row(shard, 4, Some("c"), Some("c"))]);
    assert_eq!(node.step(0), [], "its owner lives");
    node.view.learn_lives(&lives(&[(OWN, 3), ("b", 3), ("c", 0), ("d", 3)]));
    assert_eq!(node.step(1), [Action::Fence(life_of("c"))]);
    assert_eq!(node.step(2), [], "that has been asked for");
    // It was prolonged at the last moment, and then it ends after all.
    node.view.learn_fenced(life_of("c"), false);
    node.ownership.fence_answered(life_of("c"), true, at(3));
    assert_eq!(node.step(3), []);
    node.view.learn_lives(&lives(&[(OWN, 3), ("b", 3), ("c", 0), ("d", 3)]));
    assert_eq!(node.step(50), [], "so soon after an answer in vain nothing is asked");
    assert_eq!(node.ownership.wake_at(), Some(at(103)));
    assert_eq!(node.step(103), [Action::Fence(life_of("c"))]);
    node.view.learn_fenced(life_of("c"), true);
    node.ownership.fence_answered(life_of("c"), false, at(104));
    assert_eq!(node.step(104), [Action::Take(vec![(ShardId(shard), Epoch(4))])]);
    node.view.learn_taken(&[(ShardId(shard), Epoch(5))], LIFE);
    node.ownership.take_answered(false, at(105));
    assert_eq!(node.step(105), [Action::TakeOver { shard: ShardId(shard), epoch: Epoch(5) }]);
}

#[test]
fn what_another_node_shall_have_is_handed_over_and_given_up() {
    let mut node = Node::serving(2, &ALL);
    let shard = ShardId(2);
    node.read(vec![row(2, 5, Some(OWN), Some("x"))]);
    assert_eq!(node.step(1), [], "nobody of that name lives");
    node.read(vec![row(2, 5, Some(OWN), Some("c"))]);
    assert_eq!(node.step(2), [Action::HandOver { shard, epoch: Epoch(5) }]);
    assert_eq!(node.ownership.serving(shard), None);
    node.ownership.handed_over(shard, Epoch(5));
    assert_eq!(node.step(3), [Action::Release(vec![(shard, Epoch(5))])]);
    // The answer is lost, and the leader has changed its mind: what was handed over is not served again all the same.
    node.read(vec![row(2, 5, Some(OWN), Some(OWN))]);
    node.ownership.release_answered(true, at(4));
    assert_eq!(node.step(104), [Action::Release(vec![(shard, Epoch(5))])]);
    node.view.learn_released(&[(shard, Epoch(6))]);
    node.ownership.release_answered(false, at(105));
    assert_eq!(node.step(105), [Action::Take(vec![(shard, Epoch(6))])], "it is free, and named for this node");
    assert_eq!(node.ownership.held(), 0);
}

#[test]
fn what_the_table_says_to_be_this_nodes_is_served() {
    let mut node = Node::new(&ALL);
    // The answer to a take was lost: only the table tells.
    node.read(vec![row(3, 9, Some(OWN), Some(OWN)), row(4, 9, Some(OWN), Some("c"))]);
    let served = Action::TakeOver { shard: ShardId(3), epoch: Epoch(9) };
    let given = Action::Release(vec![(ShardId(4), Epoch(9))]);
    assert_eq!(node.step(0), [served, given], "what is to be another's is given up without being served");
    // An old answer tells nothing.
    node.view.learn_rows(MapVersion(1), vec![row(3, 8, Some("b"), Some("b"))]);
    node.view.learn_rows(MapVersion(9), vec![row(3, 8, Some("b"), Some("b"))]);
    assert_eq!(node.step(1), []);
}

#[test]
fn what_is_another_nodes_is_dropped() {
    let lost = |shard: u16| Action::Lost { shard: ShardId(shard), epoch: Epoch(5) };
    for (what, changed) in [
        ("another node owns it", row(2, 6, Some("c"), Some("c"))),
        ("nobody owns it", row(2, 6, None, None)),
        (
            "an earlier life of this node owns it",
            ShardRow {
                owner: Some(ShardOwner { incarnation: Incarnation(3), node: OWN.to_owned() }),
                ..row(2, 6, None, Some("c"))
            },
        ),
    ] {
        let mut node = Node::serving(2, &ALL);
        node.read(vec![changed]);
        assert_eq!(node.step(1).first(), Some(&lost(2)), "{what}");
        assert_eq!(node.ownership.held(), 0, "{what}");
    }
    // Without a lease nothing may be served, whatever the table says.
    let mut node = Node::serving(2, &ALL);
    node.view.learn_own(None);
    assert_eq!(node.step(1), [lost(2)]);
    node.view.learn_own(Some(Incarnation(77)));
    assert!(!node.step(2).iter().any(|action| matches!(action, Action::TakeOver { .. })), "that was an earlier life");
}

#[test]
fn who_drains_waits_for_the_leader_and_then_gives_away_by_itself() {
    let mut node = Node::serving(2, &ALL);
    node.read(vec![row(3, 5, Some(OWN), Some(OWN)), row(4, 5, Some(OWN), Some(OWN)), row(5, 7, None, None)]);
    node.step(0);
    for shard in [3, 4] {
        node.ownership.took_over(ShardId(shard), Epoch(5));
    }
    node.ownership.drain(true, at(1_000));
    assert_eq!(node.step(1_000), [], "the leader has time, and nothing more is taken");
    assert_eq!(node.ownership.wake_at(), Some(at(6_000)));
    let handed = |shard: u16| Action::HandOver { shard: ShardId(shard), epoch: Epoch(5) };
    assert_eq!(node.step(6_000), [handed(2), handed(3)], "two at once");
    node.ownership.handed_over(ShardId(2), Epoch(5));
    assert_eq!(node.step(6_001), [handed(4), Action::Release(vec![(ShardId(2), Epoch(5))])]);
    node.view.learn_released(&[(ShardId(2), Epoch(6))]);
    node.ownership.release_answered(false, at(6_002));
    assert_eq!(node.step(9_000), [], "what it gave away it does not take again");
    node.ownership.drain(false, at(9_001));
    let Some(Action::Take(asked)) = node.step(11_000).pop() else { panic!("free shards are taken again") };
    assert!(asked.contains(&(ShardId(5), Epoch(7))));
    // Where all others drain too there is nobody to give anything to, unless the node leaves.
    let mut last = Node::serving(2, &ALL);
    let drains = |life: LiveNode| Member {
        node: life.node,
        incarnation: life.incarnation,
        weight: 1,
        serves_runs: true,
        draining: true,
        heard: true,
    };
    last.view.learn_members(Arc::new(lives(&ALL).into_iter().map(drains).collect()));
    last.ownership.drain(true, at(0));
    assert_eq!(last.step(60_000), []);
    last.ownership.leave(at(60_001));
    assert_eq!(last.step(60_001), [handed(2)]);
}
