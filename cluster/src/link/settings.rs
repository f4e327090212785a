//! What a node's link is told at its start: who it is, and every bound and time.
//!
//! Never read from files here. Used by the server's bootstrap and by tests, which make the times small.

use std::ops::RangeInclusive;
use std::time::Duration;

use motet_engine::id::Name;
use motet_store::port::Incarnation;

use super::LinkError;
pub use super::backoff::Backoff;
use crate::envelope::{MAX_PAYLOAD_BYTES, NodeId, OLDEST_PROTOCOL, PROTOCOL};

/// A number of envelopes and of bytes of their payloads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capacity {
    /// Envelopes.
    pub envelopes: usize,
    /// Bytes of payload.
    pub bytes: usize,
}

/// Who a node is and what its link may use. Every bound is for one peer and one lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkSettings {
    /// The cluster; nodes of others are refused.
    pub cluster: Name,
    /// This node.
    pub node: NodeId,
    /// This boot of it.
    pub incarnation: Incarnation,
    /// Protocol versions that are spoken.
    pub protocols: RangeInclusive<u32>,
    /// What may wait for answers here; beyond it posting is [`LinkError::Full`].
    pub capacity: Capacity,
    /// What a peer may send without having been answered.
    pub window: Capacity,
    /// Handlers at one time.
    pub concurrency: usize,
    /// Answers that are remembered for envelopes that come again.
    pub remembered: Capacity,
    /// How long a sender that is away is remembered.
    pub remember: Duration,
    /// Time between signs of life.
    pub beat: Duration,
    /// Silence after which a peer is suspected.
    pub suspect_after: Duration,
    /// Silence after which the link is dropped and everything pending fails.
    pub drop_after: Duration,
    /// Pauses between attempts to connect.
    pub backoff: Backoff,
    /// Pause after a peer refused to talk to this node.
    pub refused_pause: Duration,
    /// Peers at one time.
    pub max_peers: usize,
    /// Datagrams that wait, to each address and from all.
    pub gossip_queue: usize,
}

impl LinkSettings {
    /// The defaults for a node.
    #[must_use]
    pub fn new(cluster: Name, node: NodeId, incarnation: Incarnation) -> Self {
        Self {
            cluster,
            node,
            incarnation,
            protocols: OLDEST_PROTOCOL..=PROTOCOL,
            capacity: Capacity { envelopes: 8_192, bytes: 32 << 20 },
            window: Capacity { envelopes: 4_096, bytes: 16 << 20 },
            concurrency: 1_024,
            remembered: Capacity { envelopes: 16_384, bytes: 16 << 20 },
            remember: Duration::from_secs(30),
            beat: Duration::from_secs(1),
            suspect_after: Duration::from_secs(3),
            drop_after: Duration::from_secs(5),
            backoff: Backoff { first: Duration::from_millis(50), most: Duration::from_secs(5) },
            refused_pause: Duration::from_secs(30),
            max_peers: 1_024,
            gossip_queue: 256,
        }
    }

    /// Whether the settings make sense together.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), LinkError> {
        let holds = |capacity: Capacity| capacity.envelopes > 0 && capacity.bytes >= MAX_PAYLOAD_BYTES;
        let ordered = !self.beat.is_zero() && self.beat < self.suspect_after && self.suspect_after < self.drop_after;
        let wrong = if self.protocols.is_empty() {
            "the link must speak at least one protocol version"
        } else if ![self.capacity, self.window, self.remembered].into_iter().all(holds) {
            "every capacity of the link must hold one envelope of the largest size"
        } else if self.concurrency == 0 || self.max_peers == 0 || self.gossip_queue == 0 {
            "the link's bounds must be at least 1"
        } else if !ordered {
            "the link's times must rise: beat, suspect_after, drop_after"
        } else {
            return Ok(());
        };
        Err(LinkError::Setup(wrong.to_owned()))
    }
}
