//! Datagrams inside one process, and everything that can happen to them: loss, delay, partitions, forged bytes.
//!
//! What happens follows from a seed as far as the order of the senders does. Used by tests of whole clusters.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::datagrams::{Datagrams, MAX_DATAGRAM_BYTES};

/// Datagrams that wait for a receiver; what comes beyond them is lost.
const WAITING: usize = 256;

/// Datagrams that are kept for those who want to look at them.
const OVERHEARD: usize = 64;

type Sent = (SocketAddr, Bytes);

/// A network inside one process.
#[derive(Clone, Debug)]
pub struct LocalNetwork {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    ends: HashMap<SocketAddr, mpsc::Sender<Sent>>,
    /// Pairs between which nothing passes, each in the direction of sending.
    cut: HashSet<(SocketAddr, SocketAddr)>,
    loss: f64,
    delay: Duration,
    draw: u64,
    overheard: Vec<Bytes>,
}

impl LocalNetwork {
    /// A network in which everything arrives at once.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            ends: HashMap::new(),
            cut: HashSet::new(),
            loss: 0.0,
            delay: Duration::ZERO,
            draw: seed,
            overheard: vec![],
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An end that listens at an address, in place of one that did before.
    #[must_use]
    pub fn open(&self, address: SocketAddr) -> LocalDatagrams {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.inner().ends.insert(address, sender);
        LocalDatagrams { address, network: self.clone(), arriving: tokio::sync::Mutex::new(receiver) }
    }

    /// Closes the end at an address; what it sends goes nowhere from now on.
    pub fn close(&self, address: SocketAddr) {
        self.inner().ends.remove(&address);
    }

    /// Loses this share of all datagrams, 0 to 1.
    pub fn lose(&self, share: f64) {
        self.inner().loss = share;
    }

    /// Lets every datagram take up to this long, so that they also change their order.
    pub fn delay(&self, at_most: Duration) {
        self.inner().delay = at_most;
    }

    /// Lets nothing pass from one to the other.
    pub fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.inner().cut.insert((from, to));
    }

    /// Lets nothing pass between one and all others, neither way.
    pub fn isolate(&self, one: SocketAddr) {
        let mut inner = self.inner();
        let others: Vec<_> = inner.ends.keys().copied().filter(|other| *other != one).collect();
        for other in others {
            inner.cut.extend([(one, other), (other, one)]);
        }
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.inner().cut.clear();
    }

    /// Sends bytes that look as if they came from an address.
    pub fn forge(&self, from: SocketAddr, to: SocketAddr, bytes: Bytes) -> bool {
        let end = self.inner().ends.get(&to).cloned();
        end.is_some_and(|end| end.try_send((from, bytes)).is_ok())
    }

    /// Some of what was sent lately.
    #[must_use]
    pub fn overheard(&self) -> Vec<Bytes> {
        self.inner().overheard.clone()
    }
}

impl Inner {
    /// A drawn number, 0 to less than 1 (splitmix64).
    fn fraction(&mut self) -> f64 {
        self.draw = self.draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.draw ^ (self.draw >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One end of a network inside one process.
#[derive(Debug)]
pub struct LocalDatagrams {
    address: SocketAddr,
    network: LocalNetwork,
    arriving: tokio::sync::Mutex<mpsc::Receiver<Sent>>,
}

#[async_trait]
impl Datagrams for LocalDatagrams {
    fn send(&self, to: SocketAddr, bytes: Bytes) -> bool {
        if bytes.len() > MAX_DATAGRAM_BYTES {
            return false;
        }
        let mut inner = self.network.inner();
        if inner.overheard.len() < OVERHEARD {
            inner.overheard.push(bytes.clone());
        }
        let open = inner.ends.contains_key(&self.address) && !inner.cut.contains(&(self.address, to));
        if !open || inner.fraction() < inner.loss {
            return true;
        }
        let Some(end) = inner.ends.get(&to).cloned() else { return true };
        let (from, delay) = (self.address, inner.delay.mul_f64(inner.fraction()));
        if delay.is_zero() {
            return end.try_send((from, bytes)).is_ok();
        }
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = end.try_send((from, bytes));
        });
        true
    }

    async fn receive(&self) -> Option<Sent> {
        self.arriving.lock().await.recv().await
    }
}
