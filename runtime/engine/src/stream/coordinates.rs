//! Identities that follow from where a record lies: of its run, of the order that it stands in, of its trace.
//!
//! Never depends on anything else, so that whoever reads a record again finds the same ones. Used by the reading of
//! records and by whoever looks for the run of one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Incoming;
use crate::id::{Name, Namespace, RunId, ShardId};
use crate::time::Timestamp;
use crate::trace::TraceContext;

/// How long before the beginning of its generation a record's time still counts.
const BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long after it. Later times are mistakes, such as microseconds that were taken for milliseconds.
const AFTER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Where a stream is read: what is the same for all records of a partition while one definition holds.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Tenant.
    pub namespace: &'a Namespace,
    /// The revision of the stream's definition.
    pub revision: &'a Arc<str>,
    /// How often its records were read anew on purpose.
    pub generation: u32,
    /// The durable time at which the generation began.
    pub since: Timestamp,
    /// Identity of the Kafka cluster.
    pub cluster: &'a str,
    /// Shards of all runs.
    pub shards: u16,
}

/// Where a record lies, and for which stream and which generation it is read.
#[derive(Clone, Copy, Debug)]
pub struct Coordinates<'a> {
    /// Tenant.
    pub namespace: &'a Namespace,
    /// The stream.
    pub stream: &'a Name,
    /// How often the stream's records were read anew on purpose.
    pub generation: u32,
    /// Identity of the Kafka cluster.
    pub cluster: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Place in the partition.
    pub offset: i64,
}

impl<'a> Coordinates<'a> {
    pub(super) fn of(origin: &Origin<'a>, stream: &'a Name, incoming: &'a Incoming) -> Self {
        Self {
            namespace: origin.namespace,
            stream,
            generation: origin.generation,
            cluster: origin.cluster,
            topic: &incoming.topic,
            partition: incoming.partition,
            offset: incoming.offset,
        }
    }

    /// A digest of all of them for one purpose.
    fn digest(&self, purpose: &[u8]) -> [u8; 32] {
        digest(&[
            purpose,
            self.cluster.as_bytes(),
            self.topic.as_bytes(),
            &self.partition.to_be_bytes(),
            &self.offset.to_be_bytes(),
            self.namespace.0.as_str().as_bytes(),
            self.stream.as_str().as_bytes(),
            &self.generation.to_be_bytes(),
        ])
    }

    /// The order of a key, or of the whole partition, as records of this generation stand in it. Partitions have
    /// orders of their own, since their offsets say nothing about each other.
    pub(super) fn order(&self, key: Option<&[u8]>) -> [u8; 16] {
        let parts = [
            b"order".as_slice(),
            self.cluster.as_bytes(),
            self.topic.as_bytes(),
            &self.partition.to_be_bytes(),
            self.namespace.0.as_str().as_bytes(),
            self.stream.as_str().as_bytes(),
            &self.generation.to_be_bytes(),
            &[u8::from(key.is_some())],
            key.unwrap_or_default(),
        ];
        half(&digest(&parts))
    }

    /// What a producer's own name for the record stands for in this generation of the stream.
    pub(super) fn identity(&self, names: &[&[u8]]) -> [u8; 16] {
        let (namespace, stream) = (self.namespace.0.as_str().as_bytes(), self.stream.as_str().as_bytes());
        let generation = self.generation.to_be_bytes();
        let parts: Vec<&[u8]> =
            [b"identity", namespace, stream, &generation].into_iter().chain(names.iter().copied()).collect();
        half(&digest(&parts))
    }

    /// The shard of the runs of one key, or of the whole partition: the same in every generation, so that their
    /// results leave in one order. Digested first: keys that differ in their last bytes only must not share a shard.
    pub(super) fn shard_of(&self, key: Option<&[u8]>, shards: u16) -> ShardId {
        let partition = self.partition.to_be_bytes();
        let parts = [
            b"shard".as_slice(),
            self.namespace.0.as_str().as_bytes(),
            self.stream.as_str().as_bytes(),
            self.topic.as_bytes(),
            &[u8::from(key.is_some())],
            key.unwrap_or(&partition),
        ];
        ShardId::of(&[&digest(&parts)], shards)
    }

    /// The shard of a run that stands in no order.
    pub(super) fn any_shard(&self, shards: u16) -> ShardId {
        ShardId::of(&[&self.digest(b"shard")], shards)
    }

    /// A trace for a record that is part of none.
    pub(super) fn trace(&self) -> TraceContext {
        let [high, low, span, _] = words(&self.digest(b"trace"));
        TraceContext::start(u128::from(high) << 64 | u128::from(low), span)
    }
}

/// The id of the run that a record begins in a generation that began at `since`: always the same one, so that a second
/// reading admits nothing new. It carries the record's time (milliseconds since 1970), which orders runs by it, and
/// `since` where the record has no time or one that cannot be.
#[must_use]
pub fn run_id(coordinates: &Coordinates<'_>, since: Timestamp, timestamp: Option<i64>, shard: ShardId) -> RunId {
    let earliest = Timestamp::from_millis(since.as_millis().saturating_sub(millis(BEFORE)));
    let at = match timestamp.map(Timestamp::from_millis) {
        Some(at) if at.as_millis() >= 0 && at <= since.after(AFTER) => at.max(earliest),
        _ => since,
    };
    let [entropy, ..] = words(&coordinates.digest(b"run"));
    RunId::new(at, shard, entropy)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// A digest of names with their lengths, so that none of them runs into the next.
pub(super) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The first half of a digest.
pub(super) fn half(digest: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

fn words(digest: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.chunks_exact(8)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}

/// The last value of a header.
pub(super) fn header<'h>(headers: &'h [(String, Option<Bytes>)], name: &str) -> Option<&'h Bytes> {
    headers.iter().rev().find(|(found, _)| found == name).and_then(|(_, value)| value.as_ref())
}
