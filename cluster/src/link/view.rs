//! How the link does, for operators, for membership and for tests.
//!
//! A picture of one moment; nothing is decided by it here. Used by lists and by those who choose peers.

use std::time::Duration;

use motet_store::port::Incarnation;

use super::Capacity;
use crate::envelope::{Lane, NodeId};

/// Where a lane to a peer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneState {
    /// No stream yet, or not again; envelopes wait.
    Connecting,
    /// A stream lives.
    Up,
    /// A stream lives, but nothing was heard for a while.
    Suspect,
    /// Nothing was heard for too long: envelopes are refused until the peer is back.
    Down,
    /// The peer refused this node.
    Refused,
    /// The peer is shutting down.
    Leaving,
}

impl LaneState {
    /// The name in lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Refused => "refused",
            Self::Leaving => "leaving",
        }
    }
}

/// A lane to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerView {
    /// The peer.
    pub node: NodeId,
    /// The lane.
    pub lane: Lane,
    /// Where it stands.
    pub state: LaneState,
    /// Why it is not up, when it is not.
    pub reason: Option<String>,
    /// The peer's incarnation, as soon as it has said it.
    pub incarnation: Option<Incarnation>,
    /// What waits for its answer, queued or sent.
    pub unanswered: Capacity,
    /// Envelopes that were sent again after a reconnect.
    pub resent: u64,
    /// Time of the last sign of life there and back.
    pub round_trip: Option<Duration>,
}

/// What came in from a peer in one lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InboundView {
    /// The peer.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The lane.
    pub lane: Lane,
    /// Envelopes that wait for a handler, and their bytes.
    pub queued: Capacity,
    /// Handlers that run.
    pub running: usize,
    /// Answers that are remembered, and their bytes.
    pub remembered: Capacity,
}
