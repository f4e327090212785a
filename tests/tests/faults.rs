//! The rows of the fault matrix against the real binary: faults from outside, under load, and the proof that nothing
//! was lost, doubled or changed.
//!
//! `make test` does some of each, `make test-full` what a change must pass, `make chaos` a night's worth; `ROW=F3`
//! picks one. Every row prints its seed; `MOTET_TEST_SEED` sets it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/cluster.rs"]
mod cluster;
#[path = "faults/cut.rs"]
mod cut;
#[path = "faults/database.rs"]
mod database;
#[path = "faults/disk_full.rs"]
mod disk_full;
#[path = "faults/duplicates.rs"]
mod duplicates;
#[path = "faults/flush.rs"]
mod flush;
#[path = "faults/freeze.rs"]
mod freeze;
#[path = "faults/kill.rs"]
mod kill;
#[path = "faults/overload.rs"]
mod overload;
#[path = "faults/points.rs"]
mod points;

use motet_tests::faults::load::Tally;

/// One line per row: what was done and what came of it.
fn report(row: &str, what: &str, tally: &Tally) {
    let Tally { runs, repeated, witnessed, settled } = tally;
    let settled = settled.as_secs_f64();
    println!(
        "{row}: {what}; {runs} runs, lost 0, doubled 0, changed 0; {repeated} submissions repeated, {witnessed} runs \
         read meanwhile, settled after {settled:.1} s"
    );
}
