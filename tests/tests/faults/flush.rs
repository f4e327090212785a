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
        load.allow(RUNS);
        let_pass(Duration::from_millis(seed.between(1, 150))).await;
        shim.fail_flushes(true)?;
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
