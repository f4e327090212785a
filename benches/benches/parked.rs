//! What a million parked runs cost a node: memory, the start, and the runs that go on beside them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use motet_benches::load::closed_loop;
use motet_benches::machine;
use motet_benches::short_run;
use motet_benches::verdict::Verdict;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::past::{self, Past, SLEEPER};
use motet_tests::place::build_folder;

const RUNS: u64 = 1_000_000;
const SHARDS: u16 = 64;
const DAY: Duration = Duration::from_secs(24 * 3600);
const TIME: Duration = Duration::from_secs(5);
const CLIENTS: usize = 64;

const MUST_READY: Duration = Duration::from_secs(1);
/// Page cache of the database's readers and what the load leaves behind; nothing per parked run.
const MUST_MORE_BYTES: u64 = 64 << 20;
/// Runs per second beside the parked ones, as a part of those without them.
const MUST_SHARE: f64 = 0.8;

struct Measured {
    ready: Duration,
    idle: u64,
    loaded: u64,
    runs_per_second: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    machine::print_facts();
    let folder = tempfile::tempdir_in(build_folder())?;
    let none = measure(&folder.path().join("none"), 0).await?;
    let many = measure(&folder.path().join("many"), RUNS).await?;
    println!("\n{:>10} {:>10} {:>10} {:>12} {:>10}", "parked", "ready ms", "idle MB", "loaded MB", "runs/s");
    for (parked, measured) in [(0, &none), (RUNS, &many)] {
        let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{parked:>10} {:>10.0} {:>10.1} {:>12.1} {:>10.0}",
            measured.ready.as_secs_f64() * 1e3,
            megabytes(measured.idle),
            megabytes(measured.loaded),
            measured.runs_per_second
        );
    }
    println!();
    let mut verdict = Verdict::new();
    verdict.must(many.ready < MUST_READY, format!("ready within {MUST_READY:?} over {RUNS} parked runs"));
    let more = many.loaded.saturating_sub(none.loaded);
    verdict.must(more < MUST_MORE_BYTES, format!("less than {} MB more for all of them", MUST_MORE_BYTES >> 20));
    let share = many.runs_per_second / none.runs_per_second;
    verdict
        .must(share >= MUST_SHARE, format!("at least {:.0} % of the runs per second without them", MUST_SHARE * 1e2));
    Ok(verdict.end())
}

async fn measure(data: &Path, parked: u64) -> Result<Measured> {
    let mut node = Node::start(NodeSettings::new(data).with("MOTET__LOG__FILTER", "warn")).await?;
    let client = node.client();
    client.put_definition("workflows", "sleeper", SLEEPER).await?;
    short_run::define(&client).await?;
    anyhow::ensure!(node.stop().await?.success(), "{}", node.log_tail());
    let begun = Instant::now();
    let until = past::now()?.after(DAY);
    past::fill_folder(data, parked, SHARDS, Past::Asleep(until)).await?;
    println!("{parked} runs were parked in {:.0} s", begun.elapsed().as_secs_f64());
    machine::wait_until_quiet().await;
    let ready = node.restart().await?;
    let idle = node.resident_bytes()?;
    let reached = closed_loop(&short_run::submit(node.http()), CLIENTS, Duration::ZERO, TIME).await?;
    let loaded = node.resident_bytes()?;
    Ok(Measured { ready, idle, loaded, runs_per_second: reached.runs_per_second })
}
