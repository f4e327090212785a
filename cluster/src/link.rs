//! The link between nodes: what may be asked of it, what is promised, and how it fails.
//!
//! Every envelope is bounded in size, has a deadline, and ends in exactly one of: an answer of the receiver, or a typed
//! error. Promised besides: while the receiver's incarnation lives, an envelope is handled at most once, and handlers of
//! one sender and lane are begun in the order in which their envelopes were posted, whatever connections break; nothing
//! is kept without a bound on either side. Not promised: that an envelope without an answer was not handled, see
//! [`LinkError::may_have_arrived`]. Used by the router of actors and by gossip.

mod backoff;
mod carrier;
pub mod error;
pub mod gossip;
pub mod grpc;
mod hello;
mod lane;
pub mod loopback;
pub mod node;
mod receipt;
mod room;
mod session;
pub mod settings;
pub mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use motet_store::port::Incarnation;

use crate::envelope::{Answer, Envelope, Kind, Lane, NodeId, Parcel};
pub use error::{ErrorClass, LinkError};
pub use receipt::Receipt;
pub use settings::{Capacity, LinkSettings};
pub use view::{InboundView, LaneState, PeerView};

/// Reaches the other nodes. Cheap to share.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Queues an envelope whose answer is wanted `within` a time of at most a day, which covers everything: queue, way
    /// there, handler, way back. It is queued when this returns: the receipt need not be polled for that, and giving
    /// the receipt up does not take the envelope back.
    fn request(&self, to: &NodeId, lane: Lane, parcel: Parcel, within: Duration) -> Receipt;

    /// Queues an envelope that needs no payload in its answer. The receipt is there as soon as the receiver has taken
    /// it, or with the reason why not. Otherwise like [`Link::request`].
    fn send(&self, to: &NodeId, lane: Lane, parcel: Parcel, within: Duration) -> Receipt;

    /// How the lanes to the peers do, in their order.
    fn peers(&self) -> Vec<PeerView>;

    /// What came in from peers and is not answered or not forgotten yet, in their order.
    fn inbound(&self) -> Vec<InboundView>;

    /// Takes no further envelopes, tells the peers so, answers and awaits what is under way, at most `within`, and ends
    /// every connection. What is not finished then fails with [`LinkError::Closed`].
    async fn close(&self, within: Duration);
}

/// Takes what peers send.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Whether a payload of this kind and version can be read; otherwise the link itself answers
    /// [`Answer::Undecodable`].
    fn reads(&self, kind: Kind, version: u32) -> bool;

    /// Answers an envelope. Called in the order of sending up to the first wait; at most
    /// [`LinkSettings::concurrency`] at a time for each peer and lane. Must not block the thread. Dropped at the
    /// envelope's deadline; one that panics is answered as failed.
    async fn receive(self: Arc<Self>, envelope: Envelope) -> Answer;
}

/// Where a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its newest boot, as far as it is known.
    pub incarnation: Incarnation,
    /// Where its link listens.
    pub address: SocketAddr,
}

/// Tells where nodes are. Asked before every connection and at every beat, so it must be quick.
pub trait PeerBook: Send + Sync + 'static {
    /// The place of a node; none when it is no member.
    fn find(&self, node: &NodeId) -> Option<Place>;
}

impl<F: Fn(&NodeId) -> Option<Place> + Send + Sync + 'static> PeerBook for F {
    fn find(&self, node: &NodeId) -> Option<Place> {
        self(node)
    }
}
