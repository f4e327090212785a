//! C1: one of three nodes is killed, in turn.

use std::time::Duration;

use anyhow::Result;
use motet_tests::faults::load::{Crowd, Load};
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::let_pass;

use super::{Cluster, NODES};

/// Kills one node after the other; each comes back when the others serve its shards.
pub(super) async fn in_turn(cluster: &mut Cluster, load: &Load, scale: Scale, seed: &mut Seed) -> Result<String> {
    let kills = scale.pick(3, 30, 300);
    for kill in 0..kills {
        let victim = kill % NODES;
        cluster.until_owner(victim).await?;
        let in_flight = load.until_in_flight(Crowd::of(scale).in_flight).await?;
        let_pass(Duration::from_millis(seed.between(50, 700))).await;
        let owned = cluster.until_owner(victim).await?;
        cluster.fails(victim, &owned)?;
        cluster.nodes[victim].kill()?;
        let taken_over = cluster.taken_over(victim, &owned).await?;
        cluster.nodes[victim].restart().await?;
        let shards = owned.shards.len();
        println!(
            "kill {kill} of node-{victim}: {in_flight} in flight, {shards} shards taken over after {taken_over:?}"
        );
    }
    Ok(format!("{kills} kills"))
}
