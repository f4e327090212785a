//! A TCP proxy that harms what it carries: late, slow, stalled, swallowed, cut after exactly n bytes.
//!
//! Each direction has its own rules, which may change while connections live. Buffers are bounded: a direction holds
//! at most one chunk. Never looks into what it carries. Used by the rows of the fault matrix between a node and its
//! services.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::waiting::let_pass;

/// Bytes that one direction of one connection holds.
const CHUNK: usize = 16 << 10;

/// Connections at one time; further ones wait in the system's queue.
const CONNECTIONS: usize = 256;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client to the service.
    There,
    /// From the service to the client.
    Back,
}

/// How one direction treats its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    /// Every chunk is held for this long.
    pub latency: Duration,
    /// At most this many bytes per second on each connection; 0 for no bound.
    pub bytes_per_second: u64,
    /// Nothing moves; the connections stay open.
    pub stalled: bool,
    /// Bytes are taken and forgotten: the other side hears nothing and sees no error.
    pub swallowed: bool,
    /// When this side ends, the other one is told this much later.
    pub slow_close: Duration,
}

struct Way {
    rule: watch::Sender<Rule>,
    /// Bytes that still pass before the connection that carries the next one is cut; negative for no end.
    left: AtomicI64,
    carried: AtomicU64,
}

impl Way {
    fn new() -> Self {
        Self { rule: watch::channel(Rule::default()).0, left: AtomicI64::new(-1), carried: AtomicU64::new(0) }
    }

    /// Takes the permission to carry bytes: how many of them, and whether the connection is cut after those.
    fn allow(&self, wanted: usize) -> (usize, bool) {
        let mut allowed = (wanted, false);
        let _ = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            if left < 0 {
                allowed = (wanted, false);
                return None;
            }
            let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
            allowed = (usize::try_from(wanted.min(left)).unwrap_or(0), left <= wanted);
            // Used up, the order is carried out once: later connections live.
            Some(if left <= wanted { -1 } else { left - wanted })
        });
        allowed
    }
}

struct Shared {
    service: Mutex<SocketAddr>,
    there: Way,
    back: Way,
    cuts: watch::Sender<u64>,
    made: AtomicU64,
}

impl Shared {
    fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::There => &self.there,
            Direction::Back => &self.back,
        }
    }
}

/// A proxy in front of one service; ends with its value.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Proxy {
    /// Listens on a free port of the loopback interface and carries everything to `service`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(service: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            service: Mutex::new(service),
            there: Way::new(),
            back: Way::new(),
            cuts: watch::channel(0).0,
            made: AtomicU64::new(0),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, listening })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives a direction another rule, for connections that live too.
    pub fn set(&self, direction: Direction, rule: Rule) {
        self.shared.way(direction).rule.send_replace(rule);
    }

    /// Cuts the connection that carries the `bytes`-th byte from now on, after exactly that byte; 0 cuts before the
    /// next one. Happens once.
    pub fn cut_after(&self, direction: Direction, bytes: u32) {
        self.shared.way(direction).left.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// Whether an order of [`Proxy::cut_after`] still waits for its byte.
    #[must_use]
    pub fn is_armed(&self, direction: Direction) -> bool {
        self.shared.way(direction).left.load(Ordering::SeqCst) >= 0
    }

    /// Takes such an order back.
    pub fn disarm(&self, direction: Direction) {
        self.shared.way(direction).left.store(-1, Ordering::SeqCst);
    }

    /// Cuts every connection that lives.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Leads new connections to another service, and cuts those that live.
    ///
    /// # Panics
    /// When a part of the proxy has panicked.
    pub fn lead_to(&self, service: SocketAddr) {
        *self.shared.service.lock().unwrap() = service;
        self.cut();
    }

    /// Bytes that were carried in a direction so far.
    #[must_use]
    pub fn carried(&self, direction: Direction) -> u64 {
        self.shared.way(direction).carried.load(Ordering::SeqCst)
    }

    /// Connections that were made so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.made.load(Ordering::SeqCst)
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with the proxy, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                shared.made.fetch_add(1, Ordering::SeqCst);
                connections.spawn(carry(client, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let service = *shared.service.lock().unwrap();
    // A service that is down looks like one: the client's connection ends.
    let Ok(upstream) = TcpStream::connect(service).await else { return };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let (client_in, client_out) = client.into_split();
    let (service_in, service_out) = upstream.into_split();
    let both = async {
        let there = pump(client_in, service_out, &shared.there);
        let back = pump(service_in, client_out, &shared.back);
        // One that ended well lets the other one go on; one that was cut takes the other one with it.
        tokio::pin!(there, back);
        tokio::select! {
            end = &mut there => if end == End::Closed { back.await; },
            end = &mut back => if end == End::Closed { there.await; },
        }
    };
    tokio::select! {
        () = both => {}
        _ = cuts.changed() => {}
    }
}

#[derive(PartialEq, Eq)]
enum End {
    Closed,
    Cut,
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way) -> End {
    let mut rules = way.rule.subscribe();
    let mut chunk = vec![0; CHUNK];
    loop {
        let Ok(read) = from.read(&mut chunk).await else { return End::Cut };
        let rule = {
            let moving = rules.wait_for(|rule| !rule.stalled).await;
            let Ok(rule) = moving else { return End::Cut };
            *rule
        };
        if read == 0 {
            let_pass(rule.slow_close).await;
            let _ = to.shutdown().await;
            return End::Closed;
        }
        if rule.swallowed {
            continue;
        }
        if !rule.latency.is_zero() {
            let_pass(rule.latency).await;
        }
        if rule.bytes_per_second > 0 {
            let_pass(Duration::from_secs_f64(read as f64 / rule.bytes_per_second as f64)).await;
        }
        let (allowed, cut) = way.allow(read);
        if to.write_all(&chunk[..allowed]).await.is_err() {
            return End::Cut;
        }
        way.carried.fetch_add(allowed as u64, Ordering::SeqCst);
        if cut {
            return End::Cut;
        }
    }
}
