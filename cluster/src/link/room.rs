//! The bound on what waits for answers in one lane: every queued envelope holds a place until its receipt is there.
//!
//! Never waits: a full room is an error at once. Used by the sending half.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Capacity;

/// Places for envelopes and their bytes.
#[derive(Debug)]
pub(crate) struct Room {
    most: Capacity,
    envelopes: AtomicUsize,
    bytes: AtomicUsize,
}

impl Room {
    pub(crate) fn new(most: Capacity) -> Arc<Self> {
        Arc::new(Self { most, envelopes: AtomicUsize::new(0), bytes: AtomicUsize::new(0) })
    }

    /// A place for one envelope; none when there is no room.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let held = Held { room: Arc::clone(self), bytes };
        let envelopes = self.envelopes.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Given back by dropping the place.
        (envelopes <= self.most.envelopes && all <= self.most.bytes).then_some(held)
    }

    /// Envelopes and bytes that hold places.
    pub(crate) fn taken(&self) -> Capacity {
        Capacity { envelopes: self.envelopes.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// A place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.envelopes.fetch_sub(1, Ordering::Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_places_come_back() {
        let room = Room::new(Capacity { envelopes: 3, bytes: 100 });
        let first = room.take(60).unwrap();
        assert!(room.take(41).is_none());
        let second = room.take(40).unwrap();
        let third = room.take(0).unwrap();
        assert!(room.take(0).is_none());
        assert_eq!(room.taken(), Capacity { envelopes: 3, bytes: 100 });
        drop((first, second, third));
        assert_eq!(room.taken(), Capacity { envelopes: 0, bytes: 0 });
    }
}
