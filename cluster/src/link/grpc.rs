//! The link between processes: frames over gRPC streams, one connection for each peer and lane.
//!
//! TLS stands in front of tonic, so that certificates can change while connections live and a slow handshake holds
//! nobody up. Plain text only where it was asked for, and beyond the loopback interface only where that was asked for
//! too. Used by the server's bootstrap.

pub(crate) mod codec;
mod connection;
mod dial;
mod listen;
mod service;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use self::dial::GrpcCarrier;
use self::tls::{Certificates, TlsSettings};
use super::node::NodeLink;
use super::{Handler, LinkError, LinkSettings, PeerBook};

/// How connections are protected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Security {
    /// Not at all: whoever reaches the port may claim to be any node.
    Plain {
        /// Whether addresses beyond the loopback interface may be used so.
        beyond_loopback: bool,
    },
    /// Mutual TLS.
    Tls(TlsSettings),
}

/// Where a node's link listens, and how it is protected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrpcSettings {
    /// Where to listen; port 0 for any that is free.
    pub listen: SocketAddr,
    /// Where peers reach this node, when that is another address than the one it listens at.
    pub advertise: Option<SocketAddr>,
    /// How connections are protected.
    pub security: Security,
}

impl GrpcSettings {
    /// Plain text on a free port of the loopback interface.
    #[must_use]
    pub fn loopback() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            security: Security::Plain { beyond_loopback: false },
        }
    }
}

/// Starts a node's link. It listens when this returns.
///
/// # Errors
/// When the settings make no sense, the certificates cannot be used, or the address cannot be listened at.
pub async fn start(
    settings: LinkSettings,
    grpc: GrpcSettings,
    book: Arc<dyn PeerBook>,
    handler: Arc<dyn Handler>,
) -> Result<Arc<NodeLink>, LinkError> {
    settings.check()?;
    let plain_allowed = grpc.security == (Security::Plain { beyond_loopback: true });
    let certificates = match &grpc.security {
        Security::Plain { .. } if !plain_allowed && !grpc.listen.ip().is_loopback() => {
            return Err(LinkError::Setup(format!(
                "the link would listen at {} without TLS: set its certificates, or allow plain text beyond loopback",
                grpc.listen
            )));
        }
        Security::Plain { .. } => None,
        Security::Tls(tls) => Some(Certificates::load(tls.clone()).await?),
    };
    let listener = listen::bind(grpc.listen).await?;
    let address = listener.local_addr().map_err(|error| LinkError::Setup(format!("no address: {error}")))?;
    let carrier = Arc::new(GrpcCarrier::new(&settings, certificates.clone(), plain_allowed));
    let times = listen::Times::of(&settings);
    let (link, front) = NodeLink::new(settings, carrier, book, handler, Some(grpc.advertise.unwrap_or(address)));
    let server = listen::serve(listener, certificates.clone(), front, times);
    let watching = certificates.map(|certificates| certificates.watch());
    link.keep(Box::new((server, watching)));
    Ok(link)
}
