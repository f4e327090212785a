//! How many calls may work on an index at once, and how many may wait for that.
//!
//! Never runs anything itself. Used by the embedded index in front of its blocking work.

use std::sync::Arc;
use std::time::Duration;

use motet_engine::failure::{Failure, FailureClass};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded queue in front of a bounded number of workers.
pub(super) struct Gate {
    /// One permit for each call inside, working or waiting.
    admitted: Arc<Semaphore>,
    working: Arc<Semaphore>,
    patience: Duration,
}

/// The right to work until it is dropped.
pub(super) struct Pass {
    _admitted: OwnedSemaphorePermit,
    _working: OwnedSemaphorePermit,
}

impl Gate {
    /// Lets `working` calls work and `waiting` more wait, each for at most `patience`.
    pub(super) fn new(working: usize, waiting: usize, patience: Duration) -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(working + waiting)),
            working: Arc::new(Semaphore::new(working)),
            patience,
        }
    }

    /// Waits for a turn. Fails as overloaded when too many wait, and as timed out when the turn does not come.
    pub(super) async fn enter(&self) -> Result<Pass, Failure> {
        let overloaded = |_| Failure::new(FailureClass::Overloaded, "too many calls wait for the index");
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(overloaded)?;
        let turn = Arc::clone(&self.working).acquire_owned();
        match tokio::time::timeout(self.patience, turn).await {
            Ok(Ok(working)) => Ok(Pass { _admitted: admitted, _working: working }),
            Ok(Err(_)) => Err(Failure::new(FailureClass::Unavailable, "the index is closed")),
            Err(_) => {
                let message = format!("waited {} ms for a turn at the index", self.patience.as_millis());
                Err(Failure::new(FailureClass::Timeout, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_the_queue_full_is_sent_away() {
        let gate = Gate::new(1, 0, Duration::from_secs(60));
        let inside = gate.enter().await.unwrap();
        assert_eq!(gate.enter().await.map(drop).unwrap_err().class, FailureClass::Overloaded);
        drop(inside);
        assert!(gate.enter().await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told() {
        let gate = Gate::new(1, 1, Duration::from_millis(1));
        let _inside = gate.enter().await.unwrap();
        assert_eq!(gate.enter().await.map(drop).unwrap_err().class, FailureClass::Timeout);
    }
}
