//! Bounded mailboxes: a permit travels inside every message, so a full mailbox is an error to the sender.
//!
//! ractor's own mailboxes are unbounded; nothing in this crate casts to an actor except through a [`Mailbox`]. Used by
//! every actor; depth, age and restarts are kept in [`Vitals`], which the census lists.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use motet_engine::access::Caller;
use ractor::ActorRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A message in a mailbox: who sent it, and the place that it takes up.
#[derive(Debug)]
pub struct Letter<M> {
    /// Who asks, for which namespace, as part of which trace.
    pub caller: Caller,
    /// The message.
    pub message: M,
    enqueued: Instant,
    _place: OwnedSemaphorePermit,
}

/// Why a message did not get into a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// Every place is taken.
    #[error("the mailbox is full")]
    Full,
    /// The actor has ended.
    #[error("the actor has ended")]
    Gone,
}

/// How one actor does. Survives restarts of the actor.
#[derive(Debug)]
pub struct Vitals {
    born: Instant,
    capacity: usize,
    places: Arc<Semaphore>,
    handled: AtomicU64,
    restarts: AtomicU64,
    /// When the message taken out last was put in, in microseconds after `born`.
    front: AtomicU64,
}

impl Vitals {
    /// The vitals of an actor whose mailbox has this many places.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            capacity,
            places: Arc::new(Semaphore::new(capacity)),
            handled: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            front: AtomicU64::new(0),
        })
    }

    /// Messages that wait.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.capacity.saturating_sub(self.places.available_permits()) as u64
    }

    /// Places in the mailbox.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// Messages handled since the first start.
    #[must_use]
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Restarts since the first start.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// At most how long the oldest waiting message has waited; zero when none waits.
    #[must_use]
    pub fn age(&self) -> Duration {
        if self.depth() == 0 {
            return Duration::ZERO;
        }
        self.born.elapsed().saturating_sub(Duration::from_micros(self.front.load(Ordering::Relaxed)))
    }

    /// Counts a restart.
    pub fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }
}

/// The one way into an actor's mailbox. Cheap to clone.
#[derive(Debug)]
pub struct Mailbox<M: ractor::Message> {
    actor: ActorRef<Letter<M>>,
    vitals: Arc<Vitals>,
}

impl<M: ractor::Message> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), vitals: Arc::clone(&self.vitals) }
    }
}

impl<M: ractor::Message> Mailbox<M> {
    /// A mailbox before an actor, with as many places as the vitals say.
    #[must_use]
    pub fn new(actor: ActorRef<Letter<M>>, vitals: Arc<Vitals>) -> Self {
        Self { actor, vitals }
    }

    /// The actor behind the mailbox.
    #[must_use]
    pub fn actor(&self) -> &ActorRef<Letter<M>> {
        &self.actor
    }

    /// Whether the actor has ended or is ending.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.actor.get_status(), ractor::ActorStatus::Stopping | ractor::ActorStatus::Stopped)
    }

    /// Puts a message in, or says at once why not.
    ///
    /// # Errors
    /// When every place is taken or the actor has ended.
    pub fn try_send(&self, caller: &Caller, message: M) -> Result<(), SendError> {
        let place = Arc::clone(&self.vitals.places).try_acquire_owned().map_err(|_| SendError::Full)?;
        self.put(caller.clone(), message, place)
    }

    /// Puts a message in, waiting at most `patience` for a place.
    ///
    /// # Errors
    /// When no place became free in time or the actor has ended.
    pub async fn send(&self, caller: &Caller, message: M, patience: Duration) -> Result<(), SendError> {
        let place = match Arc::clone(&self.vitals.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => tokio::time::timeout(patience, Arc::clone(&self.vitals.places).acquire_owned())
                .await
                .map_err(|_| SendError::Full)?
                .map_err(|_| SendError::Gone)?,
        };
        self.put(caller.clone(), message, place)
    }

    fn put(&self, caller: Caller, message: M, place: OwnedSemaphorePermit) -> Result<(), SendError> {
        let letter = Letter { caller, message, enqueued: Instant::now(), _place: place };
        self.actor.cast(letter).map_err(|_| SendError::Gone)
    }
}

impl<M> Letter<M> {
    /// Takes the message out for handling, frees its place and keeps the books.
    pub fn open(self, vitals: &Vitals) -> (Caller, M) {
        let waited =
            u64::try_from(self.enqueued.saturating_duration_since(vitals.born).as_micros()).unwrap_or(u64::MAX);
        vitals.front.store(waited, Ordering::Relaxed);
        vitals.handled.fetch_add(1, Ordering::Relaxed);
        (self.caller, self.message)
    }
}
