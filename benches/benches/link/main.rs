//! The link between nodes beside what it stands on: 1 KiB messages between two processes on the loopback interface.
//!
//! Four ways in one run, each with both ends on two threads: the link, a bare tonic stream, bare tonic calls, and frames
//! with their length before them over TCP. The bare ones do nothing besides: no deadlines, no bounds, no resending, no
//! handlers. So they are floors, and what counts are the ratios.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

mod calls;
mod ours;
mod server;
mod tcp;
mod tonic_stream;
mod tonic_unary;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use motet_benches::machine;
use motet_benches::verdict::Verdict;

use self::calls::{Caller, Figures, closed_loop};
use self::server::Server;

const PAYLOAD_BYTES: usize = 1_024;
const CALLERS: [usize; 3] = [1, 64, 512];
const WARM_UP: Duration = Duration::from_millis(500);
const TIME: Duration = Duration::from_secs(3);
/// One-way messages of a measurement.
const MESSAGES: u64 = 500_000;
/// Sent and not yet acknowledged, for all ways alike.
const WINDOW: usize = 4_096;

const MUST_ONE_WAY: f64 = 0.5;
const MUST_CALLS: f64 = 1.5;

/// What one way reached.
struct Row {
    name: &'static str,
    one_way: Option<f64>,
    calls: Vec<Figures>,
}

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if server::is_asked_for() {
            return server::serve().await.map(|()| ExitCode::SUCCESS);
        }
        compare().await
    })
}

async fn compare() -> Result<ExitCode> {
    machine::print_facts();
    let server = Server::start()?;
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let link = Arc::new(ours::Ours::connect(server.link).await?);
    let stream = Arc::new(tonic_stream::Stream::connect(server.tonic).await?);
    let unary = Arc::new(tonic_unary::Unary::connect(server.tonic).await?);
    let tcp = Arc::new(tcp::Tcp::connect(server.tcp).await?);
    let mut rows = vec![];
    for round in 0..2 {
        // The first round warms up; only the second one counts.
        rows = vec![
            row("motet link", Some(link.one_way(&payload).await?), &link, &payload, round).await?,
            row("tonic stream", Some(stream.one_way(&payload).await?), &stream, &payload, round).await?,
            row("tonic unary", None, &unary, &payload, round).await?,
            row("framed TCP", Some(tcp.one_way(&payload).await?), &tcp, &payload, round).await?,
        ];
    }
    println!("cores busy besides: {:.1}", machine::busy_cores(Duration::from_secs(1)).await);
    show(&rows);
    Ok(judge(&rows))
}

async fn row<C: Caller>(
    name: &'static str,
    one_way: Option<f64>,
    caller: &Arc<C>,
    payload: &Bytes,
    round: u32,
) -> Result<Row> {
    let mut calls = vec![];
    for callers in CALLERS {
        let (warm_up, time) = if round == 0 { (Duration::ZERO, WARM_UP) } else { (WARM_UP, TIME) };
        calls.push(closed_loop(caller, callers, payload, warm_up, time).await?);
    }
    Ok(Row { name, one_way, calls })
}

fn show(rows: &[Row]) {
    print!("{:<14} {:>12}", "1 KiB", "one-way/s");
    CALLERS.iter().for_each(|callers| print!(" {:>26}", format!("{callers} callers/s (p50, p99)")));
    println!();
    for row in rows {
        print!("{:<14} {:>12}", row.name, row.one_way.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")));
        for figures in &row.calls {
            let (p50, p99) = (figures.at(0.5), figures.at(0.99));
            print!(" {:>26}", format!("{:.0} ({p50:.2}, {p99:.2} ms)", figures.per_second));
        }
        println!();
    }
}

fn judge(rows: &[Row]) -> ExitCode {
    let [link, stream, unary, tcp] = rows else { return ExitCode::FAILURE };
    let one_way = |row: &Row| row.one_way.unwrap_or_default();
    let calls = |row: &Row, place: usize| row.calls[place].per_second;
    for other in [stream, unary, tcp] {
        let ratio = other.one_way.map_or_else(|| "-".to_owned(), |rate| format!("{:.2}", one_way(link) / rate));
        let ratios = CALLERS.iter().enumerate().map(|(place, _)| calls(link, place) / calls(other, place));
        let ratios: Vec<_> = ratios.map(|ratio| format!("{ratio:.2}")).collect();
        println!("the link is to {:<13} one-way {ratio:>5}, calls {}", other.name, ratios.join(", "));
    }
    let mut verdict = Verdict::new();
    let share = one_way(link) / one_way(stream);
    verdict.must(share >= MUST_ONE_WAY, format!("one-way: at least {MUST_ONE_WAY} of a bare tonic stream"));
    let share = calls(link, 1) / calls(unary, 1);
    verdict.must(share >= MUST_CALLS, format!("64 callers: at least {MUST_CALLS} times bare tonic calls"));
    verdict.end()
}
