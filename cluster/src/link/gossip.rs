//! The lossy lane: opaque datagrams to addresses, as membership by gossip wants them.
//!
//! Like UDP, but authenticated: the streams have the handshake and the certificates of the link. A stream of its own,
//! so that gossip neither waits behind envelopes nor needs to know who is at an address. Never resends, never waits: what
//! finds no room is dropped and counted. Used by membership, through an adapter to its transport.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::carrier::{Destination, DialError, Pipe};
use super::hello;
use super::lane::Closing;
use super::node::Office;
use crate::wire::{Frame, Lane};

/// Largest datagram in bytes, as large as UDP allows.
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Datagrams that a frame takes.
pub(crate) const FRAME_DATAGRAMS: usize = 16;

/// Time after which the stream to an address ends that nobody writes to.
const IDLE: Duration = Duration::from_secs(60);

/// Sends and receives datagrams.
pub struct Gossip {
    office: Arc<Office>,
    closing: Closing,
    tasks: TaskTracker,
    outgoing: Mutex<HashMap<SocketAddr, mpsc::Sender<Bytes>>>,
    arrived: mpsc::Sender<(SocketAddr, Bytes)>,
    arriving: tokio::sync::Mutex<mpsc::Receiver<(SocketAddr, Bytes)>>,
    streams: Arc<Semaphore>,
}

fn drop_one(why: &'static str) {
    metrics::counter!("motet_link_gossip_dropped_total", "why" => why).increment(1);
}

impl Gossip {
    pub(crate) fn new(office: Arc<Office>, closing: Closing, tasks: TaskTracker) -> Arc<Self> {
        let (arrived, arriving) = mpsc::channel(office.settings.gossip_queue);
        let streams = Arc::new(Semaphore::new(office.settings.max_peers));
        let arriving = tokio::sync::Mutex::new(arriving);
        Arc::new(Self { office, closing, tasks, outgoing: Mutex::default(), arrived, arriving, streams })
    }

    /// Sends a datagram to whatever node of the cluster listens at an address. False when it was dropped at once: too
    /// large, no room, or the link has ended. True promises nothing.
    pub fn send(&self, to: SocketAddr, datagram: Bytes) -> bool {
        if datagram.len() > MAX_DATAGRAM_BYTES {
            drop_one("size");
            return false;
        }
        if self.closing.borrow().is_some() {
            return false;
        }
        let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        outgoing.retain(|_, queue| !queue.is_closed());
        if !outgoing.contains_key(&to) && outgoing.len() >= self.office.settings.max_peers {
            drop_one("peers");
            return false;
        }
        let queue = outgoing.entry(to).or_insert_with(|| {
            let (queue, queued) = mpsc::channel(self.office.settings.gossip_queue);
            self.tasks.spawn(carry(Arc::clone(&self.office), to, queued, self.closing.clone()));
            queue
        });
        let sent = queue.try_send(datagram).is_ok();
        if !sent {
            drop_one("full");
        }
        sent
    }

    /// The next datagram, and the address at which its sender listens. Waits until there is one; none when the link
    /// has ended.
    pub async fn receive(&self) -> Option<(SocketAddr, Bytes)> {
        let (mut closing, mut arriving) = (self.closing.clone(), self.arriving.lock().await);
        tokio::select! {
            arrived = arriving.recv() => arrived,
            _ = closing.wait_for(Option::is_some) => None,
        }
    }

    /// Where the datagrams of a peer's stream go.
    pub(crate) fn arrivals(&self, from: SocketAddr) -> Result<Arrivals, DialError> {
        let many = |_| DialError::Failed("too many peers gossip already".to_owned());
        let place = Arc::clone(&self.streams).try_acquire_owned().map_err(many)?;
        let (arrived, closing, tasks) = (self.arrived.clone(), self.closing.clone(), self.tasks.clone());
        Ok(Arrivals { from, arrived, closing, tasks, _place: place })
    }
}

/// The seat of a peer's gossip.
pub(crate) struct Arrivals {
    from: SocketAddr,
    arrived: mpsc::Sender<(SocketAddr, Bytes)>,
    closing: Closing,
    tasks: TaskTracker,
    _place: OwnedSemaphorePermit,
}

impl Arrivals {
    pub(crate) fn listen(mut self, mut pipe: Pipe) {
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            loop {
                let frame = tokio::select! {
                    frame = pipe.incoming.next() => frame,
                    _ = self.closing.changed() => return,
                };
                let Some(Ok(frame)) = frame else { return };
                for datagram in frame.datagrams {
                    if self.arrived.try_send((self.from, datagram)).is_err() {
                        drop_one("full");
                    }
                }
            }
        });
    }
}

/// Carries datagrams to an address until nobody writes to it any more.
async fn carry(office: Arc<Office>, to: SocketAddr, mut queue: mpsc::Receiver<Bytes>, mut closing: Closing) {
    let mut pipe: Option<Pipe> = None;
    let (mut attempt, mut not_before) = (0_u32, Instant::now());
    loop {
        let first = tokio::select! {
            first = timeout(IDLE, queue.recv()) => match first {
                Ok(Some(first)) => first,
                _ => return,
            },
            () = ended(&mut pipe) => {
                pipe = None;
                continue;
            }
            _ = closing.changed() => return,
        };
        if pipe.is_none() && Instant::now() >= not_before {
            pipe = open(&office, to).await;
            attempt = if pipe.is_some() { 0 } else { attempt.saturating_add(1) };
            not_before = Instant::now() + office.settings.backoff.pause(attempt);
        }
        let Some(up) = &pipe else {
            drop_one("unreachable");
            continue;
        };
        let mut datagrams = vec![first];
        while datagrams.len() < FRAME_DATAGRAMS {
            let Ok(next) = queue.try_recv() else { break };
            datagrams.push(next);
        }
        let frame = Frame { datagrams, ..Frame::default() };
        if !matches!(timeout(office.settings.drop_after, up.out.send(frame)).await, Ok(Ok(()))) {
            drop_one("unreachable");
            pipe = None;
        }
    }
}

/// Ends when a stream does; never without one.
async fn ended(pipe: &mut Option<Pipe>) {
    match pipe {
        None => std::future::pending().await,
        Some(pipe) => while let Some(Ok(_)) = pipe.incoming.next().await {},
    }
}

async fn open(office: &Office, to: SocketAddr) -> Option<Pipe> {
    let ours = hello::ours(&office.settings, Lane::Gossip, office.address);
    let destination = Destination { address: to, node: None };
    let dialed = timeout(office.settings.drop_after, office.carrier.dial(&destination, ours)).await;
    let (reason, refused) = match dialed {
        Err(_) => ("no answer in time".to_owned(), false),
        Ok(Err(DialError::Failed(reason))) => (reason, false),
        Ok(Err(DialError::Refused(reason))) => (reason, true),
        Ok(Err(DialError::Leaving)) => ("it is leaving".to_owned(), false),
        Ok(Ok((theirs, pipe))) => match hello::check(&office.settings, &theirs) {
            Ok(_) => return Some(pipe),
            Err(reason) => (reason, true),
        },
    };
    if refused {
        tracing::warn!(%to, reason, "gossip was refused");
    } else {
        tracing::debug!(%to, reason, "gossip finds nobody");
    }
    None
}
