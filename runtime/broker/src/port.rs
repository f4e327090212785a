//! The ports: what comes in as records, what goes out as records, and what can be asked about topics.
//!
//! Never says what a record means. Implemented in memory and on Kafka; used by the actors of partitions and by the
//! relay of results.

mod credit;
mod record;
mod sink;
mod source;

use std::sync::Arc;

use async_trait::async_trait;
use motet_engine::time::Timestamp;

use crate::BrokerError;

pub(crate) use credit::Ledger;
pub use credit::{Credit, CreditLimit};
pub use record::{Batch, Delivered, Header, Outgoing, Place, Record};
pub use sink::{RecordSink, SinkSettings, TransactionSettings, TransactionalSink};
pub use source::{
    BatchLimit, GroupProtocol, PlaceLag, RecordSource, SourceEvent, SourceHandle, SourceSettings, Topics,
};

/// Where a partition is begun when nothing is remembered of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With the oldest record that is kept.
    Earliest,
    /// With what comes from now on.
    Latest,
    /// With the first record of this time or later; with what comes from now on when there is none.
    At(Timestamp),
}

/// What a partition holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Offset of the oldest record that is kept.
    pub low: i64,
    /// Offset after the newest record that may be read: records of open transactions lie beyond it.
    pub high: i64,
}

impl Bounds {
    /// Whether reading can go on at this offset without leaving anything out.
    #[must_use]
    pub fn contain(&self, offset: i64) -> bool {
        (self.low..=self.high).contains(&offset)
    }
}

/// A cluster of brokers. Every wait inside is bounded.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// What kind it is, as people see it: `memory` or `kafka`.
    fn kind(&self) -> &'static str;

    /// Joins a group and reads what the group gives it. An error tells of settings that cannot be used; brokers that
    /// are away are told as an event.
    async fn subscribe(&self, settings: SourceSettings) -> Result<Box<dyn RecordSource>, BrokerError>;

    /// Opens a sink for records that stand each for themselves.
    async fn sink(&self, settings: SinkSettings) -> Result<Arc<dyn RecordSink>, BrokerError>;

    /// Opens a sink that writes records and its own position at once. Whoever had it open under the same id is fenced.
    async fn transactional_sink(
        &self,
        settings: TransactionSettings,
    ) -> Result<Box<dyn TransactionalSink>, BrokerError>;

    /// The offset that a start means now.
    async fn offset_for(&self, place: &Place, start: Start) -> Result<i64, BrokerError>;

    /// What the partition holds now.
    async fn bounds(&self, place: &Place) -> Result<Bounds, BrokerError>;

    /// Tells this topic from every other, also from one of the same name before or after it:
    /// `<cluster id>/<topic id>`.
    async fn origin(&self, topic: &str) -> Result<String, BrokerError>;

    /// How many partitions the topic has.
    async fn partitions(&self, topic: &str) -> Result<i32, BrokerError>;
}
