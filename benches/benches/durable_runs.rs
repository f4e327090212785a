//! Durable runs per second: three model steps of 128 bytes each, over HTTP, every event on the disk before it counts.
//!
//! The load generator shares the machine. Beside each figure stands what bare commits allow on the same disk at the
//! same moment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use motet_benches::floor::{self, Floor};
use motet_benches::load::{Reached, closed_loop};
use motet_benches::machine;
use motet_benches::three_steps;
use motet_benches::verdict::Verdict;
use motet_tests::client::Client;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::place::build_folder;

const CLIENTS: [usize; 3] = [1, 64, 256];
const WARM_UP: Duration = Duration::from_secs(2);
const TIME: Duration = Duration::from_secs(8);
const FLOOR_TIME: Duration = Duration::from_secs(3);

/// What the release build must reach.
const MUST_RUNS_PER_SECOND: f64 = 3_000.0;
const MUST_EVENTS_PER_COMMIT: f64 = 16.0;
const MUST_COMMITS_AT_ONE_CLIENT: u32 = 8;

struct Point {
    reached: Reached,
    events_per_commit: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    machine::print_facts();
    let folder = tempfile::tempdir_in(build_folder())?;
    let mut node =
        Node::start(NodeSettings::new(folder.path().join("data")).with("MOTET__LOG__FILTER", "warn")).await?;
    let client = node.client();
    three_steps::define(&client).await?;
    closed_loop(&three_steps::submit(node.http()), 16, Duration::ZERO, WARM_UP).await?;
    let mut points = vec![];
    for clients in CLIENTS {
        machine::wait_until_quiet().await;
        points.push(point(&node, &client, clients).await?);
    }
    anyhow::ensure!(node.stop().await?.success(), "{}", node.log_tail());

    let written = floor::written(node.data()).await?;
    machine::wait_until_quiet().await;
    let single = floor::measure(folder.path(), 1, written.payload_bytes, FLOOR_TIME).await?;
    let grouped = floor::measure(folder.path(), 64, written.payload_bytes, FLOOR_TIME).await?;
    let rows_per_run = written.rows as f64 / written.runs.max(1) as f64;
    print(&points, single, grouped, rows_per_run, written.payload_bytes);
    Ok(judge(&points, single))
}

async fn point(node: &Node, client: &Client, clients: usize) -> Result<Point> {
    let counters = async || -> Result<(f64, f64)> {
        Ok((client.metric("motet_store_commits_total").await?, client.metric("motet_store_events_total").await?))
    };
    let before = counters().await?;
    let reached = closed_loop(&three_steps::submit(node.http()), clients, Duration::ZERO, TIME).await?;
    let after = counters().await?;
    Ok(Point { reached, events_per_commit: (after.1 - before.1) / (after.0 - before.0).max(1.0) })
}

fn print(points: &[Point], single: Floor, grouped: Floor, rows_per_run: f64, payload_bytes: usize) {
    let allowed = grouped.rows_per_second() / rows_per_run;
    println!();
    for floor in [single, grouped] {
        println!(
            "floor      {:>3} rows of {payload_bytes} bytes per commit: {:>7.0} commits/s, {:>8.0} rows/s, p50 {:?}, p99 {:?}",
            floor.rows,
            floor.commits,
            floor.rows_per_second(),
            floor.p50,
            floor.p99
        );
    }
    println!("a run      {rows_per_run:.2} rows of the journal, so the floor allows {allowed:.0} runs/s");
    println!();
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>14} {:>14}",
        "clients", "runs/s", "p50 ms", "p99 ms", "events/commit", "of the floor"
    );
    for Point { reached, events_per_commit } in points {
        let millis = |quantile| reached.at(quantile).as_secs_f64() * 1e3;
        println!(
            "{:>8} {:>10.0} {:>10.2} {:>10.2} {:>14.1} {:>13.0}%",
            reached.clients,
            reached.runs_per_second,
            millis(0.5),
            millis(0.99),
            events_per_commit,
            reached.runs_per_second / allowed * 100.0
        );
    }
    println!();
}

fn judge(points: &[Point], single: Floor) -> ExitCode {
    let mut verdict = Verdict::new();
    let (alone, crowd) = (&points[0], &points[points.len() - 1]);
    verdict.must(
        crowd.reached.runs_per_second >= MUST_RUNS_PER_SECOND,
        format!("at least {MUST_RUNS_PER_SECOND} runs/s at {} clients", crowd.reached.clients),
    );
    verdict.must(
        crowd.events_per_commit > MUST_EVENTS_PER_COMMIT,
        format!("more than {MUST_EVENTS_PER_COMMIT} events per commit at {} clients", crowd.reached.clients),
    );
    let bound = single.p50 * MUST_COMMITS_AT_ONE_CLIENT;
    verdict.must(
        alone.reached.at(0.5) <= bound,
        format!("p50 at one client within the time of {MUST_COMMITS_AT_ONE_CLIENT} commits ({bound:?})"),
    );
    verdict.end()
}
