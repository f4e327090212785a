//! What nodes share and may lose at any moment: a lease, a cache, hints.
//!
//! Nothing here is the truth of anything. A lease tells who may try, and is no fence; a cached value has another copy
//! or can be made again; a hint only says that it is worth looking. Whoever calls these ports must be right without
//! them. Implemented in memory and on Redis; used by the election, by models and by whoever wakes other nodes.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use motet_engine::id::Name;
use tokio::sync::broadcast;

use crate::ErrorClass;

/// Largest hint, in bytes.
pub const MAX_HINT_BYTES: usize = 4 << 10;

/// Hints that wait for a slow receiver; what comes beyond them replaces the oldest.
pub const HINTS_WAITING: usize = 256;

/// Why something volatile could not be used. Unless it says otherwise, nobody knows whether it was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolatileError {
    /// The server did not answer in time, or cannot be reached.
    #[error("Redis does not answer: {0}")]
    Unavailable(String),
    /// The server did not answer lately and is left alone for a while. Nothing was sent.
    #[error("Redis did not answer lately; it is asked again in {} ms", .left.as_millis())]
    Resting {
        /// Time until it is asked again.
        left: Duration,
    },
    /// The request can never succeed, or the server refused it. Nothing was done.
    #[error("{0}")]
    Refused(String),
    /// This end was closed.
    #[error("the connection to Redis is closed")]
    Closed,
}

impl VolatileError {
    /// What the caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable(_) | Self::Resting { .. } | Self::Closed => ErrorClass::Retryable,
            Self::Refused(_) => ErrorClass::Permanent,
        }
    }
}

/// Somebody's wish for a lease. The same claim may be sent again: a lost answer does no harm.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Claim {
    /// Which lease.
    pub name: Name,
    /// Who wants it, as others will see it.
    pub holder: String,
    /// Tells this claim from every other of the same holder.
    pub token: u64,
}

impl Claim {
    /// A claim with a token that nobody else has.
    #[must_use]
    pub fn new(name: Name, holder: impl Into<String>) -> Self {
        // The keys of the hasher come from the operating system, once per process, and change with every call.
        let token = RandomState::new().build_hasher().finish();
        Self { name, holder: holder.into(), token }
    }
}

/// What became of a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// The claim has the lease, from now on or again.
    Mine,
    /// Another claim has it.
    Held(Holding),
}

/// A lease that is held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Who has it.
    pub holder: String,
    /// What is left of it.
    pub left: Duration,
}

/// A lease that ends by itself. Leases shorter than a millisecond count as one.
#[async_trait]
pub trait Lease: Send + Sync + 'static {
    /// Takes the lease when nobody has it, and prolongs it when this claim does.
    async fn acquire(&self, claim: &Claim, lease: Duration) -> Result<Claimed, VolatileError>;

    /// Prolongs the lease from now. False when this claim does not have it.
    async fn renew(&self, claim: &Claim, lease: Duration) -> Result<bool, VolatileError>;

    /// Ends the lease early. False when this claim does not have it.
    async fn release(&self, claim: &Claim) -> Result<bool, VolatileError>;

    /// Who has the lease.
    async fn holder(&self, name: &Name) -> Result<Option<Holding>, VolatileError>;
}

/// Where a value is cached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CacheKey {
    /// What kind of value it is, so that digests of different things cannot meet.
    pub space: Name,
    /// Digest of everything that the value follows from.
    pub digest: [u8; 32],
}

/// Values that are cheaper to find than to make. Never the only copy of anything.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// The value, if it is there and is what was put.
    async fn get(&self, key: &CacheKey) -> Result<Option<Bytes>, VolatileError>;

    /// Keeps a value for at most `ttl`; it may go earlier. Refused when the value is too large.
    async fn put(&self, key: &CacheKey, value: Bytes, ttl: Duration) -> Result<(), VolatileError>;
}

/// Something that came in where hints were asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hint {
    /// What somebody published.
    Message(Bytes),
    /// Hints may have been lost: whoever relies on them must look for itself.
    Gap,
}

/// Small messages that may be lost, repeated or late.
#[async_trait]
pub trait Hints: Send + Sync + 'static {
    /// Tells everybody who listens, this node included. Refused above [`MAX_HINT_BYTES`].
    async fn publish(&self, channel: &Name, message: Bytes) -> Result<(), VolatileError>;

    /// Listens to a channel from now on, also while the server is away and after it has come back.
    async fn subscribe(&self, channel: &Name) -> Result<HintReceiver, VolatileError>;
}

/// The receiving end of a channel of hints.
pub struct HintReceiver(broadcast::Receiver<Hint>);

impl fmt::Debug for HintReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HintReceiver").field("waiting", &self.0.len()).finish()
    }
}

impl HintReceiver {
    pub(crate) fn new(receiver: broadcast::Receiver<Hint>) -> Self {
        Self(receiver)
    }

    /// The next hint; none when the other end was closed. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Hint> {
        match self.0.recv().await {
            Ok(hint) => Some(hint),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Hint::Gap),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Everything volatile that nodes share, behind one object.
#[async_trait]
pub trait Volatile: Lease + Cache + Hints {
    /// Ends it; later calls are refused. Leases that are held run out by themselves.
    async fn close(&self);
}
