//! Properties of the plan, and its bounds as figures.

use std::collections::{BTreeMap, BTreeSet};

use motet_engine::id::Epoch;
use motet_store::port::ShardOwner;
use proptest::prelude::*;

use super::*;
use crate::shards::contender::successor;

const FREE: PlanLimits = PlanLimits { load_percent: 110, moves: usize::MAX };

/// Life n is that of the n-th node; dead ones are beyond.
fn row(shard: u16, owner: Option<(u64, &str)>, target: Option<&str>) -> ShardRow {
    let owner = owner.map(|(life, node)| ShardOwner { incarnation: Incarnation(life), node: node.to_owned() });
    ShardRow { shard: ShardId(shard), epoch: Epoch(1), owner, target: target.map(str::to_owned) }
}

fn free(shards: u16) -> Vec<ShardRow> {
    (0..shards).map(|shard| row(shard, None, None)).collect()
}

fn nodes(weights: &[u32]) -> Vec<Contender> {
    weights.iter().enumerate().map(|(number, weight)| Contender::new(&format!("node-{number}"), *weight)).collect()
}

fn plan_of(nodes: &[Contender], rows: &[ShardRow], limits: PlanLimits) -> Vec<(ShardId, String)> {
    let lives = |incarnation: Incarnation| incarnation.0 < 1_000;
    let situation = Situation { nodes, rows, lives: &lives, closed: &|_| false, settled: true, limits };
    plan(&situation).into_iter().map(|(shard, node)| (shard, node.name().to_string())).collect()
}

/// As if every node had carried the plan out.
fn carry_out(rows: &mut [ShardRow], plan: &[(ShardId, String)]) {
    for (shard, target) in plan {
        let life = target.trim_start_matches("node-").parse().unwrap();
        rows[usize::from(shard.0)] = row(shard.0, Some((life, target)), Some(target));
    }
}

fn loads(rows: &[ShardRow]) -> BTreeMap<String, u64> {
    let mut loads = BTreeMap::new();
    for row in rows {
        *loads.entry(row.target.clone().unwrap()).or_default() += 1;
    }
    loads
}

fn share(node: &Contender, nodes: &[Contender], shards: u16) -> f64 {
    let weights: u32 = nodes.iter().map(Contender::weight).sum();
    f64::from(shards) * f64::from(node.weight()) / f64::from(weights)
}

/// Every node between three quarters of its share and eleven tenths of it, each rounded in the node's favour.
fn check_loads(rows: &[ShardRow], nodes: &[Contender], limits: PlanLimits) {
    let loads = loads(rows);
    assert_eq!(loads.values().sum::<u64>(), rows.len() as u64);
    for node in nodes {
        let (load, share) = (loads.get(&**node.name()).copied().unwrap_or(0), share(node, nodes, rows.len() as u16));
        let most = (share * f64::from(limits.load_percent) / 100.0).ceil();
        let least = (share * 0.75).floor();
        assert!((least..=most).contains(&(load as f64)), "{}: {load} of {share:.1}: {loads:?}", node.name());
    }
}

fn settled(nodes: &[Contender], shards: u16) -> Vec<ShardRow> {
    let mut rows = free(shards);
    let plan = plan_of(nodes, &rows, FREE);
    carry_out(&mut rows, &plan);
    rows
}

prop_compose! {
    fn clusters()(weights in prop::collection::vec(1u32..=4, 1..=8), shards in 512u16..=2048) -> (Vec<u32>, u16) {
        (weights, shards)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shares_are_fair_and_a_plan_carried_out_leaves_nothing((weights, shards) in clusters(), percent in 100u32..=150) {
        let (nodes, limits) = (nodes(&weights), PlanLimits { load_percent: percent, ..FREE });
        let mut rows = free(shards);
        let plan = plan_of(&nodes, &rows, limits);
        prop_assert_eq!(plan.len(), usize::from(shards));
        prop_assert_eq!(&plan, &plan_of(&nodes, &rows, limits), "the same again");
        let turned: Vec<_> = nodes.iter().rev().cloned().collect();
        carry_out(&mut rows, &plan);
        check_loads(&rows, &nodes, limits);
        prop_assert_eq!(plan_of(&nodes, &rows, limits), vec![]);
        prop_assert_eq!(plan_of(&turned, &rows, limits), vec![], "the order of the nodes means nothing");
    }

    #[test]
    fn a_node_that_comes_takes_its_share_and_no_more((weights, shards) in clusters(), weight in 1u32..=4) {
        let before = nodes(&weights);
        let mut rows = settled(&before, shards);
        let after = nodes(&[&weights[..], &[weight]].concat());
        let joined = after.last().unwrap();
        let plan = plan_of(&after, &rows, FREE);
        // Whoever loses the excess over the lower bound of many loses at most one for rounding.
        let most = share(joined, &after, shards) * 1.1 + before.len() as f64;
        prop_assert!(plan.len() as f64 <= most, "{} moves, {most}", plan.len());
        carry_out(&mut rows, &plan);
        check_loads(&rows, &after, FREE);
        let there = loads(&rows)[&**joined.name()];
        prop_assert!(there as f64 >= share(joined, &after, shards).floor(), "{there}");
        prop_assert_eq!(plan_of(&after, &rows, FREE), vec![]);
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own((weights, shards) in clusters(), gone in 0usize..8) {
        prop_assume!(weights.len() > 1);
        let before = nodes(&weights);
        let mut rows = settled(&before, shards);
        let gone = before[gone % before.len()].name().to_string();
        let after: Vec<_> = before.iter().filter(|node| **node.name() != *gone).cloned().collect();
        let own: BTreeSet<_> = rows.iter().filter(|row| row.target.as_ref() == Some(&gone)).map(|row| row.shard).collect();
        for dead in [true, false] {
            let mut rows = rows.clone();
            for row in rows.iter_mut().filter(|row| own.contains(&row.shard)) {
                row.owner.as_mut().unwrap().incarnation.0 += if dead { 1_000 } else { 0 };
            }
            let plan = plan_of(&after, &rows, FREE);
            prop_assert!(plan.iter().map(|(shard, _)| shard).eq(&own), "dead: {dead}");
        }
        let plan = plan_of(&after, &rows, FREE);
        carry_out(&mut rows, &plan);
        check_loads(&rows, &after, FREE);
    }

    #[test]
    fn small_steps_come_to_the_same_end((weights, shards) in clusters(), moves in 1usize..=64, joins in 1usize..=3) {
        let before = nodes(&weights);
        let mut rows = settled(&before, shards);
        let after = nodes(&[&weights[..], &vec![2; joins][..]].concat());
        let limits = PlanLimits { moves, ..FREE };
        let mut steps = 0;
        loop {
            let plan = plan_of(&after, &rows, limits);
            if plan.is_empty() {
                break;
            }
            prop_assert!(plan.len() <= moves);
            carry_out(&mut rows, &plan);
            steps += 1;
            prop_assert!(steps <= usize::from(shards), "it never ends");
        }
        check_loads(&rows, &after, FREE);
    }
}

/// What becomes of one shard, among three nodes that all have room.
#[test]
fn only_what_must_move_is_planned() {
    let nodes = nodes(&[1, 1, 1]);
    let (first, second, third) = ("node-0", "node-1", "node-2");
    let rows: Vec<_> = (0..30u16)
        .map(|shard| {
            let (life, name) = [(0, first), (1, second), (2, third)][usize::from(shard % 3)];
            row(shard, Some((life, name)), Some(name))
        })
        .collect();
    let lives = |incarnation: Incarnation| incarnation.0 < 1_000;
    let by_order = |shard: u16| successor(ShardId(shard), &nodes).unwrap().name().to_string();
    let cases: [(&str, ShardRow, bool, Option<String>); 11] = [
        ("nothing is wrong", row(0, Some((0, first)), Some(first)), true, None),
        ("claimed or never planned", row(0, Some((0, first)), None), true, None),
        ("free and on its way", row(0, None, Some(first)), true, None),
        ("free", row(0, None, None), true, Some(by_order(0))),
        ("free, and its target is gone", row(0, None, Some("gone")), false, Some(by_order(0))),
        ("its owner is dead, its target is not", row(0, Some((1_000, "gone")), Some(first)), false, None),
        ("its owner is dead and was its target", row(0, Some((1_000, "gone")), Some("gone")), false, Some(by_order(0))),
        ("its target is gone, its owner is not", row(0, Some((0, first)), Some("gone")), false, Some(first.to_owned())),
        ("a move is under way", row(0, Some((0, first)), Some(second)), true, None),
        ("its owner drains", row(0, Some((7, "drained")), Some("drained")), true, Some(by_order(0))),
        ("its owner drains, but nodes came lately", row(0, Some((7, "drained")), Some("drained")), false, None),
    ];
    for (what, changed, settled, expected) in cases {
        let mut rows = rows.clone();
        rows[0] = changed;
        let situation =
            Situation { nodes: &nodes, rows: &rows, lives: &lives, closed: &|_| false, settled, limits: FREE };
        let planned: Vec<_> =
            plan(&situation).into_iter().map(|(shard, node)| (shard, node.name().to_string())).collect();
        assert_eq!(planned, expected.map(|node| (ShardId(0), node)).into_iter().collect::<Vec<_>>(), "{what}");
    }
}

#[test]
fn moves_under_way_count_against_the_bound() {
    let nodes = nodes(&[1, 1]);
    let mut rows: Vec<_> = (0..64).map(|shard| row(shard, Some((0, "node-0")), Some("node-0"))).collect();
    rows[..6].iter_mut().for_each(|moving| moving.target = Some("node-1".to_owned()));
    for (moves, expected) in [(4, 0), (6, 0), (10, 4), (usize::MAX, 26)] {
        assert_eq!(plan_of(&nodes, &rows, PlanLimits { moves, ..FREE }).len(), expected, "{moves}");
    }
    assert_eq!(plan_of(&[], &rows, FREE), vec![], "without nodes there is no plan");
}

/// A hundred nodes of three sizes over all shards.
#[test]
fn a_hundred_nodes_share_four_thousand_shards() {
    let weights: Vec<u32> = (0..100).map(|number| [2, 3, 4][number % 3]).collect();
    let before = nodes(&weights);
    let mut rows = settled(&before, 4096);
    check_loads(&rows, &before, FREE);
    let gone = before[41].name().to_string();
    let after: Vec<_> = before.iter().filter(|node| **node.name() != *gone).cloned().collect();
    let own = rows.iter().filter(|row| row.target.as_ref() == Some(&gone)).count();
    let plan = plan_of(&after, &rows, FREE);
    assert_eq!(plan.len(), own);
    carry_out(&mut rows, &plan);
    let joined = plan_of(&before, &rows, FREE);
    assert!(joined.len() as f64 <= share(&before[41], &before, 4096) * 1.1 + 1.0, "{}", joined.len());
    carry_out(&mut rows, &joined);
    check_loads(&rows, &before, FREE);
}

#[test]
fn a_closed_node_gets_nothing_and_keeps_what_it_has() {
    let nodes = nodes(&[1, 1, 1]);
    let lives = |_| true;
    let mut rows: Vec<_> = (0..60).map(|shard| row(shard, Some((0, "node-0")), Some("node-0"))).collect();
    rows[..6].iter_mut().for_each(|there| *there = row(there.shard.0, Some((1, "node-1")), Some("node-1")));
    rows[50..].iter_mut().for_each(|there| *there = row(there.shard.0, None, None));
    let closed = |node: &str| node == "node-1";
    let situation =
        Situation { nodes: &nodes, rows: &rows, lives: &lives, closed: &closed, settled: true, limits: FREE };
    let plan: Vec<_> = plan(&situation).into_iter().map(|(shard, node)| (shard, node.name().to_string())).collect();
    assert!(plan.iter().all(|(shard, node)| node != "node-1" && shard.0 >= 6), "{plan:?}");
    carry_out(&mut rows, &plan);
    assert_eq!(loads(&rows)["node-1"], 6);
}
