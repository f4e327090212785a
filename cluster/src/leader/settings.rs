//! How the leader is elected.
//!
//! Plain values with their defaults and what they must keep to each other. Used by whoever starts an election.

use std::time::Duration;

use motet_engine::id::Name;

use super::LeaderError;

/// The usual role.
pub const ROLE: &str = "leader";

/// How the leader is elected. All nodes must have the same values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaderSettings {
    /// What is led: the name of the lease in Redis and of the leadership in the store. `leader`.
    pub role: String,
    /// How long a lease lasts: 10 s. It is renewed at a third, and a leader that could not renew it stops its work at
    /// four fifths. After the death of a leader the next one is found within this time and `retry`.
    pub lease: Duration,
    /// How long to wait before trying again what failed or was refused: 1 s, with jitter from a half to three halves.
    pub retry: Duration,
    /// Longest wait for the store or for Redis to answer: 2 s.
    pub request_timeout: Duration,
    /// Failures in a row after which an election goes on without Redis: 3.
    pub redis_failures: u32,
    /// How long Redis must have answered before those who do not lead trust it again: 10 s. Whoever leads then has the
    /// lease long before, so that nothing changes hands when Redis comes back.
    pub redis_settling: Duration,
}

impl Default for LeaderSettings {
    fn default() -> Self {
        Self {
            role: ROLE.to_owned(),
            lease: Duration::from_secs(10),
            retry: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
            redis_failures: 3,
            redis_settling: Duration::from_secs(10),
        }
    }
}

impl LeaderSettings {
    /// The role as a name; refuses values that do not fit each other.
    ///
    /// # Errors
    /// [`LeaderError::Settings`] with what is wrong and what would do.
    pub fn check(&self) -> Result<Name, LeaderError> {
        let Self { lease, retry, request_timeout, .. } = self;
        let wrong = |text: String| Err(LeaderError::Settings(text));
        if *lease < Duration::from_millis(300) {
            return wrong(format!("a lease of {lease:?} is too short for any network: take 10 s"));
        }
        if *retry < Duration::from_millis(10) || *retry > *lease / 4 {
            return wrong(format!("waiting {retry:?} before trying again must be 10 ms to a quarter of {lease:?}"));
        }
        // A renewal at a third, one that is not answered, and another one must come before four fifths.
        if *request_timeout < Duration::from_millis(10) || *request_timeout > *lease / 4 {
            return wrong(format!("waiting {request_timeout:?} for an answer must be 10 ms to a quarter of {lease:?}"));
        }
        if self.redis_failures == 0 {
            return wrong("redis_failures must be at least 1".to_owned());
        }
        Name::new(&self.role).map_err(|error| LeaderError::Settings(format!("the role is no name: {error}")))
    }

    /// When a lease is renewed.
    pub(super) fn third(&self) -> Duration {
        self.lease / 3
    }

    /// How much is left of a lease in which its holder believes no more.
    pub(super) fn unsure(&self) -> Duration {
        self.lease - self.sure()
    }

    /// How long a lease is believed in, from before it was asked for.
    pub(super) fn sure(&self) -> Duration {
        self.lease / 5 * 4
    }
}
