//! The time from the start of the process to readiness on a database with 100,000 finished runs, and its memory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use motet_benches::machine;
use motet_benches::verdict::Verdict;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::past::{self, Past};
use motet_tests::place::build_folder;

const RUNS: u64 = 100_000;
const SHARDS: u16 = 64;
const STARTS: usize = 5;
const MUST_READY: Duration = Duration::from_secs(1);
const MUST_RESIDENT: u64 = 100 << 20;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    machine::print_facts();
    let folder = tempfile::tempdir_in(build_folder())?;
    let data = folder.path().join("data");
    past::fill_folder(&data, RUNS, SHARDS, Past::Finished).await?;
    machine::wait_until_quiet().await;
    let mut node = Node::prepare(NodeSettings::new(&data));
    let (mut slowest, mut largest) = (Duration::ZERO, 0);
    println!("{:>6} {:>10} {:>14}", "start", "ready ms", "resident MB");
    for start in 1..=STARTS {
        let ready = node.restart().await?;
        let resident = node.resident_bytes()?;
        println!("{start:>6} {:>10.0} {:>14.1}", ready.as_secs_f64() * 1e3, resident as f64 / f64::from(1 << 20));
        (slowest, largest) = (slowest.max(ready), largest.max(resident));
        node.kill()?;
    }
    let mut verdict = Verdict::new();
    verdict.must(slowest < MUST_READY, format!("ready within {MUST_READY:?} over {RUNS} finished runs"));
    verdict.must(largest < MUST_RESIDENT, format!("less than {} MB resident when idle", MUST_RESIDENT >> 20));
    Ok(verdict.end())
}
