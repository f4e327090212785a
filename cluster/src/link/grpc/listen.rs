//! Listening for peers: connections are accepted in one place, their TLS handshakes run beside each other.
//!
//! Bounded: handshakes at one time, streams of a connection, time for either. Used by `grpc::start`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::codec::MAX_FRAME_BYTES;
use super::connection::{Connection, set_up};
use super::service::LinkService;
use super::tls::Certificates;
use crate::link::node::Front;
use crate::link::{LinkError, LinkSettings};
use crate::wire::carrier_server::CarrierServer;

/// TLS handshakes at one time.
const HANDSHAKES: usize = 64;

/// Streams of one connection; the link uses one.
const STREAMS: u32 = 4;

/// HTTP/2 windows: what a stream and a connection may hold unread. Envelopes have their own window above these.
pub(super) const STREAM_WINDOW_BYTES: u32 = 2 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Pause after the system could not accept a connection, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The times of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Between two HTTP/2 pings.
    pub(super) ping_every: Duration,
    /// After which a connection without a sign of life ends, and a handshake has failed.
    pub(super) dead_after: Duration,
}

impl Times {
    pub(super) fn of(settings: &LinkSettings) -> Self {
        // The beats of the link notice silence first; these end connections that have no lane any more.
        Self { ping_every: settings.drop_after, dead_after: settings.drop_after * 2 }
    }
}

/// What listens; ends when it is dropped.
pub(super) struct Listening(Vec<JoinHandle<()>>);

impl Drop for Listening {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, LinkError> {
    let failed = |error: io::Error| {
        LinkError::Setup(format!("the link cannot listen at {address}: {error}; choose another address or port"))
    };
    TcpListener::bind(address).await.map_err(failed)
}

/// Accepts peers until the value is dropped.
pub(super) fn serve(
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    front: Arc<Front>,
    times: Times,
) -> Listening {
    let (ready, accepted) = mpsc::channel(HANDSHAKES);
    let accepting = tokio::spawn(accept(listener, certificates.clone(), ready, times));
    let service = CarrierServer::new(LinkService::new(front, certificates, times.dead_after))
        .max_decoding_message_size(MAX_FRAME_BYTES)
        .max_encoding_message_size(MAX_FRAME_BYTES);
    let serving = tokio::spawn(async move {
        let served = Server::builder()
            .http2_keepalive_interval(Some(times.ping_every))
            .http2_keepalive_timeout(Some(times.dead_after))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS)
            .serve_with_incoming(service, ReceiverStream::new(accepted))
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, "the link does not listen any more");
        }
    });
    Listening(vec![accepting, serving])
}

async fn accept(
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    ready: mpsc::Sender<io::Result<Connection>>,
    times: Times,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the link could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (certificates, ready) = (certificates.clone(), ready.clone());
        tokio::spawn(async move {
            let _place = place;
            match timeout(times.dead_after, shake_hands(stream, certificates, times)).await {
                // Nobody takes it any more when the link has ended.
                Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                Ok(Err(error)) => {
                    metrics::counter!("motet_link_refused_total").increment(1);
                    tracing::warn!(%error, "a connection to the link was refused");
                }
                Err(_) => tracing::info!("a handshake with the link took too long"),
            }
        });
    }
}

async fn shake_hands(
    stream: TcpStream,
    certificates: Option<Arc<Certificates>>,
    times: Times,
) -> io::Result<Connection> {
    set_up(&stream, times.dead_after)?;
    let Some(certificates) = certificates else { return Ok(Connection::Plain(stream)) };
    let stream = TlsAcceptor::from(certificates.server()).accept(stream).await?;
    Ok(Connection::Tls(Box::new(stream.into())))
}
