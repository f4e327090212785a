//! One attempt to reach a peer: wait, look it up, open a stream, check who is there.
//!
//! Never tries twice: the lane decides about that. Used by the lane.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::envelope::{Lane, NodeId};
use crate::link::Capacity;
use crate::link::carrier::{Destination, DialError, Pipe};
use crate::link::hello::{self, Counterpart};
use crate::link::node::Office;

/// A stream that lives.
pub(crate) struct Up {
    pub(crate) counterpart: Counterpart,
    pub(crate) session: u64,
    /// What the peer takes without having answered.
    pub(crate) window: Capacity,
    pub(crate) pipe: Pipe,
}

/// What became of an attempt.
pub(crate) enum Dialed {
    Up(Box<Up>),
    Failed(String),
    Refused(String),
    Leaving,
    Unknown,
}

/// Tries once, after a pause that ends early when the peer is found elsewhere or anew.
pub(crate) async fn dial(office: Arc<Office>, peer: NodeId, lane: Lane, pause: Duration) -> Dialed {
    let before = office.book.find(&peer);
    let end = Instant::now() + pause;
    while Instant::now() < end && office.book.find(&peer) == before {
        sleep((end - Instant::now()).min(office.settings.beat)).await;
    }
    let Some(place) = office.book.find(&peer) else { return Dialed::Unknown };
    let to = Destination { address: place.address, node: Some(peer.clone()) };
    let ours = hello::ours(&office.settings, lane.into(), office.address);
    let patience = office.settings.drop_after;
    let (hello, pipe) = match timeout(patience, office.carrier.dial(&to, ours)).await {
        Err(_) => return Dialed::Failed(format!("{} did not answer within {patience:?}", place.address)),
        Ok(Err(DialError::Failed(reason))) => return Dialed::Failed(format!("{}: {reason}", place.address)),
        Ok(Err(DialError::Refused(reason))) => return Dialed::Refused(reason),
        Ok(Err(DialError::Leaving)) => return Dialed::Leaving,
        Ok(Ok(up)) => up,
    };
    let counterpart = match hello::check(&office.settings, &hello) {
        Ok(counterpart) => counterpart,
        Err(reason) => return Dialed::Refused(reason),
    };
    if counterpart.sender.node != peer {
        return Dialed::Failed(format!("at {} is '{}'", place.address, counterpart.sender.node));
    }
    if counterpart.sender.incarnation < place.incarnation {
        return Dialed::Failed(format!("at {} is still {}", place.address, counterpart.sender.incarnation));
    }
    let window = Capacity {
        envelopes: hello.window_envelopes.max(1) as usize,
        bytes: usize::try_from(hello.window_bytes).unwrap_or(usize::MAX),
    };
    Dialed::Up(Box::new(Up { counterpart, session: hello.session, window, pipe }))
}
