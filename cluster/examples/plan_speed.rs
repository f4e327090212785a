//! How long the leader's plan takes for 100 nodes and 4,096 shards, and how many shards move when a node comes or goes.
//!
//! Never part of the tests: figures depend on the machine. Run with
//! `cargo run --release -p motet-cluster --example plan_speed`.

use std::time::{Duration, Instant};

use motet_cluster::shards::{Contender, PlanLimits, Situation, plan};
use motet_engine::id::{Epoch, MAX_SHARDS, ShardId};
use motet_store::port::{Incarnation, ShardOwner, ShardRow};

const NODES: usize = 100;
const ROUNDS: usize = 20;

fn main() {
    let all: Vec<Contender> = (0..=NODES).map(|number| Contender::new(&format!("node-{number}"), 4)).collect();
    let (hundred, first) = (&all[..NODES], &all[0]);
    let mut rows: Vec<ShardRow> = (0..MAX_SHARDS).map(|shard| row(shard, None)).collect();
    measure("all shards free", hundred, &mut rows.clone());
    carry_out(&mut rows, hundred);
    let loads = loads(&rows, hundred);
    println!(
        "loads: {} to {}, the fair share is {:.1}",
        loads[0],
        loads[NODES - 1],
        f64::from(MAX_SHARDS) / NODES as f64
    );
    measure("nothing to do", hundred, &mut rows.clone());
    let mut joined = rows.clone();
    measure("a 101st node comes", &all, &mut joined);
    let gone: Vec<Contender> = hundred[1..].to_vec();
    let own = rows.iter().filter(|row| row.target.as_deref() == Some(first.name())).count();
    println!("one node goes that had {own} shards");
    measure("one of 100 goes", &gone, &mut rows);
}

fn row(shard: u16, node: Option<&str>) -> ShardRow {
    let owner = node.map(|node| ShardOwner { incarnation: Incarnation(1), node: node.to_owned() });
    ShardRow { shard: ShardId(shard), epoch: Epoch(1), owner, target: node.map(str::to_owned) }
}

fn planned(nodes: &[Contender], rows: &[ShardRow]) -> Vec<(ShardId, String)> {
    let limits = PlanLimits { load_percent: 110, moves: usize::MAX };
    let situation = Situation { nodes, rows, lives: &|_| true, closed: &|_| false, settled: true, limits };
    plan(&situation).into_iter().map(|(shard, node)| (shard, node.name().to_string())).collect()
}

fn carry_out(rows: &mut [ShardRow], nodes: &[Contender]) -> usize {
    let plan = planned(nodes, rows);
    for (shard, node) in &plan {
        rows[usize::from(shard.0)] = row(shard.0, Some(node));
    }
    plan.len()
}

fn measure(what: &str, nodes: &[Contender], rows: &mut [ShardRow]) {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        std::hint::black_box(planned(nodes, rows));
        best = best.min(begun.elapsed());
    }
    println!("{what}: {} moves, planned in {best:.2?}", carry_out(rows, nodes));
}

fn loads(rows: &[ShardRow], nodes: &[Contender]) -> Vec<usize> {
    let load = |node: &Contender| rows.iter().filter(|row| row.target.as_deref() == Some(node.name())).count();
    let mut loads: Vec<usize> = nodes.iter().map(load).collect();
    loads.sort_unstable();
    loads
}
