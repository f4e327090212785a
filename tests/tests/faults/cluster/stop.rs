//! C2: one of three nodes stands still for longer than its lease and goes on later, in turn.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use motet_tests::faults::load::{Crowd, Load};
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::let_pass;

use super::{Cluster, NODES, name};

/// Stops one node after the other for longer than its lease. It finds out by itself that its life is over, writes
/// nothing, begins another one, and is given shards again.
pub(super) async fn in_turn(cluster: &mut Cluster, load: &Load, scale: Scale, seed: &mut Seed) -> Result<String> {
    let stops = scale.pick(1, 10, 100);
    let still = Duration::from_secs(scale.pick(6, 15, 15));
    for stop in 0..stops {
        let victim = stop % NODES;
        cluster.until_owner(victim).await?;
        let in_flight = load.until_in_flight(Crowd::of(scale).in_flight).await?;
        let_pass(Duration::from_millis(seed.between(50, 300))).await;
        let owned = cluster.until_owner(victim).await?;
        let lives = lives(cluster, victim);
        let begun = Instant::now();
        cluster.fails(victim, &owned)?;
        cluster.nodes[victim].freeze()?;
        let taken_over = cluster.taken_over(victim, &owned).await?;
        let_pass(still.saturating_sub(begun.elapsed())).await;
        cluster.nodes[victim].thaw()?;
        cluster.leader.healed(&name(victim));
        cluster.until_balanced().await.with_context(|| cluster.nodes[victim].log_tail())?;
        ensure!(self::lives(cluster, victim) > lives, "node-{victim} goes on under the life that was fenced");
        println!("stop {stop} of node-{victim}: {in_flight} in flight, taken over after {taken_over:?}");
    }
    Ok(format!("{stops} stops of {still:?}"))
}

/// How many lives a node has begun.
fn lives(cluster: &Cluster, node: usize) -> usize {
    cluster.nodes[node].log().matches("registered").count()
}
