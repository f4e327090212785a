//! The ports through which records go out: each for itself, or many at once with a position.
//!
//! Never tries again what failed: whoever owes a record knows it and sends it again. Implemented in memory and on
//! Kafka; used by the relay of results.

use std::time::Duration;

use async_trait::async_trait;

use super::{Delivered, Outgoing, Place};
use crate::BrokerError;

/// How a sink sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkSettings {
    /// A record that is not acknowledged after this long has failed.
    pub deliver_within: Duration,
    /// Records that wait at most.
    pub queue_records: usize,
    /// Bytes that wait at most.
    pub queue_bytes: usize,
    /// How long a record may wait for others to travel with.
    pub linger: Duration,
}

impl Default for SinkSettings {
    fn default() -> Self {
        Self {
            deliver_within: Duration::from_secs(30),
            queue_records: 20_000,
            queue_bytes: 64 << 20,
            linger: Duration::from_millis(5),
        }
    }
}

/// Writes records, each for itself.
#[async_trait]
pub trait RecordSink: Send + Sync {
    /// Writes records in this order, and tells of each, in the same order. Written means: on all brokers that must
    /// have it. Records of one call and one partition are not overtaken by later ones, except those that failed: then
    /// the failed one and what came after it are to be sent again, and readers may see the latter twice. When the
    /// queue is full, nothing after the first [`BrokerError::Busy`] was taken.
    async fn send(&self, records: Vec<Outgoing>) -> Vec<Result<Delivered, BrokerError>>;

    /// Waits for what is under way, no longer than `within`, and refuses everything later.
    async fn close(&self, within: Duration);
}

/// How a transactional sink writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionSettings {
    /// Its id (`transactional.id`): of all that have it open, the last one may write.
    pub id: String,
    /// Name of the group that the position is kept under. Nobody joins it.
    pub group: String,
    /// The partition that the position is kept for: the brokers keep positions only of topics that exist, and forget
    /// them when the topic is deleted.
    pub anchor: Place,
    /// The brokers give up a transaction that takes longer; every wait here is shorter.
    pub within: Duration,
    /// How records are sent.
    pub sink: SinkSettings,
}

impl TransactionSettings {
    /// Settings as they are good for most.
    #[must_use]
    pub fn new(id: &str, group: &str, anchor: Place) -> Self {
        let (id, group) = (id.to_owned(), group.to_owned());
        Self { id, group, anchor, within: Duration::from_secs(30), sink: SinkSettings::default() }
    }
}

/// Writes records and its own position at once: readers of committed records see all of it or nothing.
#[async_trait]
pub trait TransactionalSink: Send + Sync {
    /// The position of the last transaction that was committed under this id; none when there was none.
    fn position(&self) -> Option<i64>;

    /// Writes records and a position in one transaction. After [`BrokerError::Aborted`] and errors of the class
    /// `Permanent` nothing of it is there, and the sink can be used again when [`TransactionalSink::is_usable`]. After
    /// any other error nobody knows: the sink is to be closed, and another one opened under the same id tells by its
    /// position what was committed.
    async fn send(&mut self, records: Vec<Outgoing>, position: i64) -> Result<Vec<Delivered>, BrokerError>;

    /// False when it must be opened anew.
    fn is_usable(&self) -> bool;

    /// Gives up what is open and ends.
    async fn close(self: Box<Self>);
}
