//! Why there is no answer to an envelope, by what the caller can do about it.
//!
//! An answer that says no is not an error here: see [`crate::envelope::Answer`]. Used by everyone who sends.

use motet_store::port::Incarnation;

use crate::envelope::{Lane, MAX_PAYLOAD_BYTES, NodeId};

/// What the caller can do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// Trying the same again later, or elsewhere, may help.
    Retryable,
    /// Trying the same again cannot help.
    Permanent,
    /// A queue of this node is full: slow down.
    Busy,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// As much as allowed waits for answers of this peer already.
    #[error("the {lane} lane to '{peer}' is full")]
    Full {
        /// The peer.
        peer: NodeId,
        /// The lane.
        lane: Lane,
    },
    /// The payload may not travel.
    #[error("{0} bytes are more than the {MAX_PAYLOAD_BYTES} that an envelope carries: send a reference instead")]
    TooLarge(usize),
    /// No such member, or it has left.
    #[error("'{peer}' is no member of the cluster")]
    Unknown {
        /// The node.
        peer: NodeId,
        /// Whether the envelope was sent before the node left.
        sent: bool,
    },
    /// No sign of life for too long.
    #[error("'{peer}' cannot be reached: {reason}")]
    Down {
        /// The peer.
        peer: NodeId,
        /// Whether the envelope was sent.
        sent: bool,
        /// What was tried last.
        reason: String,
    },
    /// The incarnation to which the envelope was sent is gone, or has forgotten what it answered.
    #[error("'{peer}' began anew as {now}; whether it had taken the envelope is unknown")]
    Restarted {
        /// The peer.
        peer: NodeId,
        /// Its incarnation now.
        now: Incarnation,
    },
    /// The deadline passed before there was an answer.
    #[error("'{peer}' did not answer in time")]
    Expired {
        /// The peer.
        peer: NodeId,
        /// Whether the envelope was sent.
        sent: bool,
    },
    /// The nodes do not fit together, and this will not change by itself.
    #[error("'{peer}' and this node do not fit together: {reason}")]
    Refused {
        /// The peer.
        peer: NodeId,
        /// What is wrong, and on which side it may be put right.
        reason: String,
    },
    /// The peer takes nothing more: it is shutting down.
    #[error("'{0}' is leaving")]
    Leaving(NodeId),
    /// This node takes nothing more, or has ended.
    #[error("this node's link is closed")]
    Closed {
        /// Whether the envelope was sent.
        sent: bool,
    },
    /// The link cannot start: settings, certificates or the address.
    #[error("{0}")]
    Setup(String),
}

impl LinkError {
    /// What the caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Full { .. } => ErrorClass::Busy,
            Self::TooLarge(_) | Self::Refused { .. } | Self::Closed { .. } | Self::Setup(_) => ErrorClass::Permanent,
            Self::Unknown { .. }
            | Self::Down { .. }
            | Self::Restarted { .. }
            | Self::Expired { .. }
            | Self::Leaving(_) => ErrorClass::Retryable,
        }
    }

    /// Whether the receiver may have handled the envelope. When not, it surely has not.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Restarted { .. } => true,
            Self::Unknown { sent, .. }
            | Self::Down { sent, .. }
            | Self::Expired { sent, .. }
            | Self::Closed { sent } => *sent,
            Self::Full { .. } | Self::TooLarge(_) | Self::Refused { .. } | Self::Leaving(_) | Self::Setup(_) => false,
        }
    }
}
