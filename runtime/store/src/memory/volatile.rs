//! The volatile ports inside one process, by its clock.
//!
//! Shares nothing with other processes: who needs that uses Redis. Used by nodes that are alone, and by tests of those
//! who call the ports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::Name;
use tokio::sync::broadcast;

use crate::check;
use crate::port::{
    Cache, CacheKey, Claim, Claimed, HINTS_WAITING, Hint, HintReceiver, Hints, Holding, Lease, Volatile, VolatileError,
};

/// Most that is cached, in bytes of values; what would come beyond it drives out what ends first.
const CACHE_BYTES: usize = 64 << 20;

/// The volatile ports in memory.
#[derive(Default)]
pub struct MemoryVolatile {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    leases: BTreeMap<Name, (Claim, Instant)>,
    values: BTreeMap<CacheKey, (Bytes, Instant)>,
    /// The values by when they end.
    ends: BTreeSet<(Instant, CacheKey)>,
    /// Bytes of all values.
    cached: usize,
    channels: BTreeMap<Name, broadcast::Sender<Hint>>,
}

impl MemoryVolatile {
    /// Nothing held, nothing cached.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, VolatileError> {
        // A panic while the lock was held can only come from a failed allocation; the maps are still maps.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(VolatileError::Closed) } else { Ok(state) }
    }
}

/// When something ends that lasts from now on. Shorter than a millisecond counts as one, as in Redis.
fn end_of(lasting: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(lasting.max(Duration::from_millis(1))).unwrap_or(now + Duration::from_secs(1 << 32))
}

impl State {
    fn held(&self, name: &Name) -> Option<&(Claim, Instant)> {
        self.leases.get(name).filter(|(_, until)| *until > Instant::now())
    }

    fn has(&self, claim: &Claim) -> bool {
        self.held(&claim.name).is_some_and(|(holder, _)| holder == claim)
    }

    fn forget(&mut self, key: &CacheKey) {
        if let Some((value, until)) = self.values.remove(key) {
            self.cached -= value.len();
            self.ends.remove(&(until, key.clone()));
        }
    }

    /// Makes room for a value that is not larger than everything.
    fn make_room(&mut self, bytes: usize) {
        while self.cached + bytes > CACHE_BYTES {
            let Some((_, first)) = self.ends.first().cloned() else { return };
            self.forget(&first);
        }
    }
}

fn holding((claim, until): &(Claim, Instant)) -> Holding {
    Holding { holder: claim.holder.clone(), left: until.saturating_duration_since(Instant::now()) }
}

#[async_trait]
impl Lease for MemoryVolatile {
    async fn acquire(&self, claim: &Claim, lease: Duration) -> Result<Claimed, VolatileError> {
        let mut state = self.state()?;
        if let Some(other) = state.held(&claim.name).filter(|(holder, _)| holder != claim) {
            return Ok(Claimed::Held(holding(other)));
        }
        state.leases.insert(claim.name.clone(), (claim.clone(), end_of(lease)));
        Ok(Claimed::Mine)
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<bool, VolatileError> {
        let mut state = self.state()?;
        if !state.has(claim) {
            return Ok(false);
        }
        state.leases.insert(claim.name.clone(), (claim.clone(), end_of(lease)));
        Ok(true)
    }

    async fn release(&self, claim: &Claim) -> Result<bool, VolatileError> {
        let mut state = self.state()?;
        Ok(state.has(claim) && state.leases.remove(&claim.name).is_some())
    }

    async fn holder(&self, name: &Name) -> Result<Option<Holding>, VolatileError> {
        Ok(self.state()?.held(name).map(holding))
    }
}

#[async_trait]
impl Cache for MemoryVolatile {
    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>, VolatileError> {
        let mut state = self.state()?;
        let Some((value, until)) = state.values.get(key) else { return Ok(None) };
        if *until > Instant::now() {
            return Ok(Some(value.clone()));
        }
        state.forget(key);
        Ok(None)
    }

    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration) -> Result<(), VolatileError> {
        if value.len() > CACHE_BYTES {
            return Err(VolatileError::Refused(format!("{} bytes are too many to be cached", value.len())));
        }
        let mut state = self.state()?;
        state.forget(key);
        state.make_room(value.len());
        state.cached += value.len();
        let until = end_of(ttl);
        state.ends.insert((until, key.clone()));
        state.values.insert(key.clone(), (value, until));
        Ok(())
    }
}

#[async_trait]
impl Hints for MemoryVolatile {
    async fn publish(&self, channel: &Name, message: Bytes) -> Result<(), VolatileError> {
        check::hint(&message)?;
        if let Some(sender) = self.state()?.channels.get(channel) {
            // Nobody listening is no failure.
            let _ = sender.send(Hint::Message(message));
        }
        Ok(())
    }

    async fn subscribe(&self, channel: &Name) -> Result<HintReceiver, VolatileError> {
        let mut state = self.state()?;
        let sender = state.channels.entry(channel.clone()).or_insert_with(|| broadcast::channel(HINTS_WAITING).0);
        Ok(HintReceiver::new(sender.subscribe()))
    }
}

#[async_trait]
impl Volatile for MemoryVolatile {
    async fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { closed: true, ..State::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::contract;

    #[tokio::test]
    async fn keeps_every_promise_of_the_volatile_ports() {
        for (name, check) in contract::VOLATILE_CHECKS {
            eprintln!("memory: {name}");
            check(Arc::new(MemoryVolatile::new())).await;
        }
    }

    #[tokio::test]
    async fn the_cache_has_a_bound() {
        let volatile = MemoryVolatile::new();
        let key = |number| CacheKey { space: Name::new("big").unwrap(), digest: [number; 32] };
        let large = Bytes::from(vec![7; CACHE_BYTES / 4]);
        for number in 0..9 {
            volatile.put(&key(number), large.clone(), Duration::from_secs(60 + u64::from(number))).await.unwrap();
        }
        assert!(volatile.state().unwrap().cached <= CACHE_BYTES);
        assert_eq!(volatile.get(&key(0)).await.unwrap(), None);
        assert_eq!(volatile.get(&key(8)).await.unwrap(), Some(large));
        let refused = volatile.put(&key(1), vec![0; CACHE_BYTES + 1].into(), Duration::from_secs(1)).await;
        assert!(matches!(refused, Err(VolatileError::Refused(_))), "{refused:?}");
    }
}
