//! F2: the process that has the data ends at a given write or flush of its files: before it, in the middle of it, after
//! it; while it serves and while it starts. That is the node on SQLite, and a process of the server on PostgreSQL, where
//! what the node writes goes through sockets only (F5).

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::faults::backing::Backing;
use motet_tests::faults::load::Load;
use motet_tests::faults::shim::{Shim, When};
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::until;

const CLIENTS: usize = 8;

/// Runs between two ends; even in the largest groups they make more writes than the last point counts.
const RUNS: usize = 40;

/// Writes and flushes after which the process ends while it serves.
const SERVING: std::ops::Range<u64> = 1..30;

/// The same while it starts, which makes fewer of them.
const STARTING: std::ops::Range<u64> = 1..6;

/// Longest time to the end.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_killed_at_every_kind_of_write_sqlite() -> Result<()> {
    let scale = Scale::from_environment();
    let points = scale.pick(9, 40, 2_000);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let shim = Shim::new(&data, &folder.path().join("control"))?;
    let mut node = Node::start(shim.steer(Backing::Sqlite.settings(&data))).await?;
    let load = Load::begin(&node, points * RUNS, CLIENTS, &mut seed).await?;
    for point in 0..points {
        let when = When::ALL[point % When::ALL.len()];
        let nth = i64::try_from(seed.between(SERVING.start, SERVING.end))?;
        shim.kill_at(nth, when)?;
        load.allow(RUNS);
        ended_by_fault(&mut node).await?;
        // Every third time it does not survive its own recovery either.
        if point % 3 == 0 {
            shim.kill_at(i64::try_from(seed.between(STARTING.start, STARTING.end))?, when)?;
            node.spawn()?;
            ended_by_fault(&mut node).await?;
        }
        shim.kill_at(0, when)?;
        node.restart().await?;
        println!("ended {when:?} operation {nth}: {} runs promised", load.promised());
    }
    let operations = shim.operations()?;
    let tally = load.prove(node, &Backing::Sqlite).await?;
    super::report("F2", &format!("{points} points, {operations} writes and flushes"), &tally);
    Ok(())
}

/// Where one process of the server ends, all others start again from the log of writes; the node only waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_killed_at_every_kind_of_write_postgres() -> Result<()> {
    let scale = Scale::from_environment();
    let points = scale.pick(6, 40, 2_000);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let shim = Shim::new(&Backing::postgres_data(folder.path()), &folder.path().join("postgres/control"))?;
    let test = "f2_killed_at_every_kind_of_write_postgres";
    let environment = shim.environment().to_vec();
    let Some(backing) = Backing::postgres_with(test, folder.path(), environment).await? else { return Ok(()) };
    let mut node = Node::start(backing.settings(&folder.path().join("node"))).await?;
    let load = Load::begin(&node, points * RUNS, CLIENTS, &mut seed).await?;
    let ended = async || until(SOON, "the end of a process", async || (!shim.is_armed().ok()?).then_some(())).await;
    for point in 0..points {
        let when = When::ALL[point % When::ALL.len()];
        let nth = i64::try_from(seed.between(SERVING.start, SERVING.end))?;
        shim.kill_at(nth, when)?;
        load.allow(RUNS);
        ended().await?;
        // Every third time it does not survive its own recovery either.
        if point % 3 == 0 {
            shim.kill_at(i64::try_from(seed.between(STARTING.start, STARTING.end))?, when)?;
            ended().await?;
        }
        backing.server()?.recover().await?;
        load.until_promised((point + 1) * RUNS).await.map_err(|error| error.context(node.log_tail()))?;
        node.check_running()?;
        println!("ended {when:?} operation {nth}: {} runs promised", load.promised());
    }
    let operations = shim.operations()?;
    let tally = load.prove(node, &backing).await?;
    super::report("F2", &format!("{points} points in the server, {operations} writes and flushes"), &tally);
    Ok(())
}

async fn ended_by_fault(node: &mut Node) -> Result<()> {
    let status = node.wait(SOON).await?;
    ensure!(status.signal() == Some(9), "the node ended with {status}; {}", node.log_tail());
    Ok(())
}
