//! Schemas that were asked for before: each is brought once, however many ask at one time.
//!
//! Bounded by count and by bytes of their texts; who was not asked for the longest goes first. Never keeps a failure to
//! reach the source, and an unknown schema only for seconds, since somebody may register it. Used by the decoder.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::compiled::{CompiledSchema, Mistake};
use crate::port::SchemaKey;

/// How long an unknown schema stays unknown.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// Bytes that an entry takes beside its texts, roughly.
const OVERHEAD: usize = 256;

/// What is known of a schema.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// It can be read by.
    Schema(Arc<CompiledSchema>),
    /// It never can.
    Broken(Mistake),
    /// Nobody had registered it at this time.
    Unknown(Mistake, Instant),
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) schemas: usize,
    pub(crate) bytes: usize,
}

type Cell = Arc<OnceCell<Known>>;

/// The schemas.
#[derive(Debug)]
pub(crate) struct Cache {
    bounds: Bounds,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: HashMap<SchemaKey, Entry>,
    bytes: usize,
    /// Counts what was asked.
    asked: u64,
}

#[derive(Debug)]
struct Entry {
    cell: Cell,
    bytes: usize,
    asked: u64,
}

impl Cache {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, shelf: Mutex::default() }
    }

    /// What is known of a schema; brought by `bring`, with the bytes of its texts, where nothing is. Others that ask for
    /// it meanwhile wait for that.
    pub(crate) async fn get<E>(
        &self,
        key: SchemaKey,
        bring: impl AsyncFnOnce() -> Result<(Known, usize), E>,
    ) -> Result<Known, E> {
        let cell = self.cell(key);
        let mut size = None;
        let known = cell
            .get_or_try_init(async || {
                let (known, bytes) = bring().await?;
                size = Some(bytes);
                Ok(known)
            })
            .await?
            .clone();
        if let Some(bytes) = size {
            self.shelve(key, &cell, bytes + OVERHEAD);
        }
        Ok(known)
    }

    fn cell(&self, key: SchemaKey) -> Cell {
        let mut shelf = self.shelf();
        shelf.asked += 1;
        let asked = shelf.asked;
        let stale =
            |cell: &Cell| matches!(cell.get(), Some(Known::Unknown(_, since)) if since.elapsed() >= UNKNOWN_FOR);
        if shelf.entries.get(&key).is_some_and(|entry| stale(&entry.cell)) {
            shelf.remove(key);
        }
        let entry = shelf.entries.entry(key).or_insert_with(|| Entry { cell: Cell::default(), bytes: 0, asked });
        entry.asked = asked;
        let cell = Arc::clone(&entry.cell);
        // What nobody could bring must not stay either.
        shelf.shrink(self.bounds);
        cell
    }

    /// Counts what was brought, and makes room for it.
    fn shelve(&self, key: SchemaKey, cell: &Cell, bytes: usize) {
        let mut shelf = self.shelf();
        let Some(entry) = shelf.entries.get_mut(&key).filter(|entry| Arc::ptr_eq(&entry.cell, cell)) else { return };
        entry.bytes = bytes;
        shelf.bytes += bytes;
        shelf.shrink(self.bounds);
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Whoever panicked with it had not begun to change it.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn remove(&mut self, key: SchemaKey) {
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    fn shrink(&mut self, bounds: Bounds) {
        while self.entries.len() > bounds.schemas || (self.bytes > bounds.bytes && self.entries.len() > 1) {
            let Some((key, _)) = self.entries.iter().min_by_key(|(_, entry)| entry.asked) else { return };
            let key = *key;
            self.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn broken(number: u32) -> Known {
        Known::Broken(Mistake::new("broken_schema", number.to_string()))
    }

    fn cache(schemas: usize, bytes: usize) -> Cache {
        Cache::new(Bounds { schemas, bytes: bytes + schemas * OVERHEAD })
    }

    /// Whether a schema had to be brought.
    async fn brought(cache: &Cache, id: u32, bytes: usize) -> bool {
        let mut brought = false;
        cache
            .get(SchemaKey::Id(id), async || {
                brought = true;
                Ok::<_, ()>((broken(id), bytes))
            })
            .await
            .unwrap();
        brought
    }

    #[tokio::test]
    async fn what_was_not_asked_for_the_longest_goes_first() {
        let cache = cache(3, 1_000);
        for id in 0..3 {
            assert!(brought(&cache, id, 10).await);
        }
        assert!(!brought(&cache, 0, 10).await);
        assert!(brought(&cache, 3, 10).await);
        assert!(!brought(&cache, 0, 10).await && !brought(&cache, 2, 10).await, "only the oldest went");
        assert!(brought(&cache, 1, 10).await);
        assert!(brought(&cache, 4, 985).await, "a large one takes the room of others");
        assert!(!brought(&cache, 4, 985).await && !brought(&cache, 1, 10).await);
        assert!(brought(&cache, 5, 1_000_000).await && !brought(&cache, 5, 0).await, "the newest one stays");
        assert!(brought(&cache, 4, 10).await, "and leaves no room for another one");
    }

    #[tokio::test]
    async fn many_that_ask_at_once_bring_it_once() {
        let (cache, count) = (Arc::new(cache(3, 1_000)), Arc::new(AtomicUsize::new(0)));
        let open = Arc::new(tokio::sync::Notify::new());
        let asking: Vec<_> = (0..20)
            .map(|_| {
                let (cache, count, open) = (Arc::clone(&cache), Arc::clone(&count), Arc::clone(&open));
                tokio::spawn(async move {
                    let bring = async || {
                        count.fetch_add(1, Ordering::Relaxed);
                        open.notified().await;
                        Ok::<_, ()>((broken(1), 1))
                    };
                    cache.get(SchemaKey::Id(1), bring).await.map(|_| ())
                })
            })
            .collect();
        open.notify_one();
        for asked in asking {
            asked.await.unwrap().unwrap();
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn failures_are_not_kept_and_leave_no_room_taken() {
        let cache = cache(2, 1_000);
        for id in 0..100 {
            assert_eq!(cache.get(SchemaKey::Id(id), async || Err("away")).await.err(), Some("away"));
        }
        assert!(cache.shelf().entries.len() <= 2);
        assert!(brought(&cache, 99, 1).await);
    }

    #[tokio::test]
    async fn what_was_unknown_is_asked_for_again_after_a_while() {
        let cache = cache(2, 1_000);
        let unknown = |since: Instant| Known::Unknown(Mistake::new("unknown_schema", ""), since);
        let now = Instant::now();
        cache.get(SchemaKey::Id(1), async || Ok::<_, ()>((unknown(now), 0))).await.unwrap();
        assert!(!brought(&cache, 1, 0).await);
        let Some(before) = now.checked_sub(UNKNOWN_FOR) else { return };
        cache.get(SchemaKey::Id(2), async || Ok::<_, ()>((unknown(before), 0))).await.unwrap();
        assert!(brought(&cache, 2, 0).await);
    }
}
