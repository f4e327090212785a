//! Where a lane stands, as others see it, and its figures.
//!
//! Written by the lane's task, read by everyone who posts or lists. Used by the lane and by `node`.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use motet_store::port::Incarnation;

use crate::envelope::{Lane, NodeId};
use crate::link::room::Room;
use crate::link::{LaneState, LinkError, PeerView};

const STATES: [LaneState; 6] =
    [LaneState::Connecting, LaneState::Up, LaneState::Suspect, LaneState::Down, LaneState::Refused, LaneState::Leaving];

/// What the ledger counts.
#[derive(Clone)]
pub(crate) struct Figures {
    /// Seconds from posting to the answer.
    pub(crate) seconds: Histogram,
    /// Envelopes that were sent again.
    pub(crate) resent: Counter,
    /// Envelopes that failed without an answer.
    pub(crate) failed: Counter,
}

/// Where a lane stands.
pub(crate) struct Status {
    node: NodeId,
    lane: Lane,
    state: AtomicU8,
    resent: Arc<AtomicU64>,
    detail: Mutex<Detail>,
    room: Arc<Room>,
    depth: Gauge,
    bytes: Gauge,
    round_trip: Gauge,
    figures: Figures,
}

#[derive(Default)]
struct Detail {
    reason: String,
    incarnation: Option<Incarnation>,
    round_trip: Option<Duration>,
}

impl Status {
    pub(crate) fn new(node: NodeId, lane: Lane, room: Arc<Room>) -> Arc<Self> {
        let labels = [("peer", node.to_string()), ("lane", lane.to_string())];
        let resent = Arc::new(AtomicU64::new(0));
        Arc::new(Self {
            state: AtomicU8::new(0),
            detail: Mutex::default(),
            room,
            depth: metrics::gauge!("motet_link_unanswered", &labels),
            bytes: metrics::gauge!("motet_link_unanswered_bytes", &labels),
            round_trip: metrics::gauge!("motet_link_round_trip_seconds", &labels),
            figures: Figures {
                seconds: metrics::histogram!("motet_link_answer_seconds", &labels),
                resent: metrics::counter!("motet_link_resent_total", &labels),
                failed: metrics::counter!("motet_link_failed_total", &labels),
            },
            resent,
            node,
            lane,
        })
    }

    pub(crate) fn figures(&self) -> (Figures, Arc<AtomicU64>) {
        (self.figures.clone(), Arc::clone(&self.resent))
    }

    fn detail(&self) -> MutexGuard<'_, Detail> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> LaneState {
        STATES[usize::from(self.state.load(Ordering::Relaxed)) % STATES.len()]
    }

    /// Whether posting is refused at once.
    pub(crate) fn is_refusing(&self) -> bool {
        matches!(self.state(), LaneState::Down | LaneState::Refused | LaneState::Leaving)
    }

    /// What posting ends with, when it is refused.
    pub(crate) fn refusal(&self, peer: &NodeId) -> Option<LinkError> {
        let peer = || peer.clone();
        match self.state() {
            LaneState::Connecting | LaneState::Up | LaneState::Suspect => None,
            LaneState::Down => {
                Some(LinkError::Down { peer: peer(), sent: false, reason: self.detail().reason.clone() })
            }
            LaneState::Refused => Some(LinkError::Refused { peer: peer(), reason: self.detail().reason.clone() }),
            LaneState::Leaving => Some(LinkError::Leaving(peer())),
        }
    }

    pub(crate) fn set(&self, state: LaneState, reason: String) {
        self.detail().reason = reason;
        let place = STATES.iter().position(|known| *known == state).unwrap_or_default();
        self.state.store(u8::try_from(place).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Another reason for the same state.
    pub(crate) fn explain(&self, reason: String) {
        self.detail().reason = reason;
    }

    pub(crate) fn reason(&self) -> Option<String> {
        Some(self.detail().reason.clone()).filter(|reason| !reason.is_empty())
    }

    pub(crate) fn up(&self, incarnation: Incarnation) {
        self.set(LaneState::Up, String::new());
        self.detail().incarnation = Some(incarnation);
    }

    pub(crate) fn round_trip(&self, time: Duration) {
        self.detail().round_trip = Some(time);
        self.round_trip.set(time.as_secs_f64());
    }

    /// Brings the gauges up to date.
    pub(crate) fn show(&self) {
        let taken = self.room.taken();
        self.depth.set(taken.envelopes as f64);
        self.bytes.set(taken.bytes as f64);
    }

    pub(crate) fn view(&self) -> PeerView {
        let state = self.state();
        let reason = self.reason();
        let detail = self.detail();
        PeerView {
            node: self.node.clone(),
            lane: self.lane,
            state,
            reason,
            incarnation: detail.incarnation,
            unanswered: self.room.taken(),
            resent: self.resent.load(Ordering::Relaxed),
            round_trip: detail.round_trip,
        }
    }
}
