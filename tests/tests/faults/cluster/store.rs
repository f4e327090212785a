//! C3: one of three nodes cannot reach the database any more, in turn and in either direction.

use std::time::Duration;

use anyhow::{Context, Result};
use motet_tests::faults::load::{Crowd, Load};
use motet_tests::faults::proxy::{Direction, Rule};
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::let_pass;

use super::{Cluster, NODES, name};

/// Cuts one node after the other off from the database: nothing arrives there, or nothing comes back. What was on its
/// way arrives when the others have long taken over.
pub(super) async fn in_turn(cluster: &mut Cluster, load: &Load, scale: Scale, seed: &mut Seed) -> Result<String> {
    let cuts = scale.pick(2, 10, 100);
    for cut in 0..cuts {
        let victim = cut % NODES;
        cluster.until_owner(victim).await?;
        let in_flight = load.until_in_flight(Crowd::of(scale).in_flight).await?;
        let_pass(Duration::from_millis(seed.between(50, 300))).await;
        let owned = cluster.until_owner(victim).await?;
        let direction = if cut % 2 == 0 { Direction::There } else { Direction::Back };
        cluster.fails(victim, &owned)?;
        cluster.stores[victim].set(direction, Rule { stalled: true, ..Rule::default() });
        let taken_over = cluster.taken_over(victim, &owned).await?;
        cluster.stores[victim].set(direction, Rule::default());
        cluster.leader.healed(&name(victim));
        cluster.until_balanced().await.with_context(|| cluster.nodes[victim].log_tail())?;
        println!("cut {cut} of node-{victim}, {direction:?}: {in_flight} in flight, taken over after {taken_over:?}");
    }
    Ok(format!("{cuts} partitions from the database"))
}
