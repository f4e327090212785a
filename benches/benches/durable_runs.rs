//! Durable runs per second: three model steps of 128 bytes each, over HTTP, every event on the disk before it counts;
//! on SQLite and on PostgreSQL.
//!
//! The load generator shares the machine. Beside each figure stands what bare commits allow on the same disk at the
//! same moment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use motet_benches::floor::{self, Floor, Written};
use motet_benches::load::{Reached, closed_loop};
use motet_benches::peers::postgres::{self, Postgres};
use motet_benches::verdict::Verdict;
use motet_benches::{machine, peers, three_steps};
use motet_tests::client::Client;
use motet_tests::node::{Node, NodeSettings};

const CLIENTS: [usize; 3] = [1, 64, 256];
const WARM_UP: Duration = Duration::from_secs(2);
const TIME: Duration = Duration::from_secs(8);
const FLOOR_TIME: Duration = Duration::from_secs(3);

/// Rows in each commit of the floor that many clients are compared with: about as many as they form.
const GROUPED_ROWS: usize = 64;

/// Steps of a run.
const STEPS: f64 = 3.0;

/// What the release build must reach.
const MUST_RUNS_PER_SECOND: f64 = 3_000.0;
const MUST_EVENTS_PER_COMMIT: f64 = 16.0;
const COMMITS_AT_ONE_CLIENT: u32 = 8;

/// What it should reach on PostgreSQL with the most clients.
const AIM_OF_FLOOR: f64 = 0.5;
const AIM_COMMITS_PER_STEP: f64 = 0.2;

/// One store under test.
struct Sitting {
    store: &'static str,
    points: Vec<Point>,
    single: Floor,
    grouped: Floor,
    written: Written,
}

struct Point {
    reached: Reached,
    events_per_commit: f64,
    commits_per_run: f64,
    /// Of the write-ahead log, where the store tells.
    log_bytes_per_run: Option<f64>,
}

impl Sitting {
    fn rows_per_run(&self) -> f64 {
        self.written.rows as f64 / self.written.runs.max(1) as f64
    }

    /// Whether the store is a process of its own.
    fn is_server(&self) -> bool {
        self.points.iter().any(|point| point.log_bytes_per_run.is_some())
    }

    /// Runs per second that the floor allows.
    fn allowed(&self) -> f64 {
        self.grouped.rows_per_second() / self.rows_per_run()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    machine::print_facts();
    let mut verdict = Verdict::new();
    let sitting = on_sqlite().await?;
    sitting.print();
    sitting.judge(&mut verdict);
    match postgres::check() {
        Ok(()) => {
            let sitting = on_postgres().await?;
            sitting.print();
            sitting.judge(&mut verdict);
            sitting.judge_postgres(&mut verdict);
        }
        Err(error) => println!("SKIPPED    PostgreSQL: {error:#}"),
    }
    Ok(verdict.end())
}

async fn on_sqlite() -> Result<Sitting> {
    let folder = tempfile::tempdir_in(peers::ground())?;
    let mut node = Node::start(settings(&folder)).await?;
    let points = points(&node, None).await?;
    anyhow::ensure!(node.stop().await?.success(), "{}", node.log_tail());
    let written = floor::written(node.data()).await?;
    machine::wait_until_quiet().await;
    let single = floor::measure(folder.path(), 1, written.payload_bytes, FLOOR_TIME).await?;
    let grouped = floor::measure(folder.path(), GROUPED_ROWS, written.payload_bytes, FLOOR_TIME).await?;
    Ok(Sitting { store: "SQLite", points, single, grouped, written })
}

async fn on_postgres() -> Result<Sitting> {
    let folder = tempfile::tempdir_in(peers::ground())?;
    // The server's user has to get through.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
    let server = Postgres::start(folder.path()).await?;
    let url = server.url("postgres");
    let mut node = Node::prepare(settings(&folder).with("MOTET__STORE__URL", &url));
    motet_tests::node::migrate(&url)?;
    node.restart().await?;
    let points = points(&node, Some(&url)).await?;
    anyhow::ensure!(node.stop().await?.success(), "{}", node.log_tail());
    let written = floor::postgres::written(&url).await?;
    machine::wait_until_quiet().await;
    let single = floor::postgres::measure(&url, 1, written.payload_bytes, FLOOR_TIME).await?;
    let grouped = floor::postgres::measure(&url, GROUPED_ROWS, written.payload_bytes, FLOOR_TIME).await?;
    server.process.stop()?;
    Ok(Sitting { store: "PostgreSQL", points, single, grouped, written })
}

fn settings(folder: &tempfile::TempDir) -> NodeSettings {
    NodeSettings::new(folder.path().join("data")).with("MOTET__LOG__FILTER", "warn")
}

async fn points(node: &Node, database: Option<&str>) -> Result<Vec<Point>> {
    let client = node.client();
    three_steps::define(&client).await?;
    closed_loop(&three_steps::submit(node.http()), 16, Duration::ZERO, WARM_UP).await?;
    let mut points = vec![];
    for clients in CLIENTS {
        machine::wait_until_quiet().await;
        points.push(point(node, &client, database, clients).await?);
    }
    Ok(points)
}

async fn point(node: &Node, client: &Client, database: Option<&str>, clients: usize) -> Result<Point> {
    let counters = async || -> Result<[f64; 3]> {
        let log_bytes = match database {
            Some(url) => floor::postgres::log_bytes(url).await?,
            None => 0.0,
        };
        let commits = client.metric("motet_store_commits_total").await?;
        Ok([commits, client.metric("motet_store_events_total").await?, log_bytes])
    };
    let before = counters().await?;
    let reached = closed_loop(&three_steps::submit(node.http()), clients, Duration::ZERO, TIME).await?;
    let after = counters().await?;
    let [commits, events, log_bytes] = [0, 1, 2].map(|place| after[place] - before[place]);
    let runs = (reached.times.len() as f64).max(1.0);
    Ok(Point {
        reached,
        events_per_commit: events / commits.max(1.0),
        commits_per_run: commits / runs,
        log_bytes_per_run: database.map(|_| log_bytes / runs),
    })
}

impl Sitting {
    fn print(&self) {
        println!("\n{}", self.store);
        for floor in [self.single, self.grouped] {
            println!(
                "floor      {:>3} rows of {} bytes per commit: {:>7.0} commits/s, {:>8.0} rows/s, p50 {:?}, p99 {:?}",
                floor.rows,
                self.written.payload_bytes,
                floor.commits,
                floor.rows_per_second(),
                floor.p50,
                floor.p99
            );
        }
        let (rows, allowed) = (self.rows_per_run(), self.allowed());
        println!("a run      {rows:.2} rows of the journal, so the floor allows {allowed:.0} runs/s\n");
        println!(
            "{:>8} {:>10} {:>10} {:>10} {:>14} {:>12} {:>12} {:>13}",
            "clients", "runs/s", "p50 ms", "p99 ms", "events/commit", "commits/run", "WAL B/run", "of the floor"
        );
        for point in &self.points {
            let reached = &point.reached;
            let millis = |quantile| reached.at(quantile).as_secs_f64() * 1e3;
            println!(
                "{:>8} {:>10.0} {:>10.2} {:>10.2} {:>14.1} {:>12.3} {:>12} {:>12.0}%",
                reached.clients,
                reached.runs_per_second,
                millis(0.5),
                millis(0.99),
                point.events_per_commit,
                point.commits_per_run,
                point.log_bytes_per_run.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}")),
                reached.runs_per_second / allowed * 100.0
            );
        }
        println!();
    }

    fn judge(&self, verdict: &mut Verdict) {
        let (alone, crowd) = (&self.points[0], &self.points[self.points.len() - 1]);
        let (store, clients) = (self.store, crowd.reached.clients);
        verdict.must(
            crowd.reached.runs_per_second >= MUST_RUNS_PER_SECOND,
            format!("{store}: at least {MUST_RUNS_PER_SECOND} runs/s at {clients} clients"),
        );
        verdict.must(
            crowd.events_per_commit > MUST_EVENTS_PER_COMMIT,
            format!("{store}: more than {MUST_EVENTS_PER_COMMIT} events per commit at {clients} clients"),
        );
        let bound = self.single.p50 * COMMITS_AT_ONE_CLIENT;
        let (near, goal) = (
            alone.reached.at(0.5) <= bound,
            format!("{store}: p50 at one client within the time of {COMMITS_AT_ONE_CLIENT} commits ({bound:?})"),
        );
        // On PostgreSQL every commit is also two hops between processes, so that there it is an aim.
        if self.is_server() { verdict.aim(near, goal) } else { verdict.must(near, goal) }
    }

    fn judge_postgres(&self, verdict: &mut Verdict) {
        let crowd = &self.points[self.points.len() - 1];
        let clients = crowd.reached.clients;
        let events = crowd.reached.runs_per_second * crowd.events_per_commit * crowd.commits_per_run;
        let share = events / self.grouped.rows_per_second();
        println!("PostgreSQL: {events:.0} events/s are {:.0} % of the floor's rows/s", share * 100.0);
        verdict.aim(
            share > AIM_OF_FLOOR,
            format!(
                "PostgreSQL: as many events as {:.0} % of the floor's rows at {clients} clients",
                AIM_OF_FLOOR * 100.0
            ),
        );
        verdict.aim(
            crowd.commits_per_run / STEPS < AIM_COMMITS_PER_STEP,
            format!("PostgreSQL: fewer than {AIM_COMMITS_PER_STEP} commits per step at {clients} clients"),
        );
    }
}
