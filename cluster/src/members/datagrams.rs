//! What gossip travels on: datagrams between nodes, bounded and lossy.
//!
//! Implemented by the link between nodes and, for one process, by `local`.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;

use crate::link::gossip::Gossip;
pub use crate::link::gossip::MAX_DATAGRAM_BYTES;

/// Sends and receives datagrams as one node. Datagrams may be lost, late, doubled and out of order.
#[async_trait]
pub trait Datagrams: Send + Sync + 'static {
    /// Sends to whoever listens at an address, without waiting. False when it was dropped at once: too large, or no
    /// room. True promises nothing.
    fn send(&self, to: SocketAddr, bytes: Bytes) -> bool;

    /// The next datagram and the address at which its sender listens; none when this end was closed. May be dropped
    /// while it waits, and is called by one at a time.
    async fn receive(&self) -> Option<(SocketAddr, Bytes)>;
}

/// Gossip on the streams of the link.
#[async_trait]
impl Datagrams for Gossip {
    fn send(&self, to: SocketAddr, bytes: Bytes) -> bool {
        Self::send(self, to, bytes)
    }

    async fn receive(&self) -> Option<(SocketAddr, Bytes)> {
        Self::receive(self).await
    }
}
