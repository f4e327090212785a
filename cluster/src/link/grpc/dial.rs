//! The dialling end of a stream: connects, shakes hands, says hello.
//!
//! A connection carries one stream and ends with it. Never connects again by itself. Used by the lanes and by gossip.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::service_fn;

use super::codec::MAX_FRAME_BYTES;
use super::connection::{Connection, Shown, set_up};
use super::listen::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Times};
use super::service::{LEAVING, words};
use super::tls::Certificates;
use crate::envelope::NodeId;
use crate::link::LinkSettings;
use crate::link::carrier::{Carrier, Destination, DialError, PIPE_FRAMES, Pipe};
use crate::wire::carrier_client::CarrierClient;
use crate::wire::{Frame, Hello};

/// Opens streams over gRPC.
pub(super) struct GrpcCarrier {
    certificates: Option<Arc<Certificates>>,
    plain_beyond_loopback: bool,
    times: Times,
}

impl GrpcCarrier {
    pub(super) fn new(
        settings: &LinkSettings,
        certificates: Option<Arc<Certificates>>,
        plain_beyond_loopback: bool,
    ) -> Self {
        Self { certificates, plain_beyond_loopback, times: Times::of(settings) }
    }

    /// A connection to an address, and the certificate that was shown there.
    async fn connect(&self, to: &Destination) -> Result<(Channel, Shown), DialError> {
        if self.certificates.is_none() && !self.plain_beyond_loopback && !to.address.ip().is_loopback() {
            return Err(DialError::Refused(format!("{} would be reached without TLS", to.address)));
        }
        let shown = Arc::new(Mutex::new(None));
        let connector = {
            let (certificates, times, shown) = (self.certificates.clone(), self.times, Arc::clone(&shown));
            let (address, node) = (to.address, to.node.clone());
            service_fn(move |_: Uri| {
                let (certificates, shown, node) = (certificates.clone(), Arc::clone(&shown), node.clone());
                async move {
                    let connection = open(address, node, certificates, times).await?;
                    *shown.lock().unwrap_or_else(PoisonError::into_inner) = connection.shown();
                    std::io::Result::Ok(TokioIo::new(connection))
                }
            })
        };
        // The name is never resolved: the connector knows where to go.
        let channel = Endpoint::from_static("http://motet.link")
            .http2_keep_alive_interval(self.times.ping_every)
            .keep_alive_timeout(self.times.dead_after)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_with_connector(connector)
            .await
            .map_err(|error| of_error(&error))?;
        let shown = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok((channel, shown))
    }
}

async fn open(
    address: SocketAddr,
    node: Option<NodeId>,
    certificates: Option<Arc<Certificates>>,
    times: Times,
) -> std::io::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    set_up(&stream, times.dead_after)?;
    let Some(certificates) = certificates else { return Ok(Connection::Plain(stream)) };
    let named = node.and_then(|node| ServerName::try_from(node.as_str().to_owned()).ok());
    let named = named.unwrap_or_else(|| ServerName::from(address.ip()));
    let stream = TlsConnector::from(certificates.client()).connect(named, stream).await?;
    Ok(Connection::Tls(Box::new(stream.into())))
}

#[async_trait]
impl Carrier for GrpcCarrier {
    async fn dial(&self, to: &Destination, hello: Hello) -> Result<(Hello, Pipe), DialError> {
        let (channel, shown) = self.connect(to).await?;
        let (out, frames) = mpsc::channel(PIPE_FRAMES);
        let first = futures::stream::iter([Frame { hello: Some(hello), ..Frame::default() }]);
        let mut client = CarrierClient::new(channel.clone())
            .max_decoding_message_size(MAX_FRAME_BYTES)
            .max_encoding_message_size(MAX_FRAME_BYTES);
        let carried = client.carry(first.chain(ReceiverStream::new(frames))).await;
        let mut incoming = carried.map_err(|status| of_status(&status))?.into_inner();
        let first = incoming.message().await.map_err(|status| of_status(&status))?;
        let theirs = first
            .and_then(|frame| frame.hello)
            .ok_or_else(|| DialError::Refused("what listens there is no link".to_owned()))?;
        if let Some(certificates) = &self.certificates {
            let node = NodeId::new(&theirs.node).map_err(|error| DialError::Refused(error.to_string()))?;
            certificates.prove(&node, shown.as_deref()).map_err(DialError::Refused)?;
        }
        let incoming = incoming.map(move |found| {
            // The connection lives as long as its stream is read.
            let _connection = &channel;
            found.map_err(|status| words(&status))
        });
        Ok((theirs, Pipe { out, incoming: incoming.boxed() }))
    }
}

fn of_status(status: &Status) -> DialError {
    match status.code() {
        Code::FailedPrecondition | Code::Unimplemented => DialError::Refused(status.message().to_owned()),
        Code::Unavailable if status.message() == LEAVING => DialError::Leaving,
        _ => match status.source() {
            Some(source) => of_error(source),
            None => DialError::Failed(words(status)),
        },
    }
}

/// What went wrong below gRPC. Certificates that do not fit will not fit a moment later either.
fn of_error(error: &(dyn Error + 'static)) -> DialError {
    let (mut reasons, mut found) = (vec![], Some(error));
    while let Some(error) = found {
        let within = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = within.and_then(|within| within.downcast_ref::<rustls::Error>());
        if let Some(tls) = tls.or_else(|| error.downcast_ref()) {
            return DialError::Refused(format!("the certificates do not fit: {tls}"));
        }
        reasons.push(error.to_string());
        found = error.source();
    }
    reasons.dedup();
    DialError::Failed(reasons.join(": "))
}
