//! What a source knows of each partition that the group gave it, and what its handle wishes.
//!
//! Shared between the poll thread, the handle and the questions; no lock here is held while librdkafka is called. Used
//! by the source.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use tokio::sync::watch;

use super::mailbox::Mailbox;
use super::trouble::Troubles;
use crate::port::{CreditLimit, Ledger, Place, PlaceLag, SourceHandle, SourceSettings};

/// One partition, for as long as the group leaves it here.
#[derive(Debug)]
pub(super) struct Seat {
    /// Tells this stay from every other one of the same partition.
    pub(super) ledger: Arc<Ledger>,
    /// Where reading goes on; none when it was not begun.
    pub(super) next: Option<i64>,
    /// A position from before the beginning, which librdkafka may still tell for a moment.
    pub(super) stale: Option<i64>,
    /// Whether the handle wants a rest.
    pub(super) paused: bool,
    /// Whether librdkafka was told to rest.
    pub(super) rests: bool,
    /// The offset after the newest record, as last seen.
    pub(super) high: Option<i64>,
    /// What told the topic from others when reading began.
    pub(super) origin: Option<String>,
}

/// What is to become of a partition; a later wish replaces an earlier one of its kind.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) reading: Option<Reading>,
    pub(super) paused: Option<bool>,
    pub(super) commit: Option<i64>,
}

/// Whether to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// From this offset on.
    From(i64),
    /// Not at all.
    Halted,
}

/// What the threads of one source share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) mailbox: Mailbox,
    pub(super) troubles: Troubles,
    seats: Mutex<HashMap<Place, Seat>>,
    wishes: Mutex<BTreeMap<Place, Wish>>,
    credit: CreditLimit,
    /// The poll thread, which sleeps when nothing comes.
    poller: OnceLock<Thread>,
    /// True when the source is to end.
    closing: AtomicBool,
    /// True when it has ended.
    pub(super) ended: watch::Sender<bool>,
    /// True when librdkafka called back; then an empty answer to a poll does not mean that nothing is left.
    called: AtomicBool,
}

impl Shared {
    pub(super) fn new(settings: &SourceSettings) -> Arc<Self> {
        Arc::new(Self {
            mailbox: Mailbox::new(settings.batch),
            troubles: Troubles::default(),
            seats: Mutex::default(),
            wishes: Mutex::default(),
            credit: settings.credit,
            poller: OnceLock::new(),
            closing: AtomicBool::new(false),
            ended: watch::channel(false).0,
            called: AtomicBool::new(false),
        })
    }

    pub(super) fn seats(&self) -> MutexGuard<'_, HashMap<Place, Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all wishes.
    pub(super) fn wishes(&self) -> BTreeMap<Place, Wish> {
        std::mem::take(&mut *self.wishes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the wish for a partition that is here, and wakes the poll thread.
    pub(super) fn wish(&self, place: &Place, change: impl FnOnce(&mut Wish)) {
        if !self.seats().contains_key(place) {
            return;
        }
        change(self.wishes.lock().unwrap_or_else(PoisonError::into_inner).entry(place.clone()).or_default());
        self.wake();
    }

    /// Drops the wishes for a partition that is not here any more.
    pub(super) fn drop_wish(&self, place: &Place) {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
    }

    /// A seat that nothing was read of yet.
    pub(super) fn new_seat(&self) -> Seat {
        let poller = self.poller.get().cloned();
        let wake = move || {
            if let Some(thread) = &poller {
                thread.unpark();
            }
        };
        let ledger = Ledger::new(self.credit, wake);
        Seat { ledger, next: None, stale: None, paused: false, rests: false, high: None, origin: None }
    }

    /// The thread that calls is the one to wake.
    pub(super) fn begin_polling(&self) {
        let _ = self.poller.set(std::thread::current());
    }

    /// Wakes the poll thread.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.poller.get() {
            thread.unpark();
        }
    }

    /// Asks the source to end.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn note_call(&self) {
        self.called.store(true, Ordering::Relaxed);
    }

    pub(super) fn was_called(&self) -> bool {
        self.called.swap(false, Ordering::Relaxed)
    }
}

/// Steers a source from anywhere.
pub(super) struct KafkaHandle(pub(super) Arc<Shared>);

impl SourceHandle for KafkaHandle {
    fn begin(&self, place: &Place, offset: i64) {
        self.0.wish(place, |wish| wish.reading = Some(Reading::From(offset.max(0))));
    }

    fn halt(&self, place: &Place) {
        self.0.wish(place, |wish| wish.reading = Some(Reading::Halted));
    }

    fn pause(&self, place: &Place, paused: bool) {
        self.0.wish(place, |wish| wish.paused = Some(paused));
    }

    fn commit(&self, place: &Place, next: i64) {
        self.0.wish(place, |wish| wish.commit = Some(next));
    }

    fn lag(&self) -> Vec<PlaceLag> {
        let seats = self.0.seats();
        let lag = |(place, seat): (&Place, &Seat)| PlaceLag {
            place: place.clone(),
            position: seat.next,
            high: seat.high.map(|high| high.max(seat.next.unwrap_or(0))),
            paused: seat.paused || seat.rests,
            credit_used: seat.ledger.used(),
        };
        let mut all: Vec<PlaceLag> = seats.iter().map(lag).collect();
        all.sort_by(|one, other| one.place.cmp(&other.place));
        all
    }
}
