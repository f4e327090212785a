//! How fast the records of a stream may begin runs: its rate, of which a node has the share of its partitions.
//!
//! Never waits; says how long to. Nodes do not ask each other, so while partitions move the sum may differ for a second.
//! Used by the streams of a node.

use std::time::{Duration, Instant};

use dashmap::DashMap;
use motet_engine::definition::Rate;
use motet_engine::id::{Name, Namespace};

use crate::pace::Pace;

/// The tokens of one stream.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    pace: Pace,
    /// Partitions that this node has, of those that somebody has.
    share: (u32, u32),
}

/// The tokens of every stream that has a rate.
#[derive(Debug)]
pub(crate) struct Pacing {
    begun: Instant,
    buckets: DashMap<(Namespace, Name), Bucket>,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { begun: Instant::now(), buckets: DashMap::new() }
    }
}

impl Pacing {
    /// Takes tokens for so many records, or says how long until they are there.
    pub(crate) fn take(&self, namespace: &Namespace, stream: &Name, rate: Rate, records: u32) -> Result<(), Duration> {
        let fresh = || Bucket { rate, pace: Pace::new(rate.count, rate.per), share: (1, 1) };
        let mut bucket = self.buckets.entry((namespace.clone(), stream.clone())).or_insert_with(fresh);
        if bucket.rate != rate {
            *bucket = Bucket { share: bucket.share, ..fresh() };
        }
        // Of a node with a quarter of the partitions each record costs what four do.
        let (own, all) = bucket.share;
        let cost = (u64::from(records) * u64::from(all)).div_ceil(u64::from(own.max(1)));
        bucket.pace.take(self.begun.elapsed(), u32::try_from(cost).unwrap_or(u32::MAX))
    }

    /// Says how many of a stream's partitions are this node's.
    pub(crate) fn share(&self, namespace: &Namespace, stream: &Name, own: u32, all: u32) {
        if let Some(mut bucket) = self.buckets.get_mut(&(namespace.clone(), stream.clone())) {
            bucket.share = (own.max(1), all.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_its_share_of_the_rate() {
        let (namespace, name) = (Namespace::default(), Name::new("orders").unwrap());
        let rate = Rate { count: 100, per: Duration::from_secs(36_000) };
        for (own, all, fits) in [(1, 1, 100), (1, 4, 25), (3, 4, 50), (4, 4, 100)] {
            let pacing = Pacing::default();
            pacing.take(&namespace, &name, rate, 0).unwrap();
            pacing.share(&namespace, &name, own, all);
            let taken = (0..200).take_while(|_| pacing.take(&namespace, &name, rate, 1).is_ok()).count();
            assert_eq!(taken, fits, "{own} of {all}: a record costs whole tokens");
            let other = Rate { count: 1, ..rate };
            assert!(pacing.take(&namespace, &name, other, 0).is_ok(), "another rate begins anew");
        }
    }
}
