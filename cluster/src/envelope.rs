//! What travels between nodes: who sends it, what it carries, until when it is wanted, and how it is answered.
//!
//! Knows no connection. Payloads are opaque here; [`payload`] gives them a kind, a version and the one codec. Used by
//! the link, by the router that sends, and by the handler that receives.

pub mod payload;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use motet_engine::failure::Failure;
use motet_engine::id::{Epoch, Name, NameError, ShardId};
use motet_engine::trace::TraceContext;
use motet_store::port::Incarnation;
use tokio::time::Instant;

/// Largest payload of an envelope or an answer, in bytes. What is larger travels by reference.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;

/// Protocol version that this program writes.
pub const PROTOCOL: u32 = 1;

/// Oldest protocol version that this program reads.
pub const OLDEST_PROTOCOL: u32 = 1;

/// Longest time that an envelope may wait for its answer.
pub const MAX_PATIENCE: Duration = Duration::from_hours(24);

/// A node, whatever its incarnation. Also the name in its certificate.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub Name);

impl NodeId {
    /// Checks the text and makes it a node's name.
    ///
    /// # Errors
    /// When it has a character that is not allowed in names, is empty or too long.
    pub fn new(text: &str) -> Result<Self, NameError> {
        Name::new(text).map(Self)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// Which of the two streams to a peer an envelope takes. Neither waits for the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Small and urgent: ownership, signals, questions.
    Control,
    /// Large or many: model calls, inputs and outputs.
    Bulk,
}

impl Lane {
    /// Both lanes.
    pub const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    /// The name in metrics and lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Number of an envelope: rises within the incarnation of its sender, from 1. A resent envelope keeps its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(pub u64);

/// What a payload is, so that a receiver knows how to read it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind(pub u32);

/// By which picture of the cluster the sender chose the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// The shard that is meant; none when the node itself is.
    pub shard: Option<ShardId>,
    /// Version of the shard table; 0 for none.
    pub table_version: u64,
    /// Epoch of the shard in that table.
    pub epoch: Option<Epoch>,
}

/// What a caller hands to the link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parcel {
    /// How the receiver was chosen.
    pub route: Route,
    /// The envelope that this one belongs to.
    pub correlation: Option<MessageId>,
    /// The trace that this is part of.
    pub trace: Option<TraceContext>,
    /// What the payload is.
    pub kind: Kind,
    /// Version of the payload's form.
    pub version: u32,
    /// At most [`MAX_PAYLOAD_BYTES`].
    pub payload: Bytes,
}

/// Who sent an envelope: what the handshake of its stream has proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sender {
    /// The cluster, which is also that of the receiver.
    pub cluster: Name,
    /// The node.
    pub node: NodeId,
    /// Its boot.
    pub incarnation: Incarnation,
}

/// What a handler receives.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Who sent it.
    pub sender: Arc<Sender>,
    /// The lane on which it came.
    pub lane: Lane,
    /// Protocol version in which it was written.
    pub protocol: u32,
    /// Its number.
    pub id: MessageId,
    /// Nobody reads the payload of an acknowledgement.
    pub one_way: bool,
    /// When the answer is of no more use, by the clock of the receiver.
    pub deadline: Instant,
    /// What the sender handed in.
    pub parcel: Parcel,
}

/// How the receiver answers an envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Taken; for a request with the payload of the answer, in the version in which it was asked.
    Ack(Bytes),
    /// The shard is owned by another node.
    Moved {
        /// The owner.
        owner: NodeId,
        /// Its epoch.
        epoch: Epoch,
        /// Version of the shard table that says so.
        table_version: u64,
    },
    /// The receiver does not own the shard and does not know who does.
    NotOwner,
    /// The receiver has no room. Nothing was done.
    Overloaded {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The receiver does not understand the envelope. Nothing was done.
    Undecodable(String),
    /// The deadline passed at the receiver: before the envelope was taken, or before its answer was ready.
    Expired,
    /// The handler failed, or ended without an answer.
    Failed(Failure),
}

impl Answer {
    /// Taken, with nothing more to say.
    #[must_use]
    pub fn taken() -> Self {
        Self::Ack(Bytes::new())
    }

    /// Bytes that the answer takes up.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Ack(payload) => payload.len(),
            Self::Undecodable(why) => why.len(),
            Self::Failed(failure) => failure.message.len(),
            Self::Moved { .. } | Self::NotOwner | Self::Overloaded { .. } | Self::Expired => 0,
        }
    }
}
