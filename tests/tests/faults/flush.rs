//! F11: flushes that fail and flushes that take long.

use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::client::Submission;
use motet_tests::faults::backing::Backing;
use motet_tests::faults::load::Load;
use motet_tests::faults::shim::Shim;
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::{let_pass, until};
use serde_json::json;

const CLIENTS: usize = 16;

/// Runs between two faults.
const RUNS: usize = 60;

const SOON: Duration = Duration::from_secs(30);

/// How much longer a slow flush takes.
const SLOW: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_flushes_fail_and_take_long_sqlite() -> Result<()> {
    let scale = Scale::from_environment();
    let rounds = scale.pick(3, 3, 100);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let shim = Shim::new(&data, &folder.path().join("control"))?;
    let mut node = Node::start(shim.steer(Backing::Sqlite.settings(&data))).await?;
    let load = Load::begin(&node, rounds * 2 * RUNS, CLIENTS, &mut seed).await?;
    for _ in 0..rounds {
        load.allow(RUNS / 2);
        let_pass(Duration::from_millis(seed.between(1, 150))).await;
        shim.fail_flushes(true)?;
        // Something must be written now, however fast the first half was.
        load.allow(RUNS / 2);
        refuses(&node).await?;
        // The disk works again, but what it holds is not known: nothing is flushed a second time.
        shim.fail_flushes(false)?;
        let before = shim.flushes()?;
        refuses(&node).await?;
        ensure!(shim.flushes()? == before, "it flushed again after a flush had failed");
        node.terminate()?;
        node.wait(SOON).await?;
        node.restart().await?;

        shim.slow_flushes(SLOW)?;
        let target = load.promised() + 10;
        load.allow(RUNS);
        load.until_promised(target).await?;
        node.check_running()?;
        ensure!(node.client().is_ready().await, "a slow disk is no reason to give up");
        shim.slow_flushes(Duration::ZERO)?;
    }
    let tally = load.prove(node, &Backing::Sqlite).await?;
    super::report("F11", &format!("{rounds} failed flushes, {rounds} times slow ones"), &tally);
    Ok(())
}

/// The node lives, says that it is not ready, and takes nothing.
async fn refuses(node: &Node) -> Result<()> {
    let client = node.client();
    until(SOON, "readiness to go", async || (!client.is_ready().await).then_some(())).await?;
    let taken = client.submit("survivor", &json!({ "text": "not now" }), "refused").await;
    ensure!(matches!(taken, Submission::Refused(status) if status == 503), "it should refuse, and did {taken:?}");
    Ok(())
}

/// A server whose flush fails ends every connection and starts again from its log; the node only waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_flushes_fail_and_take_long_postgres() -> Result<()> {
    let rounds = Scale::from_environment().pick(2, 3, 100);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let shim = Shim::new(&Backing::postgres_data(folder.path()), &folder.path().join("postgres/control"))?;
    let environment = shim.environment().to_vec();
    let test = "f11_flushes_fail_and_take_long_postgres";
    let Some(backing) = Backing::postgres_with(test, folder.path(), environment).await? else { return Ok(()) };
    let mut node = Node::start(backing.settings(&folder.path().join("node"))).await?;
    let load = Load::begin(&node, rounds * 2 * RUNS, CLIENTS, &mut seed).await?;
    for round in 0..rounds {
        load.allow(RUNS / 2);
        let_pass(Duration::from_millis(seed.between(1, 150))).await;
        shim.fail_flushes(true)?;
        // Something must be written now, however fast the first half was.
        load.allow(RUNS / 2);
        until(SOON, "readiness to go", async || (!node.client().is_ready().await).then_some(())).await?;
        shim.fail_flushes(false)?;
        backing.server()?.recover().await?;
        load.until_promised((2 * round + 1) * RUNS).await?;
        shim.slow_flushes(SLOW)?;
        load.allow(RUNS);
        let taken = load.until_promised((2 * round + 1) * RUNS + 10).await;
        taken.map_err(|error| error.context(node.log_tail()))?;
        node.check_running()?;
        shim.slow_flushes(Duration::ZERO)?;
    }
    let tally = load.prove(node, &backing).await?;
    super::report("F11", &format!("{rounds} failed flushes of the server, {rounds} times slow ones"), &tally);
    Ok(())
}
