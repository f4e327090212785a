//! Records, where they stand, and how they travel in batches.
//!
//! Never interprets a byte of them. Used by every implementation of the ports and by everyone who calls them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Credit;

/// A header of a record: its name, and its value, which may be null. Names may repeat.
pub type Header = (String, Option<Bytes>);

/// A partition of a topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition, from 0.
    pub partition: i32,
}

impl Place {
    /// The partition of a topic.
    #[must_use]
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A record as it was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// Its number in the partition. Numbers rise, with gaps.
    pub offset: i64,
    /// When it was made or written, in milliseconds since 1970; none when the topic does not keep it.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order. A name that is not UTF-8 has U+FFFD in place of what is wrong with it.
    pub headers: Vec<Header>,
}

impl Record {
    /// Bytes of key, value and headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        weight(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// A record to be written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outgoing {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition; none lets the key decide, and chance where there is no key.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
    /// In milliseconds since 1970; none is the time of writing.
    pub timestamp: Option<i64>,
}

impl Outgoing {
    /// Bytes of key, value and headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        weight(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

fn weight(key: Option<&Bytes>, value: Option<&Bytes>, headers: &[Header]) -> usize {
    let length = |bytes: Option<&Bytes>| bytes.map_or(0, Bytes::len);
    let headers: usize = headers.iter().map(|(name, value)| name.len() + length(value.as_ref())).sum();
    length(key) + length(value) + headers
}

/// Where a record that was written stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Number of the partition.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
}

/// Consecutive records of one partition, with the credit that they use up: it comes back when the batch is dropped.
#[derive(Debug)]
pub struct Batch {
    /// Where they come from.
    pub place: Place,
    /// In order. Empty when there was nothing but a gap to be told.
    pub records: Vec<Record>,
    /// Where reading had come to before: the first record's offset, or less where there is a gap.
    pub from: i64,
    /// Where reading goes on: past the last record, and past what no reader sees, such as the ends of transactions.
    pub next: i64,
    credit: Credit,
}

impl Batch {
    /// A batch of what lies between two offsets, which gives `credit` back when it is dropped.
    #[must_use]
    pub fn new(place: Place, records: Vec<Record>, (from, next): (i64, i64), credit: Credit) -> Self {
        Self { place, records, from, next, credit }
    }

    /// Whether this batch's credit was given by this ledger, as one of the same partition's life.
    pub(crate) fn belongs_to(&self, ledger: &Arc<super::Ledger>) -> bool {
        self.credit.is_of(ledger)
    }

    /// Takes what follows into this batch, unless the two have different ledgers or would be too large together.
    pub(crate) fn join(&mut self, mut later: Self, limit: super::BatchLimit) -> Option<Self> {
        let fits = self.credit.records() + later.credit.records() <= limit.records
            && self.credit.bytes() + later.credit.bytes() <= limit.bytes;
        if !fits || self.place != later.place || self.next != later.from || !self.credit.absorb(&mut later.credit) {
            return Some(later);
        }
        self.records.append(&mut later.records);
        self.next = later.next;
        None
    }
}
