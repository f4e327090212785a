//! Records on their way out of the system: written with the events that owe them, sent by a relay afterwards.
//!
//! Positions are given out in the order of commits, so a relay that reads on from a position misses nothing. Never
//! sends anything. Implemented by every store; used by the relay of a shard's owner.

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::{Epoch, RunId, ShardId};

use crate::StoreError;

/// A record that is to leave the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxRow {
    /// Identity of the record, the same however often it is sent; readers tell repetitions by it.
    pub event: [u8; 16],
    /// Where it goes.
    pub topic: String,
    /// Its key, when it has one.
    pub key: Option<Bytes>,
    /// Its headers in order; names may repeat.
    pub headers: Vec<(String, Bytes)>,
    /// Its value.
    pub payload: Bytes,
    /// Whether it is to be sent in a transaction, so that readers of committed records see it once.
    pub transactional: bool,
}

/// A record that waits in the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxRecord {
    /// Its place in the shard's order: from 1, without gaps, in the order of commits, never given twice.
    pub position: u64,
    /// The run whose events owe it.
    pub run: RunId,
    /// The record.
    pub row: OutboxRow,
}

/// The outbox of each shard.
#[async_trait]
pub trait OutboxStore: Send + Sync + 'static {
    /// Records of a shard after a position, in order, at most `limit` of them.
    async fn outbox(&self, shard: ShardId, after: u64, limit: u32) -> Result<Vec<OutboxRecord>, StoreError>;

    /// Forgets the records of a shard at these positions, all at once; where none is any more, nothing happens.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the epoch is not the shard's.
    async fn outbox_done(&self, shard: ShardId, epoch: Epoch, positions: &[u64]) -> Result<(), StoreError>;

    /// How many records wait in all shards; counts no further than `at_most`.
    async fn outbox_rows(&self, at_most: u64) -> Result<u64, StoreError>;

    /// Tells the outboxes of this store from those of every other: 32 hexadecimal digits, drawn when the store was
    /// made, the same for all who use it.
    async fn outbox_origin(&self) -> Result<String, StoreError>;
}
