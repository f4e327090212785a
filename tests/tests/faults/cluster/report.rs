//! What a group of rows proves in the end, and the lines that it prints.
//!
//! Used by every row of the cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use motet_tests::faults::audit;
use motet_tests::faults::load::Load;
use motet_tests::history::outage::{Work, percentile};

use super::{Cluster, TAKEN_OVER};

/// Longest time without a leader.
const LEADERLESS: Duration = Duration::from_secs(15);

/// Longest time without any work in the whole cluster while a fault is made that must not be felt.
const SILENCE: Duration = Duration::from_secs(3);

impl Cluster {
    /// Waits for the end of every run, proves everything, and prints it.
    pub(super) async fn prove(self, load: Load, rows: &str, what: &str) -> Result<()> {
        // A node that has died has taken its count along.
        let fenced = self.metric("motet_writes_fenced_total").await;
        let led = self.leader.finish();
        let (tally, kept) = load.prove_on(self.nodes, &self.backing).await?;
        let seen = audit::prove(self.backing.server()?)?;
        let later: u64 = kept.values().map(|kept| kept.written.len() as u64).sum();
        ensure!(seen.entries >= later, "{later} entries are there, and {} were watched", seen.entries);
        let work = Work::of(&kept)?;
        let (mut taken, resumed, longest) = (self.taken_over, work.resumed(&self.outages)?, led.longest());
        taken.sort_unstable();
        let silence = self.quiet.iter().map(|(from, to)| work.longest_silence(*from, *to)).max().unwrap_or_default();
        super::super::report(rows, what, &tally);
        println!("{rows}: {} entries written by the owners of their shards, 0 by others", seen.entries);
        println!("{rows}: without a leader for {longest:.1?} at most, {} terms", led.terms);
        if !taken.is_empty() {
            println!("{rows}: shards taken over within {}", times(&taken));
            println!("{rows}: work resumed within {} of the fault, shard by shard", times(&resumed));
            let refused = self.refused;
            println!("{rows}: {refused} writes of stale owners tried and refused, {fenced} of the nodes' own refused");
        }
        if !self.quiet.is_empty() {
            let faults = self.quiet.len();
            println!("{rows}: without any work for {silence:.1?} at most during {faults} faults that must not be felt");
        }
        ensure!(longest < LEADERLESS, "nobody led for {longest:?}");
        let slowest = resumed.last().copied().unwrap_or_default();
        ensure!(slowest < TAKEN_OVER, "on a shard no work was done for {slowest:?} after its owner was gone");
        ensure!(silence < SILENCE, "nothing at all was done for {silence:?} during a fault that must not be felt");
        Ok(())
    }
}

/// Sorted times in a few words.
pub(super) fn times(sorted: &[Duration]) -> String {
    let at = |part: usize| percentile(sorted, part);
    format!("p50 {:.1?}, p99 {:.1?}, most {:.1?} ({} times)", at(50), at(99), at(100), sorted.len())
}
