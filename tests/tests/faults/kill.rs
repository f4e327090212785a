//! F1: kill -9 at random moments under load.

use std::time::Duration;

use anyhow::Result;
use motet_tests::faults::backing::Backing;
use motet_tests::faults::load::Load;
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::let_pass;

const CLIENTS: usize = 48;

/// Time between a start and the next kill.
const BETWEEN_KILLS_MS: std::ops::Range<u64> = 30..700;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_killed_under_load_sqlite() -> Result<()> {
    killed_under_load(Backing::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_killed_under_load_postgres() -> Result<()> {
    let server = tempfile::tempdir()?;
    match Backing::postgres("f1_killed_under_load_postgres", server.path()).await? {
        Some(backing) => killed_under_load(backing).await,
        None => Ok(()),
    }
}

async fn killed_under_load(backing: Backing) -> Result<()> {
    let scale = Scale::from_environment();
    let (kills, per_kill) = (scale.pick(5, 30, 1_000), scale.pick(400, 800, 1_000));
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let mut node = Node::start(backing.settings(&folder.path().join("data"))).await?;
    let load = Load::begin(&node, kills * per_kill, CLIENTS, &mut seed).await?;
    let mut slowest = Duration::ZERO;
    for kill in 1..=kills {
        load.allow(per_kill);
        let wait = Duration::from_millis(seed.between(BETWEEN_KILLS_MS.start, BETWEEN_KILLS_MS.end));
        let_pass(wait).await;
        node.check_running()?;
        node.kill()?;
        let promised = load.promised();
        let ready = node.restart().await?;
        slowest = slowest.max(ready);
        println!("kill {kill} after {wait:?}: {promised} runs promised, ready again after {ready:?}");
    }
    let tally = load.prove(node, &backing).await?;
    super::report("F1", &format!("{kills} kills, ready again within {slowest:?}"), &tally);
    Ok(())
}
