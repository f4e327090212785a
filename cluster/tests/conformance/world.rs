//! Where the nodes of a test live: in memory, or behind TCP proxies on the loopback interface.
//!
//! Both can cut, freeze and kill. Used by every row.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use motet_cluster::envelope::{Lane, NodeId};
use motet_cluster::link::grpc::{self, GrpcSettings};
use motet_cluster::link::loopback::Loopback;
use motet_cluster::link::node::NodeLink;
use motet_cluster::link::settings::Backoff;
use motet_cluster::link::{Handler, LaneState, Link, LinkError, LinkSettings, PeerView, Place};
use motet_engine::id::Name;
use motet_store::port::Incarnation;

use crate::proxy::{Direction, Proxy, Rule};
use crate::waiting::until;

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Settings of a node whose times are short.
pub(crate) fn settings(node: &str, incarnation: u64) -> LinkSettings {
    let mut settings = LinkSettings::new(Name::new("test").unwrap(), id(node), Incarnation(incarnation));
    settings.beat = Duration::from_millis(100);
    settings.suspect_after = Duration::from_millis(400);
    settings.drop_after = Duration::from_millis(1_200);
    settings.backoff = Backoff { first: Duration::from_millis(10), most: Duration::from_millis(200) };
    settings
}

pub(crate) fn id(node: &str) -> NodeId {
    NodeId::new(node).unwrap()
}

/// Where nodes live.
#[async_trait]
pub(crate) trait World: Send + Sync {
    /// Starts a node; one of the same name is replaced.
    async fn start(&self, settings: LinkSettings, handler: Arc<dyn Handler>) -> Arc<NodeLink>;

    /// Breaks every connection to a node.
    fn cut(&self, node: &str);

    /// Lets nothing move to and from a node, or everything again.
    fn freeze(&self, node: &str, frozen: bool);

    /// Ends a node as if its process had been killed.
    fn kill(&self, node: &str);

    /// Connections that were made to a node, when the world counts them.
    fn connections(&self, node: &str) -> Option<u64>;
}

/// Nodes in memory.
#[derive(Default)]
pub(crate) struct Memory {
    network: Loopback,
}

#[async_trait]
impl World for Memory {
    async fn start(&self, settings: LinkSettings, handler: Arc<dyn Handler>) -> Arc<NodeLink> {
        self.cut(settings.node.as_str());
        self.network.join(settings, self.network.book(), handler).unwrap()
    }

    fn cut(&self, node: &str) {
        self.network.cut(&id(node));
    }

    fn freeze(&self, node: &str, frozen: bool) {
        self.network.freeze(&id(node), frozen);
    }

    fn kill(&self, node: &str) {
        self.network.kill(&id(node));
    }

    fn connections(&self, _: &str) -> Option<u64> {
        None
    }
}

struct Member {
    place: Place,
    proxy: Option<Proxy>,
}

/// Nodes that listen, each behind a proxy.
#[derive(Default)]
pub(crate) struct Grpc {
    members: Arc<Mutex<HashMap<NodeId, Member>>>,
}

impl Grpc {
    /// Cuts the next connection to a node that carries so many bytes in a direction, after exactly those.
    pub(crate) fn cut_after(&self, node: &str, direction: Direction, bytes: u32) {
        self.with_proxy(node, |proxy| proxy.cut_after(direction, bytes));
    }

    /// Whether such a cut is still to come; it is taken back.
    pub(crate) fn disarm(&self, node: &str, direction: Direction) -> bool {
        let armed = self.with_proxy(node, |proxy| {
            let armed = proxy.is_armed(direction);
            proxy.disarm(direction);
            armed
        });
        armed.unwrap_or_default()
    }

    fn with_proxy<T>(&self, node: &str, act: impl FnOnce(&Proxy) -> T) -> Option<T> {
        self.members.lock().unwrap().get(&id(node)).and_then(|member| member.proxy.as_ref()).map(act)
    }
}

#[async_trait]
impl World for Grpc {
    async fn start(&self, settings: LinkSettings, handler: Arc<dyn Handler>) -> Arc<NodeLink> {
        let (node, incarnation) = (settings.node.clone(), settings.incarnation);
        let members = Arc::clone(&self.members);
        let book = Arc::new(move |node: &NodeId| members.lock().unwrap().get(node).map(|member| member.place));
        let link = grpc::start(settings, GrpcSettings::loopback(), book, handler).await.unwrap();
        let proxy = Proxy::start(link.address().unwrap()).await.unwrap();
        let place = Place { incarnation, address: proxy.address() };
        // The proxy of a node that is replaced ends here, and with it the connections to the old one.
        self.members.lock().unwrap().insert(node, Member { place, proxy: Some(proxy) });
        link
    }

    fn cut(&self, node: &str) {
        self.with_proxy(node, Proxy::cut);
    }

    fn freeze(&self, node: &str, frozen: bool) {
        let rule = Rule { stalled: frozen, ..Rule::default() };
        self.with_proxy(node, |proxy| {
            proxy.set(Direction::There, rule);
            proxy.set(Direction::Back, rule);
        });
    }

    fn kill(&self, node: &str) {
        self.members.lock().unwrap().get_mut(&id(node)).unwrap().proxy = None;
    }

    fn connections(&self, node: &str) -> Option<u64> {
        self.with_proxy(node, Proxy::connections)
    }
}

/// Waits for the lane to a peer to be as wanted.
pub(crate) async fn lane_is(link: &NodeLink, to: &str, lane: Lane, what: &str, wanted: impl Fn(&PeerView) -> bool) {
    let look = async || link.peers().into_iter().find(|view| view.node == id(to) && view.lane == lane && wanted(view));
    let found = until(PATIENCE, what, look).await;
    found.unwrap_or_else(|error| panic!("{error}: {:?}", link.peers()));
}

/// Waits until the control lane to a peer has a stream.
pub(crate) async fn up(link: &NodeLink, to: &str) {
    lane_is(link, to, Lane::Control, "a stream", |view| view.state == LaneState::Up).await;
}

/// The error that a receipt must end with.
pub(crate) async fn error(receipt: motet_cluster::link::Receipt) -> LinkError {
    match tokio::time::timeout(PATIENCE, receipt).await.unwrap() {
        Err(error) => error,
        Ok(answer) => panic!("an error was expected, not {answer:?}"),
    }
}

/// The answer that a receipt must end with.
pub(crate) async fn answer(receipt: motet_cluster::link::Receipt) -> motet_cluster::envelope::Answer {
    tokio::time::timeout(PATIENCE, receipt).await.unwrap().unwrap()
}
