//! A million parked runs over three nodes: what they cost in memory, and how long a hundred thousand of them take to
//! wake at one moment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use motet_benches::load::closed_loop;
use motet_benches::nodes::{Nodes, SHARDS};
use motet_benches::peers::postgres;
use motet_benches::verdict::Verdict;
use motet_benches::{machine, short_run};
use motet_store::port::{HeadState, RunStore, Store};
use motet_store::postgres::{PostgresOptions, PostgresStore};
use motet_tests::node::Node;
use motet_tests::past::{self, Past, SLEEPER};
use motet_tests::waiting::{let_pass, until};
use sqlx::{Connection, PgConnection};

const NODES: usize = 3;
const IDLE: u64 = 900_000;
const WOKEN: u64 = 100_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Enough for the nodes to start and to be looked at before the moment comes.
const AHEAD: Duration = Duration::from_secs(60);
const CLIENTS: usize = 4;

const MUST_WAKE_WITHIN: Duration = Duration::from_secs(60);
/// Of each node: connections, page caches, what the load leaves behind; nothing per parked run.
const MUST_MORE_BYTES: u64 = 64 << 20;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    machine::print_facts();
    let mut verdict = Verdict::new();
    if let Err(error) = postgres::check() {
        println!("SKIPPED    PostgreSQL: {error:#}");
        return Ok(verdict.end());
    }
    let mut nodes = Nodes::begin().await?;
    nodes.start(NODES).await?;
    let client = nodes.nodes[0].client();
    client.put_definition("workflows", "sleeper", SLEEPER).await?;
    short_run::define(&client).await?;
    let before = resident(&nodes)?;
    nodes.stop_nodes().await?;

    let store = PostgresStore::open(PostgresOptions::from_url(&nodes.url())?).await?;
    let (begun, shards) = (Instant::now(), u16::try_from(SHARDS)?);
    past::fill(&*store, IDLE, shards, Past::Asleep(past::now()?.after(DAY))).await?;
    let due = past::now()?.after(AHEAD);
    past::fill(&*store, WOKEN, shards, Past::Asleep(due)).await?;
    println!("{} runs were parked in {:.0} s", IDLE + WOKEN, begun.elapsed().as_secs_f64());
    for node in &mut nodes.nodes {
        node.restart().await?;
    }
    nodes.start(NODES).await?;
    let idle = resident(&nodes)?;
    let left = due.since(past::now()?);
    ensure!(!left.is_zero(), "the runs were due before the nodes were ready: the machine is too busy for this bench");
    let_pass(left).await;

    let moment = Instant::now();
    let work = short_run::submit(nodes.nodes[1].http());
    let storm = tokio::spawn(async move { closed_loop(&work, CLIENTS, Duration::ZERO, MUST_WAKE_WITHIN / 2).await });
    let waiting = async || {
        let counts = store.counts().await.ok()?;
        Some(counts.into_iter().filter(|(state, _)| *state == HeadState::Waiting).map(|(_, count)| count).sum::<u64>())
    };
    let all =
        until(MUST_WAKE_WITHIN * 3, "all are awake", async || (waiting().await? <= IDLE).then(|| moment.elapsed()));
    let woke = all.await?;
    let storm = storm.await??;
    let after = resident(&nodes)?;
    nodes.stop_nodes().await?;
    let entries = entries_of_sleepers(&nodes.url()).await?;
    store.close().await?;
    nodes.server.process.stop()?;

    println!("\n{:>8} {:>12} {:>12} {:>12}", "node", "none, MB", "parked, MB", "woken, MB");
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for number in 0..NODES {
        let [before, idle, after] = [&before, &idle, &after].map(|sitting| megabytes(sitting[number]));
        println!("{number:>8} {before:>12.1} {idle:>12.1} {after:>12.1}");
    }
    println!("\n{WOKEN} woke within {woke:?}: {:.0} per second", WOKEN as f64 / woke.as_secs_f64());
    println!("submissions meanwhile: p50 {:?}, p99 {:?}, most {:?}\n", storm.at(0.5), storm.at(0.99), storm.at(1.0));
    verdict.must(woke <= MUST_WAKE_WITHIN, format!("{WOKEN} runs woken within {MUST_WAKE_WITHIN:?}"));
    let more = idle.iter().zip(&before).map(|(idle, before)| idle.saturating_sub(*before)).max().unwrap_or_default();
    verdict.must(
        more < MUST_MORE_BYTES,
        format!("less than {} MB more on each node for a million parked runs", MUST_MORE_BYTES >> 20),
    );
    // One row for the submission of each, and one for what a wake-up led to.
    verdict.must(entries == IDLE + 2 * WOKEN, format!("each was woken once ({} were)", entries - (IDLE + WOKEN)));
    Ok(verdict.end())
}

fn resident(nodes: &Nodes) -> Result<Vec<u64>> {
    nodes.nodes.iter().map(Node::resident_bytes).collect()
}

async fn entries_of_sleepers(url: &str) -> Result<u64> {
    let mut connection = PgConnection::connect(url).await?;
    let (rows,): (i64,) =
        sqlx::query_as("select count(*) from journal join run on run.id = journal.run where run.workflow = 'sleeper'")
            .fetch_one(&mut connection)
            .await?;
    connection.close().await?;
    Ok(rows.unsigned_abs())
}
