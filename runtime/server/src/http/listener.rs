//! Sockets: binding with a clear error, accepting within bounds, ending connections when the server stops.
//!
//! Knows nothing of routes. Used by `bootstrap`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::anyhow;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::door::Door;
use super::{App, Surface};

/// Connections of one listener at one time; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 16_384;

/// Longest time for the head of a request, and for a connection to stay without one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of a request in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Requests of one HTTP/2 connection at one time.
const MAX_STREAMS: u32 = 1024;

/// How long accepting pauses when the system has no more file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// An address that is taken but not served yet.
#[derive(Debug)]
pub struct Bound {
    socket: TcpListener,
    address: SocketAddr,
}

/// Takes an address; `setting` is the name of the section that it is from.
///
/// # Errors
/// When the address is in use or may not be taken; says what to do about it.
pub async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<Bound> {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let told = |error: std::io::Error| {
        let advice = match error.kind() {
            AddrInUse => "another process listens there; stop it, or choose another address",
            PermissionDenied => "this user may not take it; choose a port above 1023",
            AddrNotAvailable => "this machine has no such address; choose one of its own",
            _ => "choose another address",
        };
        let place = format!("with --{setting} ADDRESS or {setting}.address");
        anyhow!("cannot listen on {address}: {error}: {advice} {place}")
    };
    let socket = TcpListener::bind(address).await.map_err(told)?;
    let address = socket.local_addr().map_err(told)?;
    Ok(Bound { socket, address })
}

impl Bound {
    /// Serves a surface until stopped.
    #[must_use]
    pub fn serve(self, surface: Surface, app: &Arc<App>) -> Listener {
        let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
        let door = Door::new(Arc::clone(app), app.routes(surface), surface);
        let served = Served { door, surface, stop: stop.clone(), connections: connections.clone() };
        connections.spawn(accept(self.socket, served));
        Listener { address: self.address, stop, connections }
    }
}

/// A served address.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Listener {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets requests in flight end for at most `grace`, then drops their connections.
    pub async fn stop(self, grace: Duration) {
        self.stop.cancel();
        self.connections.close();
        if tokio::time::timeout(grace, self.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.connections.len(), "requests did not end in time and are dropped");
        }
    }
}

#[derive(Clone)]
struct Served {
    door: Door,
    surface: Surface,
    stop: CancellationToken,
    connections: TaskTracker,
}

async fn accept(socket: TcpListener, served: Served) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let open = metrics::gauge!("motet_http_connections", "listener" => served.surface.as_str());
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = served.stop.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = served.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (served, open) = (served.clone(), open.clone());
                let connections = served.connections.clone();
                connections.spawn(async move {
                    open.increment(1);
                    connection(stream, served).await;
                    open.decrement(1);
                    drop(place);
                });
            }
            Err(error) => {
                // Such as no free file descriptors: others may end while nothing is accepted.
                tracing::warn!(%error, listener = served.surface.as_str(), "a connection could not be accepted");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, served: Served) {
    // An answer must not wait for the acknowledgement of the one before it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(HEAD_TIMEOUT)
        .keep_alive_timeout(HEAD_TIMEOUT);
    let door = served.door.for_connection();
    let used = door.used();
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(door));
    let mut connection = std::pin::pin!(connection);
    // Telling HTTP/1 and HTTP/2 apart has no time limit of its own.
    let silent = tokio::time::sleep(HEAD_TIMEOUT);
    let mut silent = std::pin::pin!(silent);
    let mut watching = true;
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "a connection did not end well");
                }
                return;
            }
            () = silent.as_mut(), if watching => {
                if !used.load(Ordering::Relaxed) {
                    return;
                }
                watching = false;
            }
            () = served.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
