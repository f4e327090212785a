//! The nodes that the store knows: who lives, where each is reached, and what each weighs.
//!
//! Read from the leases again and again; a little old at any time, which harms nobody: the store decides who owns what.
//! Used by the link to find peers, and by keeper and planner.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use motet_cluster::envelope::NodeId;
use motet_cluster::link::{PeerBook, Place};
use motet_cluster::shards::{Member, Members};
use motet_store::port::{Incarnation, LiveNode, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Longest wait for the store.
const PATIENCE: Duration = Duration::from_secs(2);

/// The nodes that live, kept up to date until it is dropped.
pub(super) struct Roster {
    book: Arc<Book>,
    members: watch::Receiver<Arc<Members>>,
    names: watch::Receiver<Arc<[NodeId]>>,
    looking: JoinHandle<()>,
}

impl Drop for Roster {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// Where each node is reached.
#[derive(Default)]
struct Book(RwLock<HashMap<NodeId, SocketAddr>>);

impl PeerBook for Book {
    fn find(&self, node: &NodeId) -> Option<Place> {
        let places = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // A node keeps its link over lives that it lost and began anew, so any life of it will do.
        places.get(node).map(|address| Place { incarnation: Incarnation(0), address: *address })
    }
}

impl Roster {
    /// Begins to look. Of a node nothing is known but its lease: each counts as much as this one, by its `weight`.
    pub(super) fn start(store: Arc<dyn Store>, weight: u32) -> Self {
        let book = Arc::new(Book::default());
        let (tell_members, members) = watch::channel(Arc::default());
        let (tell_names, names) = watch::channel(Arc::from([]));
        let places = Arc::clone(&book);
        let looking = tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let live = match tokio::time::timeout(PATIENCE, store.live()).await {
                    Ok(Ok(live)) => live,
                    // The keeper tells when the store is away; who was there may still be.
                    Ok(Err(_)) | Err(_) => continue,
                };
                let found: HashMap<_, _> = live.iter().filter_map(place).collect();
                let mut known: Vec<_> = found.keys().cloned().collect();
                known.sort();
                *places.0.write().unwrap_or_else(PoisonError::into_inner) = found;
                let all: Members = live.iter().map(|node| member(node, weight)).collect();
                tell_members.send_if_modified(|before: &mut Arc<Members>| change(before, Arc::new(all)));
                tell_names.send_if_modified(|before: &mut Arc<[NodeId]>| change(before, known.into()));
            }
        });
        Self { book, members, names, looking }
    }

    pub(super) fn book(&self) -> Arc<dyn PeerBook> {
        Arc::clone(&self.book) as Arc<_>
    }

    pub(super) fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    pub(super) fn names(&self) -> watch::Receiver<Arc<[NodeId]>> {
        self.names.clone()
    }
}

fn change<T: PartialEq>(before: &mut T, now: T) -> bool {
    let changed = *before != now;
    *before = now;
    changed
}

fn place(node: &LiveNode) -> Option<(NodeId, SocketAddr)> {
    let address = node.address.parse().inspect_err(|error| {
        tracing::warn!(node = node.node, address = node.address, %error, "the node gives no address that can be used");
    });
    Some((NodeId::new(&node.node).ok()?, address.ok()?))
}

fn member(node: &LiveNode, weight: u32) -> Member {
    Member { node: node.node.clone(), incarnation: node.incarnation, weight, serves_runs: true, draining: false }
}
