//! What carries frames to an address: the seam below which gRPC and the loopback differ.
//!
//! A pipe moves frames in order or ends; everything else (resending, deadlines, bounds) is above it. Implemented by
//! `grpc` and `loopback`; used by the sending half, by gossip, and by whatever accepts streams.

use std::net::SocketAddr;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::envelope::NodeId;
use crate::wire::{Frame, Hello};

/// Frames that wait between a half of the link and its transport.
pub(crate) const PIPE_FRAMES: usize = 2;

/// Both directions of a stream. Dropping `out` ends it.
pub(crate) struct Pipe {
    pub(crate) out: mpsc::Sender<Frame>,
    pub(crate) incoming: BoxStream<'static, Result<Frame, String>>,
}

/// Whom to reach.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    /// Who must be there; none when whoever is there will do.
    pub(crate) node: Option<NodeId>,
}

/// Why there is no stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum DialError {
    /// Nobody there, or the connection broke.
    Failed(String),
    /// The other side will not talk to this node, or this node not to it.
    Refused(String),
    /// The other side is shutting down.
    Leaving,
}

/// Opens streams.
#[async_trait]
pub(crate) trait Carrier: Send + Sync + 'static {
    /// Opens a stream, says hello and hears the other side's hello, which is not checked yet beyond what the transport
    /// itself proves.
    async fn dial(&self, to: &Destination, hello: Hello) -> Result<(Hello, Pipe), DialError>;
}
