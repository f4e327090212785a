//! The sessions of a node: one for each peer and lane, of the newest incarnation that said hello.
//!
//! Locked only when a stream begins or somebody lists. Used by the front, which accepts streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge};
use motet_store::port::Incarnation;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::Session;
use crate::envelope::{Lane, NodeId, Sender};
use crate::link::carrier::{DialError, Pipe};
use crate::link::lane::Closing;
use crate::link::{Capacity, Handler, InboundView, LinkSettings};

/// What a session is made for.
pub(crate) struct Slot {
    pub(crate) settings: Arc<LinkSettings>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) sender: Arc<Sender>,
    pub(crate) lane: Lane,
    pub(crate) closing: Closing,
}

struct Entry {
    incarnation: Incarnation,
    number: u64,
    streams: mpsc::Sender<Pipe>,
    books: Arc<Books>,
}

/// The sessions.
pub(crate) struct Registry {
    settings: Arc<LinkSettings>,
    handler: Arc<dyn Handler>,
    closing: Closing,
    tasks: TaskTracker,
    numbers: AtomicU64,
    sessions: Mutex<HashMap<(NodeId, Lane), Entry>>,
}

impl Registry {
    pub(crate) fn new(
        settings: Arc<LinkSettings>,
        handler: Arc<dyn Handler>,
        closing: Closing,
        tasks: TaskTracker,
    ) -> Self {
        Self { settings, handler, closing, tasks, numbers: AtomicU64::new(1), sessions: Mutex::default() }
    }

    /// The number of the session of a sender, begun when there is none, and where its streams go.
    pub(crate) fn open(&self, sender: &Arc<Sender>, lane: Lane) -> Result<(u64, mpsc::Sender<Pipe>), DialError> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, entry| !entry.streams.is_closed());
        let key = (sender.node.clone(), lane);
        match sessions.get(&key) {
            Some(entry) if entry.incarnation == sender.incarnation => return Ok((entry.number, entry.streams.clone())),
            Some(entry) if entry.incarnation > sender.incarnation => {
                let newer = entry.incarnation;
                return Err(DialError::Refused(format!("{newer} of '{}' is here already: end the older", sender.node)));
            }
            None if sessions.len() >= self.settings.max_peers.saturating_mul(Lane::ALL.len()) => {
                return Err(DialError::Failed("too many peers are here already".to_owned()));
            }
            _ => {}
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (streams, arriving) = mpsc::channel(1);
        let books = Books::new(sender, lane);
        let slot = Slot {
            settings: Arc::clone(&self.settings),
            handler: Arc::clone(&self.handler),
            sender: Arc::clone(sender),
            lane,
            closing: self.closing.clone(),
        };
        self.tasks.spawn(Session::new(slot, arriving, Arc::clone(&books)).run());
        let entry = Entry { incarnation: sender.incarnation, number, streams: streams.clone(), books };
        sessions.insert(key, entry);
        Ok((number, streams))
    }

    /// How the sessions do, in the order of their peers.
    pub(crate) fn views(&self) -> Vec<InboundView> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let living = sessions.iter().filter(|(_, entry)| !entry.streams.is_closed());
        let mut views: Vec<_> =
            living.map(|((node, lane), entry)| entry.books.view(node.clone(), entry.incarnation, *lane)).collect();
        views.sort_by(|one, other| (&one.node, one.lane).cmp(&(&other.node, other.lane)));
        views
    }
}

/// A session's figures.
pub(crate) struct Books {
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    running: AtomicUsize,
    remembered: AtomicUsize,
    remembered_bytes: AtomicUsize,
    depth: Gauge,
    repeated: Counter,
    undecodable: Counter,
    overloaded: Counter,
}

impl Books {
    fn new(sender: &Sender, lane: Lane) -> Arc<Self> {
        let labels = [("peer", sender.node.to_string()), ("lane", lane.to_string())];
        Arc::new(Self {
            queued: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            remembered: AtomicUsize::new(0),
            remembered_bytes: AtomicUsize::new(0),
            depth: metrics::gauge!("motet_link_inbound_queued", &labels),
            repeated: metrics::counter!("motet_link_repeated_total", &labels),
            undecodable: metrics::counter!("motet_link_undecodable_total", &labels),
            overloaded: metrics::counter!("motet_link_overloaded_total", &labels),
        })
    }

    pub(crate) fn repeated(&self) {
        self.repeated.increment(1);
    }

    pub(crate) fn undecodable(&self) {
        self.undecodable.increment(1);
    }

    pub(crate) fn overloaded(&self) {
        self.overloaded.increment(1);
    }

    pub(crate) fn show(&self, (queued, queued_bytes): (usize, usize), running: usize, remembered: Capacity) {
        self.queued.store(queued, Ordering::Relaxed);
        self.queued_bytes.store(queued_bytes, Ordering::Relaxed);
        self.running.store(running, Ordering::Relaxed);
        self.remembered.store(remembered.envelopes, Ordering::Relaxed);
        self.remembered_bytes.store(remembered.bytes, Ordering::Relaxed);
    }

    /// Brings the gauge up to date.
    pub(crate) fn publish(&self) {
        self.depth.set(self.queued.load(Ordering::Relaxed) as f64);
    }

    /// The session has ended.
    pub(crate) fn closed(&self) {
        self.show((0, 0), 0, Capacity::default());
        self.publish();
    }

    fn view(&self, node: NodeId, incarnation: Incarnation, lane: Lane) -> InboundView {
        let of = |envelopes: &AtomicUsize, bytes: &AtomicUsize| Capacity {
            envelopes: envelopes.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        };
        InboundView {
            node,
            incarnation,
            lane,
            queued: of(&self.queued, &self.queued_bytes),
            running: self.running.load(Ordering::Relaxed),
            remembered: of(&self.remembered, &self.remembered_bytes),
        }
    }
}
