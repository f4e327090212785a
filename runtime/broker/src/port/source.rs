//! The port through which records come in: a member of a group that reads the partitions it is given.
//!
//! Never begins a partition by itself and never resets a position: both are decided above, where positions are durable.
//! Implemented in memory and on Kafka; used by the actors of partitions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Batch, CreditLimit, Place};
use crate::BrokerError;

/// Topics to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Topics {
    /// These.
    Named(Vec<String>),
    /// All whose whole name matches, also those that come later. Letters, digits, `.`, `*`, `+`, `?`, `|`, groups,
    /// sets such as `[a-z]` and counts such as `{2}`; a backslash takes the meaning of the sign after it. Topics whose
    /// names begin with two underscores are the brokers' own and never match.
    Pattern(String),
}

/// How the members of a group agree on who reads what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GroupProtocol {
    /// Members agree among themselves, cooperatively: who keeps a partition goes on reading. Known to every broker.
    #[default]
    Classic,
    /// The brokers decide (KIP-848), from Kafka 4.0 on.
    Consumer,
}

/// How much one batch holds at most; a larger record is a batch of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchLimit {
    /// Records.
    pub records: usize,
    /// Bytes of keys, values and headers.
    pub bytes: usize,
}

impl Default for BatchLimit {
    fn default() -> Self {
        Self { records: 500, bytes: 1 << 20 }
    }
}

/// How a member of a group reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceSettings {
    /// Name of the group. Its members share the partitions of the topics.
    pub group: String,
    /// What to read.
    pub topics: Topics,
    /// A name that stays over restarts (static membership): whoever comes back with it within the session keeps its
    /// partitions without a rebalance. Two living ones must not have the same.
    pub instance: Option<String>,
    /// How members agree.
    pub protocol: GroupProtocol,
    /// After this long without a sign of life a member's partitions go to others. Told to the group by members of
    /// [`GroupProtocol::Classic`]; the brokers decide it for the others.
    pub session: Duration,
    /// Of each partition, how much may be under way.
    pub credit: CreditLimit,
    /// How much comes at once.
    pub batch: BatchLimit,
    /// Longest time that leaving may take.
    pub leave_within: Duration,
}

impl SourceSettings {
    /// Settings as they are good for most.
    #[must_use]
    pub fn new(group: &str, topics: Topics) -> Self {
        Self {
            group: group.to_owned(),
            topics,
            instance: None,
            protocol: GroupProtocol::default(),
            session: Duration::from_secs(45),
            credit: CreditLimit::default(),
            batch: BatchLimit::default(),
            leave_within: Duration::from_secs(10),
        }
    }
}

/// What a source tells.
#[derive(Debug)]
pub enum SourceEvent {
    /// The group gives these partitions. Nothing is read of them before [`SourceHandle::begin`].
    Assigned(Vec<Place>),
    /// The group takes these partitions; nothing more is read of them.
    Revoked {
        /// The partitions.
        places: Vec<Place>,
        /// Whether others may have them already.
        lost: bool,
    },
    /// Records, or a gap.
    Records(Batch),
    /// What was to be read is not there: retention has taken it, or the topic was made anew. Reading has stopped.
    OutOfRange {
        /// The partition.
        place: Place,
        /// The offset that was to be read.
        position: i64,
        /// The lowest one there is.
        low: i64,
        /// The one after the highest.
        high: i64,
    },
    /// The topic or the partition is not there any more, or another one has its name. Reading has stopped.
    Gone {
        /// The partition.
        place: Place,
        /// What was seen.
        reason: String,
    },
    /// Something that may pass, told once in a while as long as it lasts.
    Trouble(String),
    /// The end: nothing comes any more, and everything was given back.
    Ended(BrokerError),
}

/// How far a partition is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlaceLag {
    /// The partition.
    pub place: Place,
    /// Where reading goes on; none before it was begun.
    pub position: Option<i64>,
    /// The offset after the newest record, as last seen; none when it was not seen.
    pub high: Option<i64>,
    /// Whether reading rests, for whatever reason.
    pub paused: bool,
    /// Records and bytes under way.
    pub credit_used: (usize, usize),
}

/// A member of a group. One owner awaits its events; its handle steers it from anywhere. Dropping it leaves the group
/// in the background.
#[async_trait]
pub trait RecordSource: Send {
    /// The next event; may be dropped and asked again without losing one. What waits is bounded by the credit of the
    /// partitions. After [`SourceEvent::Ended`] there is only [`BrokerError::Closed`].
    async fn next(&mut self) -> SourceEvent;

    /// What steers it.
    fn handle(&self) -> Arc<dyn SourceHandle>;

    /// Leaves the group (one with an instance's name keeps its seat there until the session is over), in bounded time.
    async fn close(self: Box<Self>);
}

/// Steers a source. Every call returns at once and may come too late: for a partition that the source does not have
/// it does nothing.
pub trait SourceHandle: Send + Sync {
    /// Reads a partition from this offset on, also when it is being read already.
    fn begin(&self, place: &Place, offset: i64);

    /// Reads no more of a partition but keeps it.
    fn halt(&self, place: &Place);

    /// Rests from reading, or goes on.
    fn pause(&self, place: &Place, paused: bool);

    /// Tells the group that everything before this offset is done. Others only look at it: nobody reads from there.
    fn commit(&self, place: &Place, next: i64);

    /// How far every partition is read.
    fn lag(&self) -> Vec<PlaceLag>;
}
