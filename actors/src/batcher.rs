//! Which waiting calls form the next batch: a pure data structure, told the time.
//!
//! Bounds a batch by rows, bytes and length, keeps calls of different length buckets apart, serves higher priorities first
//! without starving lower ones, and never gives out a call whose deadline has passed. Knows no model and no actor.
//! Used by the model actor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use motet_engine::definition::BatchPolicy;

use crate::turn::Turn;

/// A call that waits for its batch.
#[derive(Debug)]
pub struct Waiting<T> {
    /// The call.
    pub item: T,
    /// Rows that it adds to a batch.
    pub rows: u32,
    /// Bytes that it adds to a batch.
    pub bytes: u64,
    /// Length in the unit of the buckets.
    pub length: u32,
    /// What must be equal for calls to share a batch: a digest of names, types and shapes of a row.
    pub form: u64,
    /// Higher goes first, until the others have waited long enough.
    pub priority: i8,
    /// When it is of no use any more.
    pub deadline: Instant,
    /// When it arrived.
    pub arrived: Instant,
}

/// Why a batch leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// It has as many rows as one may have.
    Rows,
    /// It has as many bytes as one may have.
    Bytes,
    /// Its rows are together as long as they may be.
    Length,
    /// Its oldest call has waited for the window.
    Window,
    /// A replica was free, and nothing is to be waited for.
    Free,
}

impl Departure {
    /// Its name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Length => "length",
            Self::Window => "window",
            Self::Free => "free",
        }
    }
}

/// Calls that leave together.
#[derive(Debug)]
pub struct Batch<T> {
    /// The calls, in their order.
    pub calls: Vec<Waiting<T>>,
    /// Why they leave now.
    pub departure: Departure,
}

/// Calls that wait, by length bucket and form.
#[derive(Debug)]
pub struct Batcher<T> {
    policy: BatchPolicy,
    capacity: usize,
    /// Arrivals are counted from here.
    begun: Instant,
    arrivals: u64,
    len: usize,
    buckets: BTreeMap<(u32, u64), Bucket<T>>,
}

#[derive(Debug)]
struct Bucket<T> {
    waiting: BTreeMap<Turn, Waiting<T>>,
    /// The same calls by arrival and by deadline, so that nothing is searched.
    arrivals: BTreeSet<(Instant, Turn)>,
    deadlines: BTreeSet<(Instant, Turn)>,
    rows: u64,
    bytes: u64,
    /// Sum of the lengths of all rows.
    length: u64,
}

impl<T> Waiting<T> {
    /// What it adds to the length of a batch: it is computed as if every row had the length of the longest.
    fn total_length(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.length)
    }
}

impl<T> Default for Bucket<T> {
    fn default() -> Self {
        let (arrivals, deadlines) = (BTreeSet::new(), BTreeSet::new());
        Self { waiting: BTreeMap::new(), arrivals, deadlines, rows: 0, bytes: 0, length: 0 }
    }
}

impl<T> Bucket<T> {
    fn insert(&mut self, turn: Turn, waiting: Waiting<T>) {
        self.rows += u64::from(waiting.rows);
        self.bytes = self.bytes.saturating_add(waiting.bytes);
        self.length = self.length.saturating_add(waiting.total_length());
        self.arrivals.insert((waiting.arrived, turn));
        self.deadlines.insert((waiting.deadline, turn));
        self.waiting.insert(turn, waiting);
    }

    fn remove(&mut self, turn: Turn) -> Option<Waiting<T>> {
        let waiting = self.waiting.remove(&turn)?;
        self.rows -= u64::from(waiting.rows);
        self.bytes = self.bytes.saturating_sub(waiting.bytes);
        self.length = self.length.saturating_sub(waiting.total_length());
        self.arrivals.remove(&(waiting.arrived, turn));
        self.deadlines.remove(&(waiting.deadline, turn));
        Some(waiting)
    }

    fn oldest(&self) -> Option<Instant> {
        self.arrivals.first().map(|(arrived, _)| *arrived)
    }

    /// Why it may leave, if it may.
    fn departure(&self, policy: &BatchPolicy, now: Instant) -> Option<Departure> {
        let waited = now.saturating_duration_since(self.oldest()?);
        match policy {
            _ if self.rows >= u64::from(policy.max) => Some(Departure::Rows),
            _ if self.bytes >= policy.max_bytes => Some(Departure::Bytes),
            _ if self.length >= policy.max_length => Some(Departure::Length),
            _ if policy.window.is_zero() => Some(Departure::Free),
            _ => (waited >= policy.window).then_some(Departure::Window),
        }
    }
}

impl<T> Batcher<T> {
    /// An empty batcher for at most `capacity` waiting calls.
    #[must_use]
    pub fn new(policy: BatchPolicy, capacity: usize) -> Self {
        Self { policy, capacity, begun: Instant::now(), arrivals: 0, len: 0, buckets: BTreeMap::new() }
    }

    /// Calls that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no call waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets a call wait.
    ///
    /// # Errors
    /// Gives the call back when the batcher is full.
    pub fn push(&mut self, waiting: Waiting<T>) -> Result<(), Waiting<T>> {
        if self.len >= self.capacity {
            return Err(waiting);
        }
        self.arrivals += 1;
        self.len += 1;
        let after = waiting.arrived.saturating_duration_since(self.begun);
        let turn = Turn::new(after, waiting.priority, self.arrivals);
        let bounds = &self.policy.buckets;
        let bucket = bounds.iter().copied().find(|bound| waiting.length <= *bound).unwrap_or(u32::MAX);
        self.buckets.entry((bucket, waiting.form)).or_default().insert(turn, waiting);
        Ok(())
    }

    /// Takes out every call whose deadline has passed.
    pub fn expire(&mut self, now: Instant) -> Vec<Waiting<T>> {
        let mut expired = vec![];
        for bucket in self.buckets.values_mut() {
            while let Some(&(deadline, turn)) = bucket.deadlines.first() {
                if deadline > now {
                    break;
                }
                expired.extend(bucket.remove(turn));
            }
        }
        self.len -= expired.len();
        self.buckets.retain(|_, bucket| !bucket.waiting.is_empty());
        expired
    }

    /// Takes out every call.
    pub fn drain(&mut self) -> Vec<Waiting<T>> {
        self.len = 0;
        let buckets = std::mem::take(&mut self.buckets);
        buckets.into_values().flat_map(|bucket| bucket.waiting.into_values()).collect()
    }

    /// The next batch, or none while none is ready: a bucket is ready when it is full or when its oldest call has
    /// waited for the window. It has at most `most` calls. A call that is larger than a batch goes alone.
    pub fn take(&mut self, now: Instant, most: usize) -> Option<Batch<T>> {
        let ready = |(key, bucket): (&(u32, u64), &Bucket<T>)| {
            Some((bucket.waiting.keys().next().copied()?, *key, bucket.departure(&self.policy, now)?))
        };
        let (_, key, departure) = self.buckets.iter().filter_map(ready).min_by_key(|(turn, _, _)| *turn)?;
        let bucket = self.buckets.get_mut(&key)?;
        let (mut rows, mut bytes, mut length) = (0u64, 0u64, 0u64);
        let mut batch = vec![];
        while batch.len() < most
            && let Some((&turn, next)) = bucket.waiting.first_key_value()
        {
            rows += u64::from(next.rows);
            bytes = bytes.saturating_add(next.bytes);
            length = length.saturating_add(next.total_length());
            let fits = rows <= u64::from(self.policy.max)
                && bytes <= self.policy.max_bytes
                && length <= self.policy.max_length;
            if !fits && !batch.is_empty() {
                break;
            }
            batch.extend(bucket.remove(turn));
        }
        if bucket.waiting.is_empty() {
            self.buckets.remove(&key);
        }
        self.len -= batch.len();
        Some(Batch { calls: batch, departure })
    }

    /// When [`Batcher::take`] will have a batch although nothing arrives; none while nothing waits.
    #[must_use]
    pub fn ready_at(&self) -> Option<Instant> {
        self.buckets.values().filter_map(Bucket::oldest).min().map(|arrived| arrived + self.policy.window)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn policy(max: u32, max_bytes: u64, window_ms: u64, buckets: &[u32]) -> BatchPolicy {
        let window = Duration::from_millis(window_ms);
        BatchPolicy { max, max_bytes, window, buckets: buckets.to_vec(), ..BatchPolicy::default() }
    }

    #[test]
    fn rows_are_together_no_longer_than_they_may_be() {
        let start = Instant::now();
        let long = BatchPolicy { max_length: 100, ..policy(64, 1 << 20, 60_000, &[]) };
        let mut batcher = Batcher::new(long, 64);
        for item in 0..5 {
            batcher.push(Waiting { length: 20, rows: 2, ..waiting(item, start) }).unwrap();
        }
        // Five calls of 40 each: two of them fit, and no window is waited for.
        let lengths = |batch: Option<Batch<u32>>| batch.map(|batch| (batch.calls.len(), batch.departure));
        assert_eq!(lengths(batcher.take(start, 64)), Some((2, Departure::Length)));
        assert_eq!(lengths(batcher.take(start, 64)), Some((2, Departure::Length)));
        assert_eq!(lengths(batcher.take(start, 64)), None, "40 is less than 100, and there is time");
        batcher.push(Waiting { length: 500, rows: 1, priority: 9, ..waiting(9, start) }).unwrap();
        assert_eq!(lengths(batcher.take(start, 64)), Some((1, Departure::Length)), "what is too long goes alone");
    }

    fn waiting(item: u32, start: Instant) -> Waiting<u32> {
        Waiting {
            item,
            rows: 1,
            bytes: 10,
            length: 0,
            form: 0,
            priority: 0,
            deadline: start + Duration::from_secs(60),
            arrived: start,
        }
    }

    fn items(batch: Option<Batch<u32>>) -> Vec<u32> {
        batch.map(|batch| batch.calls).unwrap_or_default().into_iter().map(|w| w.item).collect()
    }

    #[test]
    fn a_batch_says_why_it_leaves() {
        let start = Instant::now();
        let late = start + Duration::from_millis(50);
        for (policy, calls, now, expected) in [
            (policy(2, 1000, 50, &[]), 2, start, Some(Departure::Rows)),
            (policy(9, 20, 50, &[]), 2, start, Some(Departure::Bytes)),
            (policy(9, 1000, 50, &[]), 2, start, None),
            (policy(9, 1000, 50, &[]), 2, late, Some(Departure::Window)),
            (policy(9, 1000, 0, &[]), 1, start, Some(Departure::Free)),
            (policy(9, 1000, 0, &[]), 0, late, None),
        ] {
            let mut batcher = Batcher::new(policy.clone(), 10);
            for item in 0..calls {
                batcher.push(waiting(item, start)).unwrap();
            }
            assert_eq!(batcher.take(now, usize::MAX).map(|batch| batch.departure), expected, "{policy:?} {calls}");
        }
    }

    #[test]
    fn calls_of_different_form_never_share_a_batch() {
        let start = Instant::now();
        let mut batcher = Batcher::new(policy(10, 1000, 0, &[]), 10);
        for (item, form) in [(1, 7), (2, 8), (3, 7), (4, 8)] {
            batcher.push(Waiting { form, ..waiting(item, start) }).unwrap();
        }
        assert_eq!(items(batcher.take(start, usize::MAX)), [1, 3]);
        assert_eq!(items(batcher.take(start, usize::MAX)), [2, 4]);
    }

    #[test]
    fn a_full_bucket_goes_at_once_and_the_rest_waits_for_the_window() {
        let start = Instant::now();
        let mut batcher = Batcher::new(policy(2, 1000, 50, &[]), 10);
        for item in 1..=3 {
            batcher.push(waiting(item, start)).unwrap();
        }
        assert_eq!(items(batcher.take(start, usize::MAX)), [1, 2]);
        assert!(items(batcher.take(start, usize::MAX)).is_empty());
        assert_eq!(batcher.ready_at(), Some(start + Duration::from_millis(50)));
        assert_eq!(items(batcher.take(start + Duration::from_millis(50), usize::MAX)), [3]);
        assert!(batcher.is_empty());
    }

    #[test]
    fn bytes_bound_a_batch_and_a_large_call_goes_alone() {
        let start = Instant::now();
        let mut batcher = Batcher::new(policy(10, 25, 0, &[]), 10);
        batcher.push(Waiting { bytes: 100, ..waiting(1, start) }).unwrap();
        for item in 2..=4 {
            batcher.push(waiting(item, start)).unwrap();
        }
        assert_eq!(items(batcher.take(start, usize::MAX)), [1]);
        assert_eq!(items(batcher.take(start, usize::MAX)), [2, 3]);
        assert_eq!(items(batcher.take(start, usize::MAX)), [4]);
    }

    #[test]
    fn higher_priority_goes_first_and_buckets_do_not_mix() {
        let start = Instant::now();
        let mut batcher = Batcher::new(policy(10, 1000, 0, &[16, 64]), 10);
        batcher.push(Waiting { length: 10, ..waiting(1, start) }).unwrap();
        batcher.push(Waiting { length: 40, ..waiting(2, start) }).unwrap();
        batcher.push(Waiting { length: 12, ..waiting(3, start) }).unwrap();
        batcher.push(Waiting { length: 500, priority: 5, ..waiting(4, start) }).unwrap();
        assert_eq!(items(batcher.take(start, usize::MAX)), [4]);
        assert_eq!(items(batcher.take(start, usize::MAX)), [1, 3]);
        assert_eq!(items(batcher.take(start, usize::MAX)), [2]);
    }

    #[test]
    fn no_more_calls_are_taken_than_asked_for() {
        let start = Instant::now();
        let mut batcher = Batcher::new(policy(10, 1000, 0, &[]), 10);
        for item in 1..=5 {
            batcher.push(waiting(item, start)).unwrap();
        }
        assert_eq!(items(batcher.take(start, 2)), [1, 2]);
        assert_eq!(items(batcher.take(start, 9)), [3, 4, 5]);
    }

    #[test]
    fn what_waits_long_goes_before_what_came_later_with_a_higher_priority() {
        let start = Instant::now();
        let mut batcher = Batcher::new(policy(1, 1000, 0, &[]), 10);
        batcher.push(waiting(1, start)).unwrap();
        for (item, seconds) in [(2, 5), (3, 15)] {
            let arrived = start + Duration::from_secs(seconds);
            batcher.push(Waiting { priority: 1, arrived, ..waiting(item, start) }).unwrap();
        }
        let now = start + Duration::from_secs(20);
        let order: Vec<_> = std::iter::from_fn(|| batcher.take(now, usize::MAX))
            .flat_map(|batch| batch.calls)
            .map(|w| w.item)
            .collect();
        assert_eq!(order, [2, 1, 3]);
    }

    #[test]
    fn capacity_and_deadlines_are_kept() {
        let start = Instant::now();
        let mut batcher = Batcher::new(policy(10, 1000, 0, &[]), 2);
        batcher.push(Waiting { deadline: start, ..waiting(1, start) }).unwrap();
        batcher.push(waiting(2, start)).unwrap();
        assert_eq!(batcher.push(waiting(3, start)).unwrap_err().item, 3);
        assert_eq!(batcher.expire(start).into_iter().map(|w| w.item).collect::<Vec<_>>(), [1]);
        assert_eq!(items(batcher.take(start, usize::MAX)), [2]);
    }

    proptest! {
        #[test]
        fn every_call_leaves_exactly_once_and_no_batch_breaks_its_bounds(
            calls in prop::collection::vec((1u32..5, 1u64..40, 0u32..100, -2i8..3), 0..200),
            max in 1u32..20,
            max_bytes in 1u64..100,
        ) {
            let start = Instant::now();
            let mut batcher = Batcher::new(policy(max, max_bytes, 0, &[16, 64]), calls.len());
            for (item, (rows, bytes, length, priority)) in calls.iter().enumerate() {
                let item = u32::try_from(item).unwrap();
                let call = Waiting { rows: *rows, bytes: *bytes, length: *length, priority: *priority, ..waiting(item, start) };
                prop_assert!(batcher.push(call).is_ok());
            }
            let mut seen = std::collections::BTreeSet::new();
            while let Some(Batch { calls: batch, .. }) = batcher.take(start, usize::MAX) {
                prop_assert!(!batch.is_empty());
                if batch.len() > 1 {
                    prop_assert!(batch.iter().map(|w| w.rows).sum::<u32>() <= max);
                    prop_assert!(batch.iter().map(|w| w.bytes).sum::<u64>() <= max_bytes);
                }
                for call in batch {
                    prop_assert!(seen.insert(call.item));
                }
            }
            prop_assert_eq!(seen.len(), calls.len());
            prop_assert!(batcher.is_empty());
        }
    }
}
