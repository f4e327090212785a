//! Durable runs per second with one, two and three nodes over one PostgreSQL, beside what the database itself does.
//!
//! All of it shares one machine, so that further nodes bring no further processors: what is measured is what being
//! several costs, not what it brings.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use motet_benches::load::{Reached, closed_loop};
use motet_benches::nodes::Nodes;
use motet_benches::peers::postgres;
use motet_benches::verdict::Verdict;
use motet_benches::{floor, machine, three_steps};

const MOST_NODES: usize = 3;
/// Over all nodes.
const CLIENTS: [usize; 2] = [1, 192];
const WARM_UP: Duration = Duration::from_secs(2);
const TIME: Duration = Duration::from_secs(8);
const FLOOR_TIME: Duration = Duration::from_secs(3);
const GROUPED_ROWS: usize = 64;

/// Of the runs per second of one node that three must keep on the same two processors.
const AIM_SHARE: f64 = 0.5;

struct Point {
    nodes: usize,
    clients: usize,
    runs_per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Of the runs per second that bare commits allow on the same server.
    of_floor: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    machine::print_facts();
    let mut verdict = Verdict::new();
    if let Err(error) = postgres::check() {
        println!("SKIPPED    PostgreSQL: {error:#}");
        return Ok(verdict.end());
    }
    let mut points = vec![];
    for count in 1..=MOST_NODES {
        points.extend(measure(count).await?);
    }
    println!(
        "\n{:>6} {:>8} {:>10} {:>10} {:>10} {:>13}",
        "nodes", "clients", "runs/s", "p50 ms", "p99 ms", "of the floor"
    );
    for point in &points {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{:>6} {:>8} {:>10.0} {:>10.2} {:>10.2} {:>12.0}%",
            point.nodes,
            point.clients,
            point.runs_per_second,
            millis(point.p50),
            millis(point.p99),
            point.of_floor * 100.0
        );
    }
    println!();
    let crowd = |nodes: usize| points.iter().find(|point| point.nodes == nodes && point.clients == CLIENTS[1]);
    if let (Some(one), Some(three)) = (crowd(1), crowd(MOST_NODES)) {
        let share = three.runs_per_second / one.runs_per_second;
        let clients = CLIENTS[1];
        verdict.aim(
            share >= AIM_SHARE,
            format!(
                "three nodes keep {:.0} % of one node's runs/s at {clients} clients, kept {:.0} %",
                AIM_SHARE * 1e2,
                share * 1e2
            ),
        );
    }
    Ok(verdict.end())
}

async fn measure(count: usize) -> Result<Vec<Point>> {
    let mut nodes = Nodes::begin().await?;
    nodes.start(count).await?;
    three_steps::define(&nodes.nodes[0].client()).await?;
    load(&nodes, 16, WARM_UP).await?;
    let mut loads = vec![];
    for clients in CLIENTS {
        machine::wait_until_quiet().await;
        loads.push((clients, load(&nodes, clients, TIME).await?));
    }
    nodes.stop_nodes().await?;
    let written = floor::postgres::written(&nodes.url()).await?;
    machine::wait_until_quiet().await;
    let bare = floor::postgres::measure(&nodes.url(), GROUPED_ROWS, written.payload_bytes, FLOOR_TIME).await?;
    let allowed = bare.rows_per_second() * written.runs as f64 / written.rows.max(1) as f64;
    println!("{count} nodes: the floor does {:.0} rows/s, which allows {allowed:.0} runs/s", bare.rows_per_second());
    nodes.server.process.stop()?;
    let point = |(clients, reached): (usize, Vec<Reached>)| {
        let mut times = reached[0].times.clone();
        for other in &reached[1..] {
            times.add(&other.times).unwrap();
        }
        let at = |quantile| Duration::from_micros(times.value_at_quantile(quantile));
        let runs_per_second = reached.iter().map(|reached| reached.runs_per_second).sum();
        let of_floor = runs_per_second / allowed;
        Point { nodes: count, clients, runs_per_second, p50: at(0.5), p99: at(0.99), of_floor }
    };
    Ok(loads.into_iter().map(point).collect())
}

/// Clients spread over the nodes, as behind a load balancer.
async fn load(nodes: &Nodes, clients: usize, time: Duration) -> Result<Vec<Reached>> {
    let (http, count) = (nodes.http(), nodes.nodes.len());
    let shares = http
        .iter()
        .enumerate()
        .map(|(number, http)| (three_steps::submit(*http), clients / count + usize::from(number < clients % count)));
    let busy = shares.filter(|(_, share)| *share > 0);
    try_join_all(busy.map(async |(work, share)| closed_loop(&work, share, Duration::ZERO, time).await)).await
}
