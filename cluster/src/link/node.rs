//! The link of one node: its lanes to peers, the sessions of peers, and gossip, over whatever carries frames.
//!
//! The same for the loopback and for gRPC. Posting takes a shared lock on the map of peers and nothing else that others
//! hold. Started by `grpc::start` and by `loopback`.

mod front;

use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

pub(crate) use self::front::Front;
use super::carrier::Carrier;
use super::gossip::Gossip;
use super::lane::ledger::Outgoing;
use super::lane::status::Status;
use super::lane::{Closing, LaneTask};
use super::room::Room;
use super::session::registry::Registry;
use super::{Handler, InboundView, Link, LinkError, LinkSettings, PeerBook, PeerView, Receipt};
use crate::envelope::{Lane, MAX_PATIENCE, MAX_PAYLOAD_BYTES, NodeId, Parcel};

/// What all lanes of a node share.
pub(crate) struct Office {
    pub(crate) settings: Arc<LinkSettings>,
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) book: Arc<dyn PeerBook>,
    /// The id of the next envelope, whatever its lane: none is given twice in an incarnation.
    pub(crate) ids: Arc<AtomicU64>,
    /// Where this node can be reached.
    pub(crate) address: Option<SocketAddr>,
}

struct LaneHandle {
    queue: mpsc::Sender<Outgoing>,
    room: Arc<Room>,
    status: Arc<Status>,
}

type Peers = RwLock<HashMap<NodeId, [Option<LaneHandle>; Lane::ALL.len()]>>;

/// The link of one node. Ends with its value, at once; [`Link::close`] ends it well.
pub struct NodeLink {
    office: Arc<Office>,
    peers: Arc<Peers>,
    registry: Arc<Registry>,
    gossip: Arc<Gossip>,
    closing: watch::Sender<Option<Instant>>,
    tasks: TaskTracker,
    /// What listens; dropped when the link ends.
    listening: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Drop for NodeLink {
    fn drop(&mut self) {
        self.closing.send_replace(Some(Instant::now()));
    }
}

impl NodeLink {
    /// A link, and the front to which the transport brings the streams of peers.
    pub(crate) fn new(
        settings: LinkSettings,
        carrier: Arc<dyn Carrier>,
        book: Arc<dyn PeerBook>,
        handler: Arc<dyn Handler>,
        address: Option<SocketAddr>,
    ) -> (Arc<Self>, Arc<Front>) {
        let settings = Arc::new(settings);
        let (closing, closed) = watch::channel(None);
        let tasks = TaskTracker::new();
        let registry = Arc::new(Registry::new(Arc::clone(&settings), handler, closed.clone(), tasks.clone()));
        let ids = Arc::new(AtomicU64::new(1));
        let office = Arc::new(Office { settings, carrier, book, ids, address });
        let gossip = Gossip::new(Arc::clone(&office), closed.clone(), tasks.clone());
        let front = Front::new(Arc::clone(&office), Arc::clone(&registry), Arc::clone(&gossip), closed);
        let link =
            Self { office, peers: Arc::default(), registry, gossip, closing, tasks, listening: Mutex::new(None) };
        (Arc::new(link), Arc::new(front))
    }

    /// Keeps what listens until the link ends.
    pub(crate) fn keep(&self, listening: Box<dyn Any + Send>) {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = Some(listening);
    }

    /// Where peers reach this node.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.office.address
    }

    /// The lossy lane for datagrams.
    #[must_use]
    pub fn gossip(&self) -> &Arc<Gossip> {
        &self.gossip
    }

    fn closing(&self) -> Closing {
        self.closing.subscribe()
    }

    fn post(&self, (to, lane): (&NodeId, Lane), parcel: Parcel, within: Duration, one_way: bool) -> Receipt {
        let (reply, answer) = oneshot::channel();
        match self.queue((to, lane), parcel, within, (one_way, reply)) {
            Ok(()) => Receipt::awaited(answer),
            Err(error) => Receipt::refused(error),
        }
    }

    fn queue(
        &self,
        (to, lane): (&NodeId, Lane),
        parcel: Parcel,
        within: Duration,
        (one_way, reply): (bool, oneshot::Sender<Result<crate::envelope::Answer, LinkError>>),
    ) -> Result<(), LinkError> {
        let bytes = parcel.payload.len();
        if bytes > MAX_PAYLOAD_BYTES {
            return Err(LinkError::TooLarge(bytes));
        }
        if self.closing.borrow().is_some() {
            return Err(LinkError::Closed { sent: false });
        }
        let posted = Instant::now();
        let deadline = posted + within.min(MAX_PATIENCE);
        let full = || LinkError::Full { peer: to.clone(), lane };
        self.with_lane(to, lane, |handle| {
            if let Some(error) = handle.status.refusal(to) {
                return Err(error);
            }
            let held = handle.room.take(bytes).ok_or_else(full)?;
            let outgoing = Outgoing { parcel, one_way, posted, deadline, reply, held };
            // The queue is as long as the room is large; a lane that ends at this moment has lost its peer.
            handle.queue.try_send(outgoing).map_err(|_| LinkError::Unknown { peer: to.clone(), sent: false })
        })
    }

    /// Does something with the lane to a peer, which is begun when there is none.
    fn with_lane<T>(
        &self,
        to: &NodeId,
        lane: Lane,
        act: impl FnOnce(&LaneHandle) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        {
            let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
            let found = peers.get(to).and_then(|lanes| lanes[lane as usize].as_ref());
            if let Some(handle) = found.filter(|handle| !handle.queue.is_closed()) {
                return act(handle);
            }
        }
        if self.office.book.find(to).is_none() {
            return Err(LinkError::Unknown { peer: to.clone(), sent: false });
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if !peers.contains_key(to) && peers.len() >= self.office.settings.max_peers {
            return Err(LinkError::Full { peer: to.clone(), lane });
        }
        let place = &mut peers.entry(to.clone()).or_default()[lane as usize];
        if place.as_ref().is_some_and(|handle| handle.queue.is_closed()) {
            *place = None;
        }
        act(place.get_or_insert_with(|| self.begin(to, lane)))
    }

    fn begin(&self, to: &NodeId, lane: Lane) -> LaneHandle {
        let room = Room::new(self.office.settings.capacity);
        let status = Status::new(to.clone(), lane, Arc::clone(&room));
        let (queue, queued) = mpsc::channel(self.office.settings.capacity.envelopes);
        let key = (to.clone(), lane);
        let task = LaneTask::new(Arc::clone(&self.office), key, queued, Arc::clone(&status), self.closing());
        let (peers, peer) = (Arc::clone(&self.peers), to.clone());
        self.tasks.spawn(async move {
            task.run().await;
            let mut peers = peers.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(lanes) = peers.get_mut(&peer) {
                let ended = |lane: &mut Option<LaneHandle>| lane.as_ref().is_some_and(|lane| lane.queue.is_closed());
                lanes
                    .iter_mut()
                    .filter_map(|lane| if ended(lane) { Some(lane) } else { None })
                    .for_each(|lane| *lane = None);
                if lanes.iter().all(Option::is_none) {
                    peers.remove(&peer);
                }
            }
        });
        LaneHandle { queue, room, status }
    }
}

#[async_trait]
impl Link for NodeLink {
    fn request(&self, to: &NodeId, lane: Lane, parcel: Parcel, within: Duration) -> Receipt {
        self.post((to, lane), parcel, within, false)
    }

    fn send(&self, to: &NodeId, lane: Lane, parcel: Parcel, within: Duration) -> Receipt {
        self.post((to, lane), parcel, within, true)
    }

    fn peers(&self) -> Vec<PeerView> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let mut views: Vec<_> = peers.values().flatten().flatten().map(|handle| handle.status.view()).collect();
        views.sort_by(|one, other| (&one.node, one.lane).cmp(&(&other.node, other.lane)));
        views
    }

    fn inbound(&self) -> Vec<InboundView> {
        self.registry.views()
    }

    async fn close(&self, within: Duration) {
        let end = Instant::now() + within.min(MAX_PATIENCE);
        self.closing.send_if_modified(|closing| {
            let first = closing.is_none();
            closing.get_or_insert(end);
            first
        });
        self.tasks.close();
        let all = timeout_at(end, self.tasks.wait()).await;
        if all.is_err() {
            tracing::info!("the link ended before everything under way was answered");
            self.closing.send_replace(Some(Instant::now()));
        }
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
