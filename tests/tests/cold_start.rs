//! A start with a long past: 100,000 finished runs cost neither time nor memory.
//!
//! The goal (1 s, release build) belongs to the bench of the same name; here the bound leaves room for a build without
//! optimisation on a busy machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use motet_tests::node::{Node, NodeSettings};
use motet_tests::past::{self, Past};

const RUNS: u64 = 100_000;
const SHARDS: u16 = 64;
const READY_WITHIN: Duration = Duration::from_secs(3);
const RESIDENT_BYTES: u64 = 100 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_past_costs_nothing_at_the_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let begun = Instant::now();
    past::fill_folder(&data, RUNS, SHARDS, Past::Finished).await?;
    println!("{RUNS} finished runs were made in {:.1} s", begun.elapsed().as_secs_f64());
    let mut node = Node::prepare(NodeSettings::new(&data));
    let ready = node.restart().await?;
    let resident = node.resident_bytes()?;
    println!("ready after {ready:?}, {} MB resident", resident >> 20);
    let listed = node.client().get("/api/v1/runs?limit=3").await?.expect(200)?.body.to_string();
    ensure!(listed.contains("\"past\""), "{listed}");
    ensure!(ready < READY_WITHIN, "ready after {ready:?}");
    ensure!(resident < RESIDENT_BYTES, "{resident} bytes are resident");
    Ok(())
}
