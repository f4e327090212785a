//! The door for streams of peers: checks who comes, says hello, and leads them to their session.
//!
//! Knows no transport: that one brings the hello and proves the name in it. Used by `grpc` and `loopback`.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Office;
use crate::envelope::{self, NodeId};
use crate::link::carrier::{DialError, Pipe};
use crate::link::gossip::{Arrivals, Gossip};
use crate::link::hello;
use crate::link::lane::Closing;
use crate::link::session::registry::Registry;
use crate::wire::{Hello, Lane};

/// The door.
pub(crate) struct Front {
    office: Arc<Office>,
    registry: Arc<Registry>,
    gossip: Arc<Gossip>,
    closing: Closing,
}

/// Where an accepted stream goes.
pub(crate) enum Seat {
    Session(mpsc::Sender<Pipe>),
    Gossip(Arrivals),
}

impl Seat {
    /// Hands the stream over. One that finds its session gone, or another one before it, is dropped: its sender comes
    /// again.
    pub(crate) fn take(self, pipe: Pipe) {
        match self {
            Self::Session(streams) => drop(streams.try_send(pipe)),
            Self::Gossip(arrivals) => arrivals.listen(pipe),
        }
    }
}

impl Front {
    pub(crate) fn new(office: Arc<Office>, registry: Arc<Registry>, gossip: Arc<Gossip>, closing: Closing) -> Self {
        Self { office, registry, gossip, closing }
    }

    /// Checks a peer that says hello, and gives this node's hello and the seat of the stream.
    pub(crate) fn accept(
        &self,
        theirs: &Hello,
        prove: impl FnOnce(&NodeId) -> Result<(), String>,
    ) -> Result<(Hello, Seat), DialError> {
        if self.closing.borrow().is_some() {
            return Err(DialError::Leaving);
        }
        let accepted = self.seat(theirs, prove);
        if let Err(DialError::Refused(reason)) = &accepted {
            metrics::counter!("motet_link_refused_total").increment(1);
            tracing::warn!(peer = theirs.node, reason, "a peer was refused");
        }
        accepted
    }

    fn seat(
        &self,
        theirs: &Hello,
        prove: impl FnOnce(&NodeId) -> Result<(), String>,
    ) -> Result<(Hello, Seat), DialError> {
        let settings = &self.office.settings;
        let counterpart = hello::check(settings, theirs).map_err(DialError::Refused)?;
        prove(&counterpart.sender.node).map_err(DialError::Refused)?;
        let mut ours = hello::ours(settings, theirs.lane(), self.office.address);
        let lane = match theirs.lane() {
            Lane::Control => envelope::Lane::Control,
            Lane::Bulk => envelope::Lane::Bulk,
            Lane::Gossip => {
                let Some(address) = counterpart.address else {
                    return Err(DialError::Refused("gossip needs the address at which its sender listens".to_owned()));
                };
                return Ok((ours, Seat::Gossip(self.gossip.arrivals(address)?)));
            }
            Lane::Unspecified => {
                return Err(DialError::Refused("the hello names no lane that this version knows".to_owned()));
            }
        };
        let (number, streams) = self.registry.open(&counterpart.sender, lane)?;
        ours.session = number;
        Ok((ours, Seat::Session(streams)))
    }
}
