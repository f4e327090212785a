//! The seeded simulation over some hundred seeds; `make test-full` lives ten times as many.
//!
//! The first seeds are always the same, the rest begin at a printed number. `make sim SEED=n` shows one again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use motet_tests::scale::Scale;
use motet_tests::seed::Seed;
use motet_tests::simulation::{check, simulate};

/// Seeds in the short form: the same ones every time, and fresh ones.
const FIXED: u64 = 150;
const FRESH: u64 = 150;

fn live(seeds: std::ops::Range<u64>) {
    let (mut runs, mut events, mut crashes, mut fenced, mut collisions) = (0, 0, 0, 0, 0);
    let mut failures = vec![];
    let count = seeds.end - seeds.start;
    for seed in seeds {
        match check(seed) {
            Ok(outcome) => {
                runs += outcome.runs;
                events += outcome.events;
                crashes += outcome.crashes;
                fenced += outcome.fenced;
                collisions += outcome.collisions;
            }
            Err(words) => failures.push(words),
        }
    }
    println!(
        "{count} seeds: {runs} runs, {events} events, {crashes} crashes, {fenced} fenced, {collisions} collisions"
    );
    assert!(failures.is_empty(), "{} of {count} seeds failed; the first:\n{}", failures.len(), failures[0]);
    // A simulation in which nothing goes wrong proves nothing.
    assert!(runs > count && crashes > 0 && fenced > 0 && collisions > 0);
}

#[test]
fn the_seeds_of_old_hold() {
    live(0..FIXED * Scale::from_environment().pick(1, 10, 100));
}

#[test]
fn fresh_seeds_hold() {
    let first = Seed::from_environment().draw() >> 32;
    live(first..first + FRESH * Scale::from_environment().pick(1, 10, 100));
}

#[test]
fn another_seed_is_another_history() {
    assert_ne!(simulate(1).digest, simulate(2).digest);
}
