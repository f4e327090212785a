//! Where Redis is and how it is spoken to.
//!
//! Never shows a password: neither errors nor `Debug` repeat what the URL held besides hosts and names. Used by whoever
//! opens the volatile ports, and by `redis` for every connection.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::url::{Address, Shape};
use crate::port::VolatileError;

/// How [`RedisVolatile`](super::RedisVolatile) reaches its server.
#[derive(Clone)]
pub struct RedisSettings {
    pub(super) address: Address,
    /// Beginning of every key and channel: clusters that share a server must differ in it. `motet` unless set.
    pub prefix: String,
    /// Longest time for a connection to be made, TLS included: 1 s.
    pub connect_timeout: Duration,
    /// Longest wait for an answer on the path of a request, that is for the cache and for hints: 100 ms.
    pub command_timeout: Duration,
    /// Longest wait for an answer about a lease, which nobody's request waits for: 1 s.
    pub lease_timeout: Duration,
    /// Silence after which a connection with a question in flight is given up: 2 s. A server that stands still does
    /// not close its sockets.
    pub unresponsive_after: Duration,
    /// Longest wait between two attempts to connect: 2 s. The first comes after 50 ms; each has jitter.
    pub reconnect_at_most: Duration,
    /// Connections for the cache, 1 to 16: 2. Leases and hints have their own.
    pub cache_connections: usize,
    /// Failures in a row after which the server is left alone: 3.
    pub failures_before_rest: u32,
    /// How long it is left alone at first: 200 ms. Doubles up to `rest_at_most`.
    pub rest_at_first: Duration,
    /// How long it is left alone at most: 2 s. Then one request tries; all others still fail at once.
    pub rest_at_most: Duration,
    /// Largest value that is cached, in bytes: 8 MiB.
    pub max_value_bytes: usize,
}

/// Certificates for `rediss://`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct TlsFiles {
    /// Who may have signed the server's certificate; the system's authorities when absent.
    pub(super) authority: Option<PathBuf>,
    /// This end's certificate with its chain, and the key of it.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

impl RedisSettings {
    /// Reads the URL of a Redis or Valkey server as their users write it:
    ///
    /// * `redis://[user:password@]host[:6379][/database]`, `rediss://` with TLS; `valkey://` and `valkeys://` alike
    /// * `redis-sentinel://[user:password@]host[:26379],host2[:26379]/service[/database]`, `rediss-sentinel://`;
    ///   parameters `service` (or `sentinelServiceName`), `sentinel_username`, `sentinel_password`
    /// * `redis-cluster://[user:password@]host[:6379],host2[:6379]`, `rediss-cluster://`
    /// * `unix:///path/of/socket?db=1`, `redis+unix://`
    ///
    /// Parameters for all: `db`, `prefix`; for TLS `ca_file`, `cert_file` and `key_file`, which are PEM files. A user
    /// without a password in front of the `@` is a password. Characters with a meaning in URLs are written as `%40`.
    ///
    /// # Errors
    /// [`VolatileError::Refused`] with advice when the text is no such URL, or a parameter is unknown.
    pub fn from_url(text: &str) -> Result<Self, VolatileError> {
        let (address, prefix) = Address::parse(text)?;
        Ok(Self {
            address,
            prefix: prefix.unwrap_or_else(|| "motet".to_owned()),
            connect_timeout: Duration::from_secs(1),
            command_timeout: Duration::from_millis(100),
            lease_timeout: Duration::from_secs(1),
            unresponsive_after: Duration::from_secs(2),
            reconnect_at_most: Duration::from_secs(2),
            cache_connections: 2,
            failures_before_rest: 3,
            rest_at_first: Duration::from_millis(200),
            rest_at_most: Duration::from_secs(2),
            max_value_bytes: 8 << 20,
        })
    }

    /// Hosts, database and service, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        self.address.place()
    }

    /// Whether the way to the server is encrypted.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.address.tls.is_some()
    }

    /// Whether a primary is found through sentinels.
    #[must_use]
    pub fn uses_sentinels(&self) -> bool {
        matches!(self.address.shape, Shape::Sentinel { .. })
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("place", &self.place())
            .field("prefix", &self.prefix)
            .field("command_timeout", &self.command_timeout)
            .field("lease_timeout", &self.lease_timeout)
            .finish_non_exhaustive()
    }
}
