//! F3: the process stands still (SIGSTOP) and goes on later, as a machine does that swaps or moves.

use std::time::Duration;

use anyhow::Result;
use motet_tests::faults::backing::Backing;
use motet_tests::faults::load::Load;
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::let_pass;

const CLIENTS: usize = 16;

/// Runs between two stops.
const RUNS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_stopped_and_continued_sqlite() -> Result<()> {
    stopped_and_continued(Backing::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f3_stopped_and_continued_postgres() -> Result<()> {
    let server = tempfile::tempdir()?;
    match Backing::postgres("f3_stopped_and_continued_postgres", server.path()).await? {
        Some(backing) => stopped_and_continued(backing).await,
        None => Ok(()),
    }
}

async fn stopped_and_continued(backing: Backing) -> Result<()> {
    let scale = Scale::from_environment();
    let stops = scale.pick(3, 10, 300);
    let longest_ms = scale.pick(2_500, 60_000, 60_000);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(backing.settings(&folder.path().join("data"))).await?;
    let load = Load::begin(&node, stops * RUNS, CLIENTS, &mut seed).await?;
    for stop in 1..=stops {
        load.allow(RUNS);
        let_pass(Duration::from_millis(seed.between(20, 300))).await;
        node.check_running()?;
        let still = Duration::from_millis(seed.between(1_000, longest_ms));
        node.freeze()?;
        let_pass(still).await;
        node.thaw()?;
        println!("stop {stop} of {still:?}: {} runs promised", load.promised());
    }
    let tally = load.prove(node, &backing).await?;
    super::report("F3", &format!("{stops} stops"), &tally);
    Ok(())
}
