//! The sending half of a lane: one task that owns everything between the caller's queue and the stream to the peer.
//!
//! It writes what waits into few frames, settles receipts as answers arrive, notices silence, connects again with
//! jitter and sends again what has no answer yet. Nothing here is locked: callers reach it through a bounded queue
//! alone. Spawned by `node`, one for each peer and lane.

mod dial;
pub(crate) mod ledger;
pub(crate) mod status;

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use motet_store::port::Incarnation;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use self::dial::{Dialed, dial};
use self::ledger::{Ledger, Outgoing};
use self::status::Status;
use super::backoff::jittered;
use super::carrier::Pipe;
use super::node::Office;
use super::{LaneState, LinkError};
use crate::envelope::{Lane, NodeId};
use crate::wire::Frame;

/// Envelopes that are taken from the queue in one go.
const TAKEN_AT_ONCE: usize = 256;

/// When the link ends, as soon as it does.
pub(crate) type Closing = watch::Receiver<Option<Instant>>;

/// A time at which looking at the clock does no harm.
fn far() -> Instant {
    Instant::now() + Duration::from_hours(1)
}

/// How a stream ended.
enum End {
    /// The connection broke: the same peer may come back.
    Broken(String),
    /// No sign of life.
    Silent,
    /// Membership knows a newer incarnation.
    Superseded(Incarnation),
    /// Membership does not know the node any more.
    Unknown,
    /// The peer is leaving and has answered everything.
    Left,
    /// This link has ended.
    Closed,
}

/// The task's state.
pub(crate) struct LaneTask {
    office: Arc<Office>,
    peer: NodeId,
    lane: Lane,
    queue: mpsc::Receiver<Outgoing>,
    inbox: Vec<Outgoing>,
    ledger: Ledger,
    status: Arc<Status>,
    closing: Closing,
    /// The last sign of life, or when waiting for the first one began.
    heard: Instant,
    /// Incarnation and session that know what was sent.
    bound: Option<(Incarnation, u64)>,
    /// The beat that has to be sent.
    beat: Option<u64>,
    /// Number and time of the last beat.
    beaten: (u64, Instant),
}

impl LaneTask {
    pub(crate) fn new(
        office: Arc<Office>,
        (peer, lane): (NodeId, Lane),
        queue: mpsc::Receiver<Outgoing>,
        status: Arc<Status>,
        closing: Closing,
    ) -> Self {
        let ledger = Ledger::new(peer.clone(), Arc::clone(&office.ids), status.figures());
        let now = Instant::now();
        let inbox = Vec::with_capacity(TAKEN_AT_ONCE);
        let (heard, beaten) = (now, (0, now));
        Self { office, peer, lane, queue, inbox, ledger, status, closing, heard, bound: None, beat: None, beaten }
    }

    /// Runs until the link is closed or the peer is no member any more.
    pub(crate) async fn run(mut self) {
        let (mut attempt, mut pause) = (0_u32, Duration::ZERO);
        while let Some(dialed) = self.connect(pause).await {
            attempt = attempt.saturating_add(1);
            pause = self.office.settings.backoff.pause(attempt);
            match dialed {
                Dialed::Up(up) => {
                    let begun = Instant::now();
                    self.bind(&up);
                    let end = self.carry(up.pipe).await;
                    if !self.after(end) {
                        break;
                    }
                    // A peer that accepts and breaks off at once does not count as one that is back.
                    if begun.elapsed() > self.office.settings.beat {
                        attempt = 0;
                        pause = self.office.settings.backoff.pause(1);
                    }
                }
                Dialed::Failed(reason) => {
                    tracing::debug!(peer = %self.peer, lane = %self.lane, reason, "no stream to the peer");
                    self.status.explain(reason);
                }
                Dialed::Refused(reason) => {
                    tracing::warn!(peer = %self.peer, lane = %self.lane, reason, "the peer and this node do not fit");
                    self.status.set(LaneState::Refused, reason);
                    self.fail_all();
                    let longest = self.office.settings.refused_pause;
                    pause = longest / 2 + jittered(longest / 2);
                }
                Dialed::Leaving => {
                    self.status.set(LaneState::Leaving, "the peer is shutting down".to_owned());
                    self.fail_all();
                }
                Dialed::Unknown => {
                    self.status.set(LaneState::Down, "no member of the cluster".to_owned());
                    let peer = self.peer.clone();
                    self.ledger.fail_all(|sent| LinkError::Unknown { peer: peer.clone(), sent });
                    break;
                }
            }
        }
        self.end();
    }

    /// Whether to go on after a stream has ended.
    fn after(&mut self, end: End) -> bool {
        let peer = self.peer.clone();
        match end {
            End::Broken(reason) => {
                tracing::debug!(%peer, lane = %self.lane, reason, "the stream to the peer broke");
                self.status.set(LaneState::Connecting, reason);
            }
            End::Silent => {
                let silence = self.heard.elapsed();
                tracing::warn!(%peer, lane = %self.lane, ?silence, "no sign of life: the link is dropped");
                self.status.set(LaneState::Down, format!("no sign of life for {} ms", silence.as_millis()));
                self.fail_all();
            }
            End::Superseded(now) => {
                self.status.set(LaneState::Connecting, format!("superseded by {now}"));
                self.ledger.fail_pending(&LinkError::Restarted { peer, now });
                self.heard = Instant::now();
            }
            End::Unknown => {
                self.ledger.fail_all(|sent| LinkError::Unknown { peer: peer.clone(), sent });
                return false;
            }
            End::Left => self.status.set(LaneState::Leaving, "the peer is shutting down".to_owned()),
            End::Closed => return false,
        }
        true
    }

    /// Fails everything with what the state says.
    fn fail_all(&mut self) {
        let (status, peer) = (Arc::clone(&self.status), self.peer.clone());
        self.ledger.fail_all(|sent| match status.refusal(&peer) {
            // What was sent to a peer that then shuts down may well have been handled.
            Some(LinkError::Leaving(peer)) if sent => {
                LinkError::Down { peer, sent, reason: "it shut down before it answered".to_owned() }
            }
            Some(LinkError::Down { peer, reason, .. }) => LinkError::Down { peer, sent, reason },
            Some(LinkError::Refused { peer, reason }) if sent => LinkError::Down { peer, sent, reason },
            Some(error) => error,
            None => LinkError::Closed { sent },
        });
    }

    /// Dials once after a pause, and meanwhile keeps the queue and the deadlines. None when the link has ended.
    async fn connect(&mut self, pause: Duration) -> Option<Dialed> {
        let dialing = dial(Arc::clone(&self.office), self.peer.clone(), self.lane, pause);
        tokio::pin!(dialing);
        loop {
            if self.is_closed() {
                return None;
            }
            let wake = self.wake(!self.status.is_refusing());
            tokio::select! {
                dialed = &mut dialing => return Some(dialed),
                count = self.queue.recv_many(&mut self.inbox, TAKEN_AT_ONCE) => {
                    if count == 0 {
                        return None;
                    }
                    self.take_in();
                }
                () = sleep_until(wake.unwrap_or_else(far)) => self.look_at_the_clock(),
                changed = self.closing.changed() => if changed.is_err() { return None },
            }
        }
    }

    /// Moves what was queued into the ledger, or says why not.
    fn take_in(&mut self) {
        let refusal = self.status.refusal(&self.peer);
        for outgoing in self.inbox.drain(..) {
            match &refusal {
                Some(error) => outgoing.finish(Err(error.clone())),
                None => self.ledger.wait(outgoing),
            }
        }
    }

    /// When the clock has to be looked at next.
    fn wake(&self, until_down: bool) -> Option<Instant> {
        let down = until_down.then(|| self.heard + self.office.settings.drop_after);
        let end = *self.closing.borrow();
        [self.ledger.alarm(), down, end].into_iter().flatten().min()
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        self.ledger.expire(now);
        let down = now >= self.heard + self.office.settings.drop_after;
        if down && self.status.state() == LaneState::Connecting {
            let reason = self.status.reason().unwrap_or_else(|| "no connection".to_owned());
            tracing::warn!(peer = %self.peer, lane = %self.lane, reason, "the peer is down");
            self.status.set(LaneState::Down, reason);
            self.fail_all();
        }
    }

    /// Whether the link has ended for this lane: it is closing, and nothing waits or its time is over.
    fn is_closed(&self) -> bool {
        let end = *self.closing.borrow();
        end.is_some_and(|end| Instant::now() >= end || (self.ledger.is_empty() && self.queue.is_empty()))
    }

    /// A stream lives: what was sent to somebody else is lost, what was sent to the same one is sent again.
    fn bind(&mut self, up: &dial::Up) {
        let (incarnation, session) = (up.counterpart.sender.incarnation, up.session);
        if self.bound.is_some_and(|bound| bound != (incarnation, session)) {
            self.ledger.fail_pending(&LinkError::Restarted { peer: self.peer.clone(), now: incarnation });
        }
        self.bound = Some((incarnation, session));
        self.ledger.send_again(up.window, up.counterpart.protocol);
        self.heard = Instant::now();
        self.beat = None;
        self.status.up(incarnation);
        let again = self.ledger.to_resend();
        tracing::debug!(peer = %self.peer, lane = %self.lane, %incarnation, again, "a stream to the peer lives");
    }

    /// Carries envelopes and answers until the stream ends.
    async fn carry(&mut self, mut pipe: Pipe) -> End {
        let beat = self.office.settings.beat;
        let mut beats = interval_at(Instant::now() + beat, beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let alarm = sleep_until(far());
        tokio::pin!(alarm);
        loop {
            if self.is_closed() {
                return End::Closed;
            }
            let leaving = self.status.state() == LaneState::Leaving;
            if leaving && self.ledger.is_empty() {
                return End::Left;
            }
            if let Some(wake) = self.wake(false).filter(|wake| *wake != alarm.deadline()) {
                alarm.as_mut().reset(wake);
            }
            let output = self.beat.is_some() || self.ledger.has_output();
            tokio::select! {
                frame = pipe.incoming.next() => match frame {
                    Some(Ok(frame)) => self.hear(frame),
                    Some(Err(reason)) => return End::Broken(reason),
                    None => return End::Broken("the peer ended the stream".to_owned()),
                },
                count = self.queue.recv_many(&mut self.inbox, TAKEN_AT_ONCE) => {
                    if count == 0 {
                        return End::Closed;
                    }
                    self.take_in();
                }
                room = pipe.out.reserve(), if output => match room {
                    Ok(room) => {
                        let mut frame = self.ledger.frame(Instant::now());
                        frame.beat = self.beat.take().unwrap_or_default();
                        room.send(frame);
                    }
                    // What the transport knows of the end may have come from the other direction already.
                    Err(_) => match pipe.incoming.next().now_or_never() {
                        Some(Some(Err(reason))) => return End::Broken(reason),
                        _ => return End::Broken("the stream ended".to_owned()),
                    },
                },
                due = beats.tick() => if let Some(end) = self.on_beat(due) {
                    return end;
                },
                () = &mut alarm => {
                    self.ledger.expire(Instant::now());
                    alarm.as_mut().reset(far());
                }
                changed = self.closing.changed() => if changed.is_err() {
                    return End::Closed;
                },
            }
        }
    }

    fn hear(&mut self, frame: Frame) {
        let now = Instant::now();
        self.heard = now;
        if self.status.state() == LaneState::Suspect {
            self.status.set(LaneState::Up, String::new());
        }
        if frame.beat_back != 0 && frame.beat_back == self.beaten.0 {
            self.status.round_trip(now - self.beaten.1);
        }
        self.ledger.settle(frame.acknowledged, frame.answers, now);
        if frame.leaving && self.status.state() != LaneState::Leaving {
            self.status.set(LaneState::Leaving, "the peer is shutting down".to_owned());
            self.ledger.fail_waiting(&LinkError::Leaving(self.peer.clone()));
        }
    }

    /// Looks after the peer's life, and asks for a sign of it.
    fn on_beat(&mut self, due: Instant) -> Option<End> {
        let now = Instant::now();
        let settings = &self.office.settings;
        // While this process itself stood still, the peer could not be heard: that time does not count against it.
        let late = now.saturating_duration_since(due);
        if late > settings.beat {
            self.heard += late;
        }
        let silence = now.saturating_duration_since(self.heard);
        if silence >= settings.drop_after {
            return Some(End::Silent);
        }
        if silence >= settings.suspect_after && self.status.state() == LaneState::Up {
            tracing::info!(peer = %self.peer, lane = %self.lane, ?silence, "the peer is suspected");
            self.status.set(LaneState::Suspect, "nothing was heard for a while".to_owned());
        }
        match self.office.book.find(&self.peer) {
            None => return Some(End::Unknown),
            Some(place) if self.bound.is_some_and(|(bound, _)| place.incarnation > bound) => {
                return Some(End::Superseded(place.incarnation));
            }
            Some(_) => {}
        }
        self.beaten = (self.beaten.0 + 1, now);
        self.beat = Some(self.beaten.0);
        self.status.show();
        None
    }

    fn end(mut self) {
        self.queue.close();
        // The lane of a node that left ends while this link goes on: another node may have an answer then.
        let (peer, closed) = (self.peer.clone(), self.closing.borrow().is_some());
        let why =
            |sent| if closed { LinkError::Closed { sent } } else { LinkError::Unknown { peer: peer.clone(), sent } };
        while let Ok(outgoing) = self.queue.try_recv() {
            outgoing.finish(Err(why(false)));
        }
        self.ledger.fail_all(why);
        self.status.show();
    }
}

#[cfg(test)]
mod tests;
