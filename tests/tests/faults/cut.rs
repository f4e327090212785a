//! F5: the connection to the database is cut while a commit is under way, at one byte after the other, on the way
//! there and on the way back.

use std::time::Duration;

use anyhow::Result;
use motet_tests::faults::backing::Backing;
use motet_tests::faults::load::Load;
use motet_tests::faults::proxy::{Direction, Proxy};
use motet_tests::node::Node;
use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::waiting::until;

const CLIENTS: usize = 4;

/// Runs between two cuts.
const RUNS: usize = 4;

/// Bytes of the database's answer to a commit: at each of them the connection is cut.
const ANSWER: u64 = 64;

/// Bytes on the way there, of which some are drawn: a batch of some runs.
const BATCH: u64 = 6_000;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f5_the_connection_is_cut_during_a_commit_postgres() -> Result<()> {
    let cuts = Scale::from_environment().pick(50, 200, 5_000);
    let mut seed = Seed::from_environment();
    let folder = tempfile::tempdir()?;
    let Some(direct) = Backing::postgres("f5_the_connection_is_cut_during_a_commit_postgres", folder.path()).await?
    else {
        return Ok(());
    };
    let proxy = Proxy::start(direct.server()?.address()).await?;
    let node = Node::start(direct.through(proxy.address()).settings(&folder.path().join("node"))).await?;
    let load = Load::begin(&node, cuts * RUNS, CLIENTS, &mut seed).await?;
    for cut in 0..cuts {
        let (direction, bytes) = match cut % 2 {
            0 => (Direction::Back, (cut as u64 / 2) % ANSWER),
            _ => (Direction::There, seed.between(0, BATCH)),
        };
        proxy.cut_after(direction, u32::try_from(bytes)?);
        load.allow(RUNS);
        load.until_promised((cut + 1) * RUNS).await?;
        until(SOON, "the cut", async || (!proxy.is_armed(direction)).then_some(())).await?;
    }
    let tally = load.prove(node, &direct).await?;
    super::report("F5", &format!("{cuts} cuts, {} connections", proxy.connections()), &tally);
    Ok(())
}
