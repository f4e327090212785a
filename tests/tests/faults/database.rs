//! F4: the database server ends at once under load and comes back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use motet_tests::faults::backing::Backing;
use motet_tests::faults::load::Load;
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::{let_pass, until};

const CLIENTS: usize = 24;

/// Runs between two ends.
const RUNS: usize = 150;

/// Longest time without a server: longer than any part of the node tries again by itself.
const LONG_MS: u64 = 90_000;

/// Longest time from the server's return to the node's readiness.
const RECOVERY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f4_the_database_ends_under_load_postgres() -> Result<()> {
    let scale = Scale::from_environment();
    let ends = scale.pick(2, 3, 100);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let Some(backing) = Backing::postgres("f4_the_database_ends_under_load_postgres", folder.path()).await? else {
        return Ok(());
    };
    let mut node = Node::start(backing.settings(&folder.path().join("node"))).await?;
    let load = Load::begin(&node, ends * RUNS, CLIENTS, &mut seed).await?;
    let mut slowest = Duration::ZERO;
    for end in 1..=ends {
        load.allow(RUNS);
        let_pass(Duration::from_millis(seed.between(100, 600))).await;
        backing.server()?.end_immediately()?;
        until(RECOVERY, "readiness to go", async || (!node.client().is_ready().await).then_some(())).await?;
        let_pass(Duration::from_millis(seed.between(0, scale.pick(3_000, LONG_MS, LONG_MS)))).await;
        node.check_running()?;
        backing.server()?.restart().await?;
        let back = Instant::now();
        node.client().until_ready(RECOVERY).await?;
        load.until_promised(end * RUNS).await?;
        slowest = slowest.max(back.elapsed());
        ensure!(back.elapsed() < RECOVERY, "new runs were taken only after {:?}; {}", back.elapsed(), node.log_tail());
    }
    let tally = load.prove(node, &backing).await?;
    super::report("F4", &format!("{ends} ends of the server, recovered within {slowest:?}"), &tally);
    Ok(())
}
