//! How long work stood still, read from the times in the journals.
//!
//! Knows nothing of leases or of who owns what: only what was written when. Used by the rows of the fault matrix about
//! clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use motet_engine::id::{RunId, ShardId};
use motet_engine::time::Timestamp;

use crate::journal::Kept;

/// A fault, and the shards whose owner it took.
#[derive(Debug, Clone)]
pub struct Outage {
    /// When it began.
    pub at: Timestamp,
    /// Nobody served these from then on, until others took them.
    pub shards: BTreeSet<ShardId>,
}

/// When owners of shards have written, shard by shard.
#[derive(Debug)]
pub struct Work {
    shards: BTreeMap<ShardId, Vec<Timestamp>>,
}

impl Work {
    /// Of everything that a store holds.
    ///
    /// # Errors
    /// When a run has an id that is none.
    pub fn of(kept: &BTreeMap<String, Kept>) -> Result<Self> {
        let mut shards: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (run, kept) in kept {
            shards.entry(RunId::from_str(run)?.shard()).or_default().extend(&kept.written);
        }
        shards.values_mut().for_each(|times| times.sort_unstable());
        Ok(Self { shards })
    }

    /// How long after each fault the first work was done on each of its shards, sorted. That is longer than they were
    /// unserved by the time in which nothing was to be done.
    ///
    /// # Errors
    /// When nothing was done there any more.
    pub fn resumed(&self, outages: &[Outage]) -> Result<Vec<Duration>> {
        let mut resumed = vec![];
        for Outage { at, shards } in outages {
            for shard in shards {
                let times = self.shards.get(shard).map(Vec::as_slice).unwrap_or_default();
                let first = times.get(times.partition_point(|time| time <= at));
                let first = first.with_context(|| format!("no more work was done on shard {shard}"))?;
                resumed.push(first.since(*at));
            }
        }
        resumed.sort_unstable();
        Ok(resumed)
    }

    /// The longest time between two moments in which nothing at all was done.
    #[must_use]
    pub fn longest_silence(&self, from: Timestamp, to: Timestamp) -> Duration {
        let mut times: Vec<_> = self.shards.values().flatten().copied().filter(|at| *at > from && *at < to).collect();
        times.extend([from, to]);
        times.sort_unstable();
        times.windows(2).map(|two| two[1].since(two[0])).max().unwrap_or_default()
    }
}

/// The value below which this part of sorted values lies, in percent.
#[must_use]
pub fn percentile(sorted: &[Duration], part: usize) -> Duration {
    sorted.get((sorted.len() * part).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}
