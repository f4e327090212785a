//! Where the poll thread puts events and the source's owner takes them.
//!
//! Never holds more than the credit of the partitions allows, besides events of the group. Used by the source.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::BrokerError;
use crate::port::{Batch, BatchLimit, Place, SourceEvent};

/// Troubles that wait at most; later ones are dropped.
const TROUBLES: usize = 16;

/// Events in order.
#[derive(Debug)]
pub(super) struct Mailbox {
    events: Mutex<Events>,
    arrived: Notify,
    limit: BatchLimit,
}

#[derive(Debug, Default)]
struct Events {
    line: VecDeque<SourceEvent>,
    /// Whether the end was put in.
    ended: bool,
}

impl Mailbox {
    /// An empty one whose batches grow up to `limit`.
    pub(super) fn new(limit: BatchLimit) -> Self {
        let limit = BatchLimit { records: limit.records.max(1), bytes: limit.bytes.max(1) };
        Self { events: Mutex::default(), arrived: Notify::new(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How large batches become.
    pub(super) fn limit(&self) -> BatchLimit {
        self.limit
    }

    /// Puts an event in, unless the end was.
    pub(super) fn push(&self, event: SourceEvent) {
        let mut events = self.lock();
        let troubles = || events.line.iter().filter(|event| matches!(event, SourceEvent::Trouble(_))).count();
        if events.ended || (matches!(event, SourceEvent::Trouble(_)) && troubles() >= TROUBLES) {
            return;
        }
        events.ended = matches!(event, SourceEvent::Ended(_));
        let event = match event {
            SourceEvent::Records(batch) => match events.line.back_mut() {
                Some(SourceEvent::Records(last)) => match last.join(batch, self.limit) {
                    Some(batch) => SourceEvent::Records(batch),
                    None => return,
                },
                _ => SourceEvent::Records(batch),
            },
            other => other,
        };
        events.line.push_back(event);
        drop(events);
        self.arrived.notify_one();
    }

    /// Drops the batches of partitions that are read no more; their credit comes back.
    pub(super) fn forget(&self, places: &[Place]) {
        let forgotten =
            |event: &SourceEvent| matches!(event, SourceEvent::Records(Batch { place, .. }) if places.contains(place));
        let mut events = self.lock();
        let (dropped, kept): (VecDeque<_>, VecDeque<_>) = events.line.drain(..).partition(forgotten);
        events.line = kept;
        // Credit that comes back wakes the poll thread, which may want this lock.
        drop(events);
        drop(dropped);
    }

    /// The next event; after the end only that it is closed.
    pub(super) async fn next(&self) -> SourceEvent {
        loop {
            {
                let mut events = self.lock();
                if let Some(event) = events.line.pop_front() {
                    return event;
                }
                if events.ended {
                    return SourceEvent::Ended(BrokerError::Closed);
                }
            }
            self.arrived.notified().await;
        }
    }
}
