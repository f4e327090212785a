//! Which models are loaded: shares of the node's memory, who waits for one, and who has to go.
//!
//! Counts what models say they take, and never lets shares go beyond the bound: a model that waits is loaded when others
//! have gone. It chooses; ending a model is for `models`. Used by `models`.

mod history;
mod value;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace};
use tokio::sync::{Notify, Semaphore};

pub(crate) use history::{History, Interest};
use value::value;

/// How often somebody who waits looks again although nothing was told to have changed.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A model that waits may end others that are about to be called after as long as it takes to load, and ones that are
/// being called after twice that, within these bounds.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);
const MOST_PATIENCE: Duration = Duration::from_secs(1);

/// Who has waited as long goes first, whatever others are called for.
const STARVED: Duration = Duration::from_secs(5);

/// A model of a namespace.
pub(crate) type ModelKey = (Namespace, Name);

/// The memory of a node for models.
#[derive(Debug)]
pub(crate) struct Residency {
    /// In bytes; 0 for no bound.
    bound: u64,
    shelf: Mutex<Shelf>,
    changed: Arc<Notify>,
    /// Whether a model has ever had to wait for memory here.
    tight: AtomicBool,
}

#[derive(Debug, Default)]
struct Shelf {
    taken: u64,
    shares: u64,
    tenants: HashMap<u64, Tenant>,
    turns: u64,
    waiting: HashMap<u64, Turn>,
}

/// Who has a share.
#[derive(Debug)]
struct Tenant {
    key: ModelKey,
    bytes: u64,
    history: Arc<History>,
    /// Its places for calls, and how many there are: with all of them free nobody calls it.
    places: Arc<Semaphore>,
    queue: usize,
    /// Whether it is loaded: before that it is not to be ended.
    settled: bool,
    leaving: bool,
}

#[derive(Debug)]
struct Turn {
    history: Arc<History>,
    since: Instant,
}

/// A loaded model that is to be ended; its places tell it from a later one of its name.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) key: ModelKey,
    pub(crate) places: Arc<Semaphore>,
}

/// What wants a share.
pub(crate) struct Asking<'a> {
    pub(crate) key: &'a ModelKey,
    pub(crate) bytes: u64,
    pub(crate) history: &'a Arc<History>,
    pub(crate) places: &'a Arc<Semaphore>,
    pub(crate) queue: usize,
}

/// A part of the memory; given back when dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    residency: Arc<Residency>,
    number: u64,
}

/// Why there is no share.
#[derive(Debug)]
pub(crate) enum NoShare {
    /// There can never be one.
    TooLarge(Failure),
    /// Others have the memory, and nobody calls for the model.
    NotWanted,
}

/// A place in the queue for memory; left when dropped.
struct Place<'a> {
    residency: &'a Residency,
    number: u64,
    since: Instant,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.residency.shelf().waiting.remove(&self.number);
        self.residency.changed.notify_waiters();
    }
}

impl Residency {
    /// Memory of so many bytes; 0 for no bound.
    pub(crate) fn new(bound: u64) -> Arc<Self> {
        let (shelf, tight) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { bound, shelf, changed: Arc::default(), tight })
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether models have had to wait for memory, so that it is worth knowing what runs are about to call.
    pub(crate) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// Bytes of all shares.
    #[cfg(test)]
    fn taken(&self) -> u64 {
        self.shelf().taken
    }

    /// Waits for a share, and has others ended as `end` does that; without anybody who wants the model it does not wait.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        asking: Asking<'_>,
        end: &(dyn Fn(&Leaving) + Send + Sync),
    ) -> Result<MemoryShare, NoShare> {
        if self.bound > 0 && asking.bytes > self.bound {
            let (name, bytes, bound) = (&asking.key.1, asking.bytes, self.bound);
            return Err(NoShare::TooLarge(Failure::new(
                FailureClass::Unavailable,
                format!(
                    "model '{name}' takes {bytes} bytes, more than the {bound} that models.memory_bytes allows for all of \
                     them; raise it or use fewer replicas"
                ),
            )));
        }
        let place = self.enter(&asking);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let leaving = match self.look(&place, &asking) {
                Look::Share(share) => return Ok(share),
                Look::Nothing => vec![],
                Look::End(chosen) => chosen,
            };
            if !asking.history.is_wanted() {
                return Err(NoShare::NotWanted);
            }
            self.tight.store(true, Ordering::Relaxed);
            for one in &leaving {
                metrics::counter!("motet_model_evictions_total", "model" => one.key.1.to_string()).increment(1);
                end(one);
            }
            // Whoever is told that something has changed looks at once; the rest is a matter of patience.
            let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
        }
    }

    fn enter(&self, asking: &Asking<'_>) -> Place<'_> {
        let since = Instant::now();
        let mut shelf = self.shelf();
        shelf.turns += 1;
        let number = shelf.turns;
        shelf.waiting.insert(number, Turn { history: Arc::clone(asking.history), since });
        Place { residency: self, number, since }
    }

    fn look(self: &Arc<Self>, place: &Place<'_>, asking: &Asking<'_>) -> Look {
        let now = Instant::now();
        let mut shelf = self.shelf();
        if self.bound == 0 || shelf.taken.saturating_add(asking.bytes) <= self.bound {
            // Nobody takes the room that one before it waits for.
            if self.bound == 0 || !shelf.is_anybody_before(place.number, now) {
                return Look::Share(self.grant(&mut shelf, asking));
            }
            return Look::Nothing;
        }
        if !asking.history.is_wanted() || shelf.is_anybody_before(place.number, now) {
            return Look::Nothing;
        }
        let missing = shelf.taken.saturating_add(asking.bytes) - self.bound;
        let chosen = shelf.choose(missing, place.since, asking.history.load_time(), now);
        if chosen.is_empty() { Look::Nothing } else { Look::End(chosen) }
    }

    fn grant(self: &Arc<Self>, shelf: &mut Shelf, asking: &Asking<'_>) -> MemoryShare {
        shelf.taken = shelf.taken.saturating_add(asking.bytes);
        shelf.shares += 1;
        let number = shelf.shares;
        let tenant = Tenant {
            key: asking.key.clone(),
            bytes: asking.bytes,
            history: Arc::clone(asking.history),
            places: Arc::clone(asking.places),
            queue: asking.queue,
            settled: false,
            leaving: false,
        };
        shelf.tenants.insert(number, tenant);
        tell(shelf.taken);
        MemoryShare { residency: Arc::clone(self), number }
    }
}

/// What there is to do for one who waits.
enum Look {
    Share(MemoryShare),
    /// These are to be ended.
    End(Vec<Leaving>),
    Nothing,
}

impl Shelf {
    fn is_anybody_before(&self, number: u64, now: Instant) -> bool {
        let Some(own) = self.waiting.get(&number).map(|turn| turn.rank(number, now)) else { return true };
        self.waiting.iter().any(|(other, turn)| turn.history.is_wanted() && turn.rank(*other, now) > own)
    }

    /// Marks models that are worth least as leaving, as many as free so many bytes with those that leave already.
    fn choose(&mut self, missing: u64, since: Instant, load_time: Duration, now: Instant) -> Vec<Leaving> {
        let leaving: u64 = self.tenants.values().filter(|tenant| tenant.leaving).map(|tenant| tenant.bytes).sum();
        let Some(mut missing) = missing.checked_sub(leaving).filter(|missing| *missing > 0) else { return vec![] };
        let patience = load_time.clamp(LEAST_PATIENCE, MOST_PATIENCE);
        let waited = now.saturating_duration_since(since);
        let may_go = |tenant: &&mut Tenant| {
            let idle = tenant.places.available_permits() >= tenant.queue;
            let spared = if !idle {
                patience * 2
            } else if tenant.history.is_foreseen() {
                patience
            } else {
                Duration::ZERO
            };
            tenant.settled && !tenant.leaving && waited >= spared
        };
        let mut those: Vec<&mut Tenant> = self.tenants.values_mut().filter(may_go).collect();
        if those.iter().map(|tenant| tenant.bytes).sum::<u64>() < missing {
            return vec![];
        }
        let mut valued: Vec<(f64, &mut Tenant)> =
            those.drain(..).map(|tenant| (value(&tenant.history, tenant.bytes, now), tenant)).collect();
        valued.sort_by(|(a, one), (b, other)| a.total_cmp(b).then_with(|| one.key.cmp(&other.key)));
        let mut chosen = vec![];
        for (_, tenant) in valued {
            if missing == 0 {
                break;
            }
            if tenant.bytes > 0 {
                tenant.leaving = true;
                missing = missing.saturating_sub(tenant.bytes);
                chosen.push(Leaving { key: tenant.key.clone(), places: Arc::clone(&tenant.places) });
            }
        }
        chosen
    }
}

impl Turn {
    /// Who goes first: whoever has starved, else the one with the most calls, else the oldest.
    fn rank(&self, number: u64, now: Instant) -> (bool, u64, std::cmp::Reverse<u64>) {
        let starved = self.history.is_wanted() && now.saturating_duration_since(self.since) >= STARVED;
        (starved, if starved { 0 } else { self.history.demand() }, std::cmp::Reverse(number))
    }
}

impl MemoryShare {
    /// Tells that the model is loaded; from now on it may be ended for others.
    pub(crate) fn settle(&self) {
        if let Some(tenant) = self.residency.shelf().tenants.get_mut(&self.number) {
            tenant.settled = true;
        }
        self.residency.changed.notify_waiters();
    }

    /// Takes what the model really takes. False when that is more and does not fit: the share stays as it was.
    #[must_use]
    pub(crate) fn resize(&self, bytes: u64) -> bool {
        let mut shelf = self.residency.shelf();
        let (bound, taken) = (self.residency.bound, shelf.taken);
        let Some(tenant) = shelf.tenants.get_mut(&self.number) else { return true };
        let sum = taken.saturating_sub(tenant.bytes).saturating_add(bytes);
        if bound > 0 && sum > bound {
            return false;
        }
        tenant.bytes = bytes;
        shelf.taken = sum;
        tell(sum);
        drop(shelf);
        self.residency.changed.notify_waiters();
        true
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        let mut shelf = self.residency.shelf();
        if let Some(tenant) = shelf.tenants.remove(&self.number) {
            shelf.taken = shelf.taken.saturating_sub(tenant.bytes);
            tell(shelf.taken);
        }
        drop(shelf);
        self.residency.changed.notify_waiters();
    }
}

fn tell(taken: u64) {
    metrics::gauge!("motet_model_memory_bytes").set(taken as f64);
}

#[cfg(test)]
mod tests;
