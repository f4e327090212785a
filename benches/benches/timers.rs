//! A hundred thousand timers of one second: how long until all have fired, and what new submissions feel of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use motet_benches::load::closed_loop;
use motet_benches::machine;
use motet_benches::short_run;
use motet_benches::verdict::Verdict;
use motet_engine::event::Event;
use motet_store::port::HeadState;
use motet_tests::journal;
use motet_tests::node::{Node, NodeSettings};
use motet_tests::past::{self, Past, SLEEPER};
use motet_tests::place::build_folder;
use motet_tests::waiting::let_pass;

const RUNS: u64 = 100_000;
const SHARDS: u16 = 64;
/// Enough for the node to start before the second comes.
const AHEAD: Duration = Duration::from_secs(30);
const MUST_FIRE_WITHIN: Duration = Duration::from_secs(30);
const MUST_ANSWER_WITHIN: Duration = Duration::from_secs(1);
const CLIENTS: usize = 4;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    machine::print_facts();
    let folder = tempfile::tempdir_in(build_folder())?;
    let data = folder.path().join("data");
    let mut node = Node::start(NodeSettings::new(&data).with("MOTET__LOG__FILTER", "warn")).await?;
    let client = node.client();
    client.put_definition("workflows", "sleeper", SLEEPER).await?;
    short_run::define(&client).await?;
    ensure!(node.stop().await?.success(), "{}", node.log_tail());
    let due = past::now()?.after(AHEAD);
    past::fill_folder(&data, RUNS, SHARDS, Past::Asleep(due)).await?;
    let ready = node.restart().await?;
    println!("ready after {:.0} ms over {RUNS} runs that sleep", ready.as_secs_f64() * 1e3);
    let left = due.since(past::now()?);
    ensure!(!left.is_zero(), "the runs were due before the node was ready: the machine is too busy for this bench");
    let calm =
        closed_loop(&short_run::submit(node.http()), CLIENTS, Duration::ZERO, Duration::from_secs(3).min(left)).await?;
    let_pass(due.since(past::now()?)).await;
    let begun = Instant::now();
    let storm = closed_loop(&short_run::submit(node.http()), CLIENTS, Duration::ZERO, MUST_FIRE_WITHIN).await?;
    println!("submissions were made for {:.0} s while the timers fired", begun.elapsed().as_secs_f64());
    ensure!(node.stop().await?.success(), "{}", node.log_tail());

    let (mut fired, mut again, mut late) = (0u64, 0u64, 0u64);
    let mut ends = vec![];
    for kept in journal::read_timed(&data, "sleeper").await? {
        let woken = kept.events.iter().filter(|(_, event)| matches!(event, Event::WaitEnded { .. })).count();
        fired += u64::from(woken == 1 && kept.state == HeadState::Succeeded);
        again += u64::from(woken > 1);
        let end = kept.events.last().map_or(Duration::MAX, |(at, _)| at.since(due));
        late += u64::from(end > MUST_FIRE_WITHIN);
        ends.push(end);
    }
    ends.sort_unstable();
    let at = |part: f64| ends[((ends.len() - 1) as f64 * part) as usize];
    println!("\nfired after the second: half {:?}, 99 % {:?}, all {:?}", at(0.5), at(0.99), at(1.0));
    println!("{:.0} timers per second", RUNS as f64 / at(1.0).as_secs_f64().max(0.001));
    for (what, reached) in [("before", &calm), ("during", &storm)] {
        println!(
            "submissions {what}: p50 {:?}, p99 {:?}, most {:?}",
            reached.at(0.5),
            reached.at(0.99),
            reached.at(1.0)
        );
    }
    println!();
    let mut verdict = Verdict::new();
    verdict.must(fired == RUNS, format!("each of {RUNS} timers fired ({fired} did)"));
    verdict.must(again == 0, format!("none fired twice ({again} did)"));
    verdict.must(late == 0, format!("all within {MUST_FIRE_WITHIN:?} ({late} came later)"));
    verdict.must(
        storm.at(0.99) < MUST_ANSWER_WITHIN,
        format!("99 % of submissions answered within {MUST_ANSWER_WITHIN:?}"),
    );
    Ok(verdict.end())
}
