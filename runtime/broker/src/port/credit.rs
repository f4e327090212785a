//! Credit: how much of a partition may be under way between the broker and the last commit.
//!
//! Never waits. A batch holds what it uses up and gives it back when it is dropped. Used by every source.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How much of one partition may be under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreditLimit {
    /// Records at most.
    pub records: usize,
    /// Bytes of keys, values and headers at most; the record that crosses it still comes.
    pub bytes: usize,
}

impl Default for CreditLimit {
    fn default() -> Self {
        Self { records: 5_000, bytes: 16 << 20 }
    }
}

/// What one partition has used up of its credit, during one stay with one reader.
pub(crate) struct Ledger {
    limit: CreditLimit,
    records: AtomicUsize,
    bytes: AtomicUsize,
    /// Whether reading rests until half of the credit is back.
    resting: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Ledger {
    /// A ledger that calls `wake` whenever credit came back; it must not call into a source.
    pub(crate) fn new(limit: CreditLimit, wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let limit = CreditLimit { records: limit.records.max(1), bytes: limit.bytes.max(1) };
        let (records, bytes, resting) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { limit, records, bytes, resting, wake: Box::new(wake) })
    }

    /// Takes credit for one record. Nobody takes while [`Ledger::rests`].
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Credit {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Credit { ledger: Some(Arc::clone(self)), records: 1, bytes }
    }

    /// Credit for what has no record, such as a gap.
    pub(crate) fn take_none(self: &Arc<Self>) -> Credit {
        Credit { ledger: Some(Arc::clone(self)), records: 0, bytes: 0 }
    }

    /// Records and bytes that are under way.
    pub(crate) fn used(&self) -> (usize, usize) {
        (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Whether reading rests: from the moment when all credit is used up until half of it has come back. So a reader
    /// does not stop and go with every record, each time fetching again what it had fetched ahead.
    pub(crate) fn rests(&self) -> bool {
        let (records, bytes) = self.used();
        let spent = records >= self.limit.records || bytes >= self.limit.bytes;
        let half = records <= self.limit.records / 2 && bytes <= self.limit.bytes / 2;
        let rests = spent || (self.resting.load(Ordering::Relaxed) && !half);
        self.resting.store(rests, Ordering::Relaxed);
        rests
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("limit", &self.limit).field("used", &self.used()).finish_non_exhaustive()
    }
}

/// Credit that something under way uses up; comes back when it is dropped.
#[derive(Debug, Default)]
pub struct Credit {
    ledger: Option<Arc<Ledger>>,
    records: usize,
    bytes: usize,
}

impl Credit {
    /// Credit that nobody counts, for batches that were not read from a source.
    #[must_use]
    pub fn uncounted() -> Self {
        Self::default()
    }

    pub(crate) fn records(&self) -> usize {
        self.records
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_of(&self, ledger: &Arc<Ledger>) -> bool {
        self.ledger.as_ref().is_some_and(|own| Arc::ptr_eq(own, ledger))
    }

    /// Takes over what another one holds of the same ledger; false when it is of another.
    pub(crate) fn absorb(&mut self, other: &mut Self) -> bool {
        let same = match (&self.ledger, &other.ledger) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, None) => true,
            _ => false,
        };
        if same {
            self.records += std::mem::take(&mut other.records);
            self.bytes += std::mem::take(&mut other.bytes);
        }
        same
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take()
            && self.records > 0
        {
            ledger.records.fetch_sub(self.records, Ordering::Relaxed);
            ledger.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            (ledger.wake)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_rests_until_half_of_the_credit_is_back() {
        let ledger = Ledger::new(CreditLimit { records: 4, bytes: 1000 }, || {});
        let mut held: Vec<Credit> = (0..4).map(|_| ledger.take(1)).collect();
        assert!(ledger.rests());
        held.pop();
        assert!(ledger.rests(), "one of four is back");
        held.pop();
        assert!(!ledger.rests(), "half is back");
        held.push(ledger.take(998));
        assert!(ledger.rests(), "bytes count as well");
        drop(held);
        assert_eq!(ledger.used(), (0, 0));
        assert!(!ledger.rests());
    }

    #[test]
    fn absorbed_credit_comes_back_once() {
        let ledger = Ledger::new(CreditLimit::default(), || {});
        let (mut one, mut two) = (ledger.take(3), ledger.take(4));
        assert!(one.absorb(&mut two));
        drop(two);
        assert_eq!(ledger.used(), (2, 7));
        let mut foreign = Ledger::new(CreditLimit::default(), || {}).take(1);
        assert!(!one.absorb(&mut foreign));
        drop(one);
        assert_eq!(ledger.used(), (0, 0));
    }
}
