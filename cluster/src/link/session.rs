//! The receiving half of a lane: one task that takes envelopes, runs their handlers, and answers.
//!
//! It outlives the streams of its sender: a handler goes on when the connection breaks, and its answer is remembered
//! for the envelope that comes again. Handlers run inside this task, a bounded number at a time; what waits for one is
//! bounded by the window that the sender was told. Spawned by [`registry`], one for each incarnation and lane.

pub(crate) mod handling;
pub(crate) mod memory;
pub(crate) mod registry;

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use motet_engine::failure::{Failure, FailureClass};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::handling::{Handled, begin, ended};
use self::memory::{Memory, Seen};
use self::registry::{Books, Slot};
use super::carrier::Pipe;
use super::lane::Closing;
use super::{Handler, LinkSettings};
use crate::envelope::{self, Answer, Envelope, MAX_PAYLOAD_BYTES, Sender};
use crate::wire::{self, Frame};

/// Payload bytes after which a frame takes no further answer.
const FRAME_BYTES: usize = 64 << 10;

/// Answers and acknowledgements that a frame takes, each.
pub(crate) const FRAME_ANSWERS: usize = 512;

/// Unsent bytes of answers beyond which no handler goes on: a sender that does not read must not fill this node.
const UNSENT_BYTES: usize = 8 << 20;

/// The task's state.
pub(crate) struct Session {
    settings: Arc<LinkSettings>,
    handler: Arc<dyn Handler>,
    sender: Arc<Sender>,
    lane: envelope::Lane,
    streams: mpsc::Receiver<Pipe>,
    closing: Closing,
    books: Arc<Books>,
    memory: Memory,
    queue: VecDeque<Envelope>,
    queued_bytes: usize,
    running: FuturesUnordered<Handled>,
    acknowledged: VecDeque<u64>,
    answers: VecDeque<wire::Answer>,
    unsent_bytes: usize,
    beat_back: u64,
    /// The other side has to be told that this node is leaving.
    farewell: bool,
    heard: Instant,
}

/// What one turn of the loop found.
enum Turn {
    On,
    StreamEnded,
    Replaced(Pipe),
}

impl Session {
    pub(crate) fn new(slot: Slot, streams: mpsc::Receiver<Pipe>, books: Arc<Books>) -> Self {
        let Slot { settings, handler, sender, lane, closing } = slot;
        let memory = Memory::new(settings.remembered);
        Self {
            settings,
            handler,
            sender,
            lane,
            streams,
            closing,
            books,
            memory,
            queue: VecDeque::new(),
            queued_bytes: 0,
            running: FuturesUnordered::new(),
            acknowledged: VecDeque::new(),
            answers: VecDeque::new(),
            unsent_bytes: 0,
            beat_back: 0,
            farewell: false,
            heard: Instant::now(),
        }
    }

    /// Runs until the sender was away for long enough, was replaced, or the link has ended.
    pub(crate) async fn run(mut self) {
        let mut pipe: Option<Pipe> = None;
        let mut beats = interval(self.settings.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = false;
        loop {
            let closing = *self.closing.borrow();
            if closing.is_some() && !told {
                (self.farewell, told) = (true, true);
            }
            let idle = self.running.is_empty() && self.queue.is_empty();
            let over = closing.is_some_and(|end| Instant::now() >= end || (idle && pipe.is_none()));
            if over || (idle && pipe.is_none() && self.is_forgotten()) {
                break;
            }
            if self.streams.is_closed() {
                // A newer incarnation has taken its place.
                pipe = None;
            }
            self.start();
            self.show();
            let turn = match &mut pipe {
                Some(pipe) => self.turn(pipe, &mut beats).await,
                None => self.turn_alone(&mut beats).await,
            };
            match turn {
                Turn::On => {}
                Turn::StreamEnded => pipe = None,
                Turn::Replaced(newer) => {
                    // What was not sent on the old stream is remembered, and asked for again.
                    self.forget_unsent();
                    self.heard = Instant::now();
                    self.farewell = closing.is_some();
                    pipe = Some(newer);
                }
            }
            if pipe.is_none() {
                self.forget_unsent();
            }
        }
        self.books.closed();
    }

    /// Whether the sender will not come back to this session.
    fn is_forgotten(&self) -> bool {
        self.streams.is_closed() || self.heard.elapsed() >= self.settings.remember
    }

    async fn turn(&mut self, pipe: &mut Pipe, beats: &mut tokio::time::Interval) -> Turn {
        let output = self.has_output();
        let may_answer = self.unsent_bytes < UNSENT_BYTES && !self.running.is_empty();
        tokio::select! {
            frame = pipe.incoming.next() => match frame {
                Some(Ok(frame)) => self.take(frame),
                Some(Err(reason)) => {
                    tracing::debug!(peer = %self.sender.node, lane = %self.lane, reason, "a peer's stream broke");
                    return Turn::StreamEnded;
                }
                None => return Turn::StreamEnded,
            },
            Some((id, one_way, answer)) = self.running.next(), if may_answer => self.finish(id, one_way, answer),
            room = pipe.out.reserve(), if output => match room {
                Ok(room) => room.send(self.frame()),
                Err(_) => return Turn::StreamEnded,
            },
            Some(newer) = self.streams.recv() => return Turn::Replaced(newer),
            due = beats.tick() => {
                self.books.publish();
                // While this process itself stood still, the peer could not be heard.
                let late = due.elapsed();
                if late > self.settings.beat {
                    self.heard += late;
                }
                if self.heard.elapsed() >= self.settings.drop_after {
                    tracing::info!(peer = %self.sender.node, lane = %self.lane, "a silent peer's stream is dropped");
                    return Turn::StreamEnded;
                }
            }
            _ = self.closing.changed() => {}
        }
        Turn::On
    }

    /// Without a stream handlers go on; nothing is sent.
    async fn turn_alone(&mut self, beats: &mut tokio::time::Interval) -> Turn {
        let running = !self.running.is_empty();
        tokio::select! {
            Some((id, one_way, answer)) = self.running.next(), if running => self.finish(id, one_way, answer),
            Some(newer) = self.streams.recv() => return Turn::Replaced(newer),
            _ = beats.tick() => {}
            _ = self.closing.changed() => {}
        }
        Turn::On
    }

    fn take(&mut self, frame: Frame) {
        let now = Instant::now();
        self.heard = now;
        if frame.beat != 0 {
            self.beat_back = frame.beat;
        }
        self.memory.settle(frame.settled_below);
        for envelope in frame.envelopes {
            self.admit(envelope, now);
        }
    }

    /// Takes an envelope, or answers it at once: one that came before, cannot be read, or finds no room.
    fn admit(&mut self, found: wire::Envelope, now: Instant) {
        let (id, one_way) = (found.id, found.one_way);
        match self.memory.look(id) {
            Seen::Never => {}
            Seen::Running => return,
            Seen::Answered(answer) => {
                self.books.repeated();
                return self.reply(id, one_way, &answer);
            }
            Seen::Forgotten => {
                let failure = Failure::new(FailureClass::Internal, "the answer is no longer remembered");
                return self.reply(id, one_way, &Answer::Failed(failure));
            }
        }
        let bytes = found.payload.len();
        let refusal = self.refusal(&found);
        match refusal.map_or_else(|| wire::received(found, &self.sender, self.lane, now), Err) {
            Err(why) => {
                self.books.undecodable();
                self.memory.begin(id);
                self.finish(id, one_way, Answer::Undecodable(why));
            }
            Ok(_) if self.is_full(bytes) => {
                // Not remembered: nothing was done, so it may come again.
                self.books.overloaded();
                self.reply(id, one_way, &Answer::Overloaded { retry_after: self.settings.beat });
            }
            Ok(envelope) => {
                self.memory.begin(id);
                self.queued_bytes += bytes;
                self.queue.push_back(envelope);
            }
        }
    }

    /// Why an envelope is not understood.
    fn refusal(&self, found: &wire::Envelope) -> Option<String> {
        if !self.settings.protocols.contains(&found.protocol) {
            let (oldest, newest) = (self.settings.protocols.start(), self.settings.protocols.end());
            return Some(format!("protocol {} is not spoken here, only {oldest} to {newest}", found.protocol));
        }
        if found.payload.len() > MAX_PAYLOAD_BYTES {
            return Some(format!("{} bytes are more than the {MAX_PAYLOAD_BYTES} allowed", found.payload.len()));
        }
        (!self.handler.reads(envelope::Kind(found.kind), found.version))
            .then(|| format!("version {} of kind {} is not understood here", found.version, found.kind))
    }

    /// Whether the sender has sent more than the window that it was told.
    fn is_full(&self, bytes: usize) -> bool {
        let window = self.settings.window;
        self.queue.len() >= window.envelopes
            || (!self.queue.is_empty() && self.queued_bytes + bytes > window.bytes + MAX_PAYLOAD_BYTES)
    }

    /// Begins as many handlers as may run.
    fn start(&mut self) {
        while self.running.len() < self.settings.concurrency && self.unsent_bytes < UNSENT_BYTES {
            let Some(envelope) = self.queue.pop_front() else { return };
            self.queued_bytes -= envelope.parcel.payload.len();
            let (id, one_way) = (envelope.id.0, envelope.one_way);
            if envelope.deadline <= Instant::now() {
                self.finish(id, one_way, Answer::Expired);
                continue;
            }
            match begin(&self.handler, envelope) {
                Ok(answer) => self.finish(id, one_way, answer),
                Err(handled) => self.running.push(handled),
            }
        }
    }

    /// A handler has ended: its answer is remembered and sent.
    fn finish(&mut self, id: u64, one_way: bool, answer: Answer) {
        let answer = ended(answer, one_way);
        self.reply(id, one_way, &answer);
        self.memory.end(id, answer);
    }

    fn reply(&mut self, id: u64, one_way: bool, answer: &Answer) {
        match answer {
            Answer::Ack(payload) if one_way || payload.is_empty() => self.acknowledged.push_back(id),
            answer => {
                self.unsent_bytes += answer.bytes();
                self.answers.push_back(wire::answer(id, answer));
            }
        }
    }

    fn has_output(&self) -> bool {
        self.farewell || self.beat_back != 0 || !self.acknowledged.is_empty() || !self.answers.is_empty()
    }

    fn frame(&mut self) -> Frame {
        let mut frame = Frame {
            beat_back: std::mem::take(&mut self.beat_back),
            leaving: std::mem::take(&mut self.farewell),
            ..Frame::default()
        };
        let some = self.acknowledged.len().min(FRAME_ANSWERS);
        frame.acknowledged = self.acknowledged.drain(..some).collect();
        let mut bytes = 0;
        while bytes < FRAME_BYTES && frame.answers.len() < FRAME_ANSWERS {
            let Some(answer) = self.answers.pop_front() else { break };
            let size = wire::answer_bytes(&answer);
            self.unsent_bytes -= size;
            bytes += size;
            frame.answers.push(answer);
        }
        frame
    }

    fn forget_unsent(&mut self) {
        self.acknowledged.clear();
        self.answers.clear();
        (self.unsent_bytes, self.beat_back, self.farewell) = (0, 0, false);
    }

    fn show(&self) {
        self.books.show((self.queue.len(), self.queued_bytes), self.running.len(), self.memory.held());
    }
}
