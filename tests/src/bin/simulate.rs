//! Lives simulated worlds from the command line: one seed with its whole log, or many seeds with their counts.
//!
//! `simulate SEED` shows one world, `simulate --count N [FIRST]` lives N of them. Used by `make sim`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use motet_tests::seed::Seed;
use motet_tests::simulation::{check, simulate};

fn main() -> Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [seed] => one(seed.parse().context("the seed is no number")?),
        ["--count", count] => many(Seed::from_environment().draw() >> 32, count.parse()?),
        ["--count", count, first] => many(first.parse()?, count.parse()?),
        _ => anyhow::bail!("usage: simulate SEED | simulate --count N [FIRST]"),
    }
}

fn one(seed: u64) -> Result<ExitCode> {
    simulate(seed).log.iter().for_each(|line| println!("{line}"));
    match check(seed) {
        Ok(outcome) => {
            println!(
                "seed {seed}: {} runs, {} events, {} calls, {} crashes, {} writes fenced, {} collided; digest {}",
                outcome.runs,
                outcome.events,
                outcome.calls,
                outcome.crashes,
                outcome.fenced,
                outcome.collisions,
                outcome.digest
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(words) => {
            println!("{words}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn many(first: u64, count: u64) -> Result<ExitCode> {
    let begun = Instant::now();
    let (mut runs, mut events, mut crashes, mut failed) = (0, 0, 0, 0);
    for seed in first..first.saturating_add(count) {
        match check(seed) {
            Ok(outcome) => {
                runs += outcome.runs;
                events += outcome.events;
                crashes += outcome.crashes;
            }
            Err(words) => {
                println!("{words}\n");
                failed += 1;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{count} seeds from {first} on, twice each: {runs} runs, {events} events, {crashes} crashes, {failed} seeds failed, {seconds:.1} s"
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
