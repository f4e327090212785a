//! What nodes share and may lose, in a Redis or Valkey server.
//!
//! Never the truth of anything, and never in the way: every wait has a bound, and while the server does not answer,
//! calls fail at once and are not sent. Opening does not wait for the server; it is connected to in the background and
//! again whenever it was away. Used by servers that are told where one is.

mod breaker;
mod cache;
mod connect;
mod hints;
mod lease;
mod link;
mod settings;
#[cfg(test)]
mod tests;
mod url;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fred::interfaces::{KeysInterface, PubsubInterface};
use fred::types::{Expiration, Value};
use motet_engine::id::Name;

use crate::check;
use crate::port::{Cache, CacheKey, Claim, Claimed, HintReceiver, Hints, Holding, Lease, Volatile, VolatileError};
use hints::Listening;
use lease::Leases;
use link::Link;
pub use settings::RedisSettings;

/// Most connections for the cache.
const CACHE_CONNECTIONS: usize = 16;

/// Longest time that a value is kept: some years.
const LONGEST: Duration = Duration::from_secs(1 << 28);

/// The volatile ports in Redis.
pub struct RedisVolatile {
    settings: RedisSettings,
    /// For leases and for publishing: large values of the cache must not delay a lease.
    control: Link,
    values: Vec<Link>,
    /// Which connection the next value takes.
    next: AtomicUsize,
    listening: Listening,
}

impl RedisVolatile {
    /// Begins to connect, and returns at once.
    ///
    /// # Errors
    /// [`VolatileError::Refused`] when the settings cannot be used: unreadable certificates, for example.
    pub fn open(settings: RedisSettings) -> Result<Arc<Self>, VolatileError> {
        if settings.prefix.is_empty() || settings.prefix.contains(['{', '}']) {
            return Err(VolatileError::Refused("the prefix of keys in Redis must be text without braces".to_owned()));
        }
        let count = settings.cache_connections.clamp(1, CACHE_CONNECTIONS);
        let values = (0..count).map(|_| Link::new(&settings, "cache")).collect::<Result<_, _>>()?;
        let control = Link::new(&settings, "control")?;
        let listening = Listening::new(&settings)?;
        tracing::info!(
            place = settings.place(),
            tls = settings.uses_tls(),
            "Redis is used for leases, cache and hints"
        );
        Ok(Arc::new(Self { settings, control, values, next: AtomicUsize::new(0), listening }))
    }

    fn leases(&self) -> Leases<'_> {
        Leases { link: &self.control, prefix: &self.settings.prefix, patience: self.settings.lease_timeout }
    }

    fn value_link(&self) -> &Link {
        &self.values[self.next.fetch_add(1, Ordering::Relaxed) % self.values.len()]
    }
}

#[async_trait]
impl Lease for RedisVolatile {
    async fn acquire(&self, claim: &Claim, lease: Duration) -> Result<Claimed, VolatileError> {
        self.leases().acquire(claim, lease).await
    }

    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<bool, VolatileError> {
        self.leases().renew(claim, lease).await
    }

    async fn release(&self, claim: &Claim) -> Result<bool, VolatileError> {
        self.leases().release(claim).await
    }

    async fn holder(&self, name: &Name) -> Result<Option<Holding>, VolatileError> {
        self.leases().holder(name).await
    }
}

#[async_trait]
impl Cache for RedisVolatile {
    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>, VolatileError> {
        let place = cache::key(&self.settings.prefix, key);
        let (link, patience) = (self.value_link(), self.settings.command_timeout);
        let found = link.ask(patience, |client| async move { client.get::<Option<Bytes>, _>(place).await }).await?;
        let Some(bytes) = found else { return Ok(None) };
        let value = cache::opened(key, &bytes);
        if value.is_none() {
            metrics::counter!("motet_redis_cache_spoiled_total").increment(1);
            tracing::warn!(space = %key.space, "a cached value was not what had been put; it counts as missing");
        }
        Ok(value)
    }

    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration) -> Result<(), VolatileError> {
        let most = self.settings.max_value_bytes;
        if value.len() > most {
            let bytes = value.len();
            return Err(VolatileError::Refused(format!("{bytes} bytes are more than the {most} that are cached")));
        }
        let (place, sealed) = (cache::key(&self.settings.prefix, key), Value::Bytes(cache::sealed(key, &value)));
        let millis = ttl.clamp(Duration::from_millis(1), LONGEST).as_millis();
        let ends = Expiration::PX(i64::try_from(millis).unwrap_or(i64::MAX));
        let (link, patience) = (self.value_link(), self.settings.command_timeout);
        link.ask(patience, |client| async move { client.set(place, sealed, Some(ends), None, false).await }).await
    }
}

#[async_trait]
impl Hints for RedisVolatile {
    async fn publish(&self, channel: &Name, message: Bytes) -> Result<(), VolatileError> {
        check::hint(&message)?;
        let name = hints::channel_name(&self.settings.prefix, channel);
        let patience = self.settings.command_timeout;
        self.control.ask(patience, |client| async move { client.publish(name, Value::Bytes(message)).await }).await
    }

    async fn subscribe(&self, channel: &Name) -> Result<HintReceiver, VolatileError> {
        self.listening.subscribe(channel).await
    }
}

#[async_trait]
impl Volatile for RedisVolatile {
    async fn close(&self) {
        self.listening.close().await;
        self.control.close().await;
        for link in &self.values {
            link.close().await;
        }
    }
}
