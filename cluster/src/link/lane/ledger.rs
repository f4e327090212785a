//! What a lane owes: envelopes that wait, and envelopes that were sent and have no answer yet.
//!
//! Knows no connection and does not wait. Ids are given when an envelope is first sent, so they rise in the order of
//! sending. Used by the lane's task.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::status::Figures;
use crate::envelope::{Answer, NodeId, Parcel};
use crate::link::room::Held;
use crate::link::{Capacity, LinkError};
use crate::wire::{self, Frame};

/// Payload bytes after which a frame takes no further envelope.
const FRAME_BYTES: usize = 64 << 10;

/// Envelopes that a frame takes.
pub(crate) const FRAME_ENVELOPES: usize = 512;

/// A posted envelope.
pub(crate) struct Outgoing {
    pub(crate) parcel: Parcel,
    pub(crate) one_way: bool,
    pub(crate) posted: Instant,
    pub(crate) deadline: Instant,
    pub(crate) reply: oneshot::Sender<Result<Answer, LinkError>>,
    pub(crate) held: Held,
}

impl Outgoing {
    pub(crate) fn finish(self, result: Result<Answer, LinkError>) {
        // Its place is free before its caller goes on, who may want it again.
        drop(self.held);
        // Nobody may want to know any more.
        let _ = self.reply.send(result);
    }

    fn bytes(&self) -> usize {
        self.parcel.payload.len()
    }
}

/// What a lane owes.
pub(crate) struct Ledger {
    peer: NodeId,
    ids: Arc<AtomicU64>,
    protocol: u32,
    window: Capacity,
    waiting: VecDeque<Outgoing>,
    pending: BTreeMap<u64, Outgoing>,
    /// Pending ones that have to be sent once more.
    again: VecDeque<u64>,
    pending_bytes: usize,
    last: u64,
    /// Not later than the earliest deadline.
    alarm: Option<Instant>,
    figures: Figures,
    resent: Arc<AtomicU64>,
}

impl Ledger {
    pub(crate) fn new(peer: NodeId, ids: Arc<AtomicU64>, (figures, resent): (Figures, Arc<AtomicU64>)) -> Self {
        Self {
            peer,
            ids,
            protocol: 0,
            window: Capacity::default(),
            waiting: VecDeque::new(),
            pending: BTreeMap::new(),
            again: VecDeque::new(),
            pending_bytes: 0,
            last: 0,
            alarm: None,
            figures,
            resent,
        }
    }

    /// Takes an envelope that waits for its turn.
    pub(crate) fn wait(&mut self, outgoing: Outgoing) {
        self.alarm = Some(self.alarm.map_or(outgoing.deadline, |alarm| alarm.min(outgoing.deadline)));
        self.waiting.push_back(outgoing);
    }

    /// Whether nothing is owed.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.pending.is_empty()
    }

    /// When the next deadline may pass.
    pub(crate) fn alarm(&self) -> Option<Instant> {
        self.alarm
    }

    /// A new stream: everything pending goes first, within its own window.
    pub(crate) fn send_again(&mut self, window: Capacity, protocol: u32) {
        (self.window, self.protocol) = (window, protocol);
        self.again = self.pending.keys().copied().collect();
    }

    /// Envelopes that have to be sent once more.
    pub(crate) fn to_resend(&self) -> usize {
        self.again.len()
    }

    /// Whether a frame would carry an envelope.
    pub(crate) fn has_output(&self) -> bool {
        !self.again.is_empty() || self.waiting.front().is_some_and(|next| self.fits(next.bytes()))
    }

    fn fits(&self, bytes: usize) -> bool {
        let alone = self.pending.is_empty();
        self.pending.len() < self.window.envelopes && (alone || self.pending_bytes + bytes <= self.window.bytes)
    }

    /// The next frame, which is empty when nothing may be sent.
    pub(crate) fn frame(&mut self, now: Instant) -> Frame {
        let mut frame = Frame::default();
        let mut bytes = 0;
        while bytes < FRAME_BYTES && frame.envelopes.len() < FRAME_ENVELOPES {
            let Some((id, first)) = self.next(now) else { break };
            let Some(outgoing) = self.pending.get(&id) else { continue };
            if !first {
                self.resent.fetch_add(1, Ordering::Relaxed);
                self.figures.resent.increment(1);
            }
            bytes += outgoing.bytes() + wire::ENVELOPE_OVERHEAD;
            let remaining = outgoing.deadline.saturating_duration_since(now);
            frame.envelopes.push(wire::envelope(&outgoing.parcel, id, self.protocol, outgoing.one_way, remaining));
        }
        frame.settled_below = self.pending.first_key_value().map_or(self.last + 1, |(id, _)| *id);
        frame
    }

    /// Id of the envelope that is sent next, and whether for the first time.
    fn next(&mut self, now: Instant) -> Option<(u64, bool)> {
        if let Some(id) = self.again.pop_front() {
            return Some((id, false));
        }
        while self.waiting.front().is_some_and(|next| self.fits(next.bytes())) {
            let outgoing = self.waiting.pop_front()?;
            if outgoing.deadline <= now {
                self.figures.failed.increment(1);
                outgoing.finish(Err(LinkError::Expired { peer: self.peer.clone(), sent: false }));
                continue;
            }
            let id = self.ids.fetch_add(1, Ordering::Relaxed);
            self.last = id;
            self.pending_bytes += outgoing.bytes();
            self.pending.insert(id, outgoing);
            return Some((id, true));
        }
        None
    }

    /// Ends what was answered.
    pub(crate) fn settle(&mut self, acknowledged: Vec<u64>, answers: Vec<wire::Answer>, now: Instant) {
        for id in acknowledged {
            if let Some(outgoing) = self.remove(id) {
                self.figures.seconds.record((now - outgoing.posted).as_secs_f64());
                outgoing.finish(Ok(Answer::Ack(Bytes::new())));
            }
        }
        for answer in answers {
            if let Some(outgoing) = self.remove(answer.id) {
                self.figures.seconds.record((now - outgoing.posted).as_secs_f64());
                outgoing.finish(Ok(wire::answered(answer)));
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Outgoing> {
        let outgoing = self.pending.remove(&id)?;
        self.pending_bytes -= outgoing.bytes();
        Some(outgoing)
    }

    /// Ends what nobody waits for any more.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.alarm.is_none_or(|alarm| alarm > now) {
            return;
        }
        let due: Vec<_> =
            self.pending.iter().filter(|(_, outgoing)| outgoing.deadline <= now).map(|(id, _)| *id).collect();
        for outgoing in due.into_iter().filter_map(|id| self.remove(id)).collect::<Vec<_>>() {
            self.fail(outgoing, LinkError::Expired { peer: self.peer.clone(), sent: true });
        }
        if self.waiting.iter().any(|outgoing| outgoing.deadline <= now) {
            for outgoing in std::mem::take(&mut self.waiting) {
                if outgoing.deadline <= now {
                    self.fail(outgoing, LinkError::Expired { peer: self.peer.clone(), sent: false });
                } else {
                    self.waiting.push_back(outgoing);
                }
            }
        }
        self.alarm = self.pending.values().chain(&self.waiting).map(|outgoing| outgoing.deadline).min();
    }

    fn fail(&self, outgoing: Outgoing, error: LinkError) {
        self.figures.failed.increment(1);
        outgoing.finish(Err(error));
    }

    /// Ends what was sent.
    pub(crate) fn fail_pending(&mut self, error: &LinkError) {
        self.again.clear();
        self.pending_bytes = 0;
        for (_, outgoing) in std::mem::take(&mut self.pending) {
            self.fail(outgoing, error.clone());
        }
    }

    /// Ends what was not sent.
    pub(crate) fn fail_waiting(&mut self, error: &LinkError) {
        for outgoing in std::mem::take(&mut self.waiting) {
            self.fail(outgoing, error.clone());
        }
    }

    /// Ends everything, each with an error that knows whether it was sent.
    pub(crate) fn fail_all(&mut self, error: impl Fn(bool) -> LinkError) {
        if !self.pending.is_empty() {
            self.fail_pending(&error(true));
        }
        if !self.waiting.is_empty() {
            self.fail_waiting(&error(false));
        }
    }
}

#[cfg(test)]
mod tests;
