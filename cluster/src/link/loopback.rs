//! The link inside one process: nodes of a network in memory, with the faults of a real one.
//!
//! Everything above the frames is the code that gRPC runs. Used by tests and simulations of many nodes.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};

use super::carrier::{Carrier, Destination, DialError, PIPE_FRAMES, Pipe};
use super::node::{Front, NodeLink};
use super::{Handler, LinkError, LinkSettings, PeerBook, Place};
use crate::envelope::NodeId;
use crate::wire::{Frame, Hello};

/// How the network treats a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Weather {
    /// Counts the moments at which every stream of the node broke.
    cuts: u64,
    /// Nothing moves, nothing breaks.
    frozen: bool,
}

struct Member {
    front: Arc<Front>,
    place: Place,
    weather: watch::Sender<Weather>,
}

/// A network of nodes in memory. Cheap to clone.
#[derive(Clone, Default)]
pub struct Loopback {
    members: Arc<Mutex<HashMap<NodeId, Member>>>,
    ports: Arc<AtomicU16>,
}

impl Loopback {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn members(&self) -> MutexGuard<'_, HashMap<NodeId, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a node's link. A node of the same name is replaced, as by a new incarnation at the same address.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub fn join(
        &self,
        settings: LinkSettings,
        book: Arc<dyn PeerBook>,
        handler: Arc<dyn Handler>,
    ) -> Result<Arc<NodeLink>, LinkError> {
        settings.check()?;
        let (node, incarnation) = (settings.node.clone(), settings.incarnation);
        let mut members = self.members();
        let fresh = || SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.fetch_add(1, Ordering::Relaxed)));
        let address = members.get(&node).map_or_else(fresh, |old| old.place.address);
        let weather = watch::channel(Weather::default()).0;
        let carrier = Arc::new(LoopbackCarrier { network: self.clone(), weather: weather.subscribe() });
        let (link, front) = NodeLink::new(settings, carrier, book, handler, Some(address));
        members.insert(node, Member { front, place: Place { incarnation, address }, weather });
        Ok(link)
    }

    /// Takes a node off the network at once, as when its process is killed.
    pub fn kill(&self, node: &NodeId) {
        self.cut(node);
        self.members().remove(node);
    }

    /// Breaks every stream from and to a node. New ones can be opened.
    pub fn cut(&self, node: &NodeId) {
        if let Some(member) = self.members().get(node) {
            member.weather.send_modify(|weather| weather.cuts += 1);
        }
    }

    /// Lets nothing move from and to a node, or everything again.
    pub fn freeze(&self, node: &NodeId, frozen: bool) {
        if let Some(member) = self.members().get(node) {
            member.weather.send_modify(|weather| weather.frozen = frozen);
        }
    }

    /// A book that knows the nodes of this network.
    #[must_use]
    pub fn book(&self) -> Arc<dyn PeerBook> {
        let network = self.clone();
        Arc::new(move |node: &NodeId| network.members().get(node).map(|member| member.place))
    }
}

struct LoopbackCarrier {
    network: Loopback,
    weather: watch::Receiver<Weather>,
}

#[async_trait]
impl Carrier for LoopbackCarrier {
    async fn dial(&self, to: &Destination, hello: Hello) -> Result<(Hello, Pipe), DialError> {
        let (front, there) = {
            let members = self.network.members();
            let found = members.values().find(|member| member.place.address == to.address);
            let nobody = || DialError::Failed("nobody listens there".to_owned());
            let member = found.ok_or_else(nobody)?;
            (Arc::clone(&member.front), member.weather.subscribe())
        };
        let mut both = Both { here: self.weather.clone(), there };
        if !both.is_calm().await {
            return Err(DialError::Failed("the connection broke".to_owned()));
        }
        // Names are what they claim to be: nobody else is in this process.
        let (answer, seat) = front.accept(&hello, |_| Ok(()))?;
        let (their_out, our_in) = mpsc::channel(PIPE_FRAMES);
        let (our_out, their_in) = mpsc::channel(PIPE_FRAMES);
        seat.take(Pipe { out: their_out, incoming: both.clone().carry(their_in) });
        Ok((answer, Pipe { out: our_out, incoming: both.carry(our_in) }))
    }
}

/// The weather at both ends of a stream.
#[derive(Clone)]
struct Both {
    here: watch::Receiver<Weather>,
    there: watch::Receiver<Weather>,
}

impl Both {
    /// Waits until frames may move. False when the stream breaks.
    async fn is_calm(&mut self) -> bool {
        let cuts = |both: &Self| (both.here.borrow().cuts, both.there.borrow().cuts);
        let before = cuts(self);
        loop {
            let frozen = self.here.borrow_and_update().frozen || self.there.borrow_and_update().frozen;
            if cuts(self) != before {
                return false;
            }
            if !frozen {
                return true;
            }
            let changed = tokio::select! {
                changed = self.here.changed() => changed,
                changed = self.there.changed() => changed,
            };
            if changed.is_err() {
                return false;
            }
        }
    }

    /// What arrives of what is put in at the other end.
    fn carry(self, frames: mpsc::Receiver<Frame>) -> BoxStream<'static, Result<Frame, String>> {
        let before = (self.here.borrow().cuts, self.there.borrow().cuts);
        let broken = || Err("the connection broke".to_owned());
        futures::stream::unfold(Some((self, frames)), move |state| async move {
            let (mut both, mut frames) = state?;
            loop {
                let frozen = both.here.borrow_and_update().frozen || both.there.borrow_and_update().frozen;
                if (both.here.borrow().cuts, both.there.borrow().cuts) != before {
                    return Some((broken(), None));
                }
                let changed = tokio::select! {
                    frame = frames.recv(), if !frozen => return frame.map(|frame| (Ok(frame), Some((both, frames)))),
                    changed = both.here.changed() => changed,
                    changed = both.there.changed() => changed,
                };
                if changed.is_err() {
                    return Some((broken(), None));
                }
            }
        })
        .boxed()
    }
}
