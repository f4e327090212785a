//! Bounds at the entrance: how many requests at one time, how many per second, how large, how many streams.
//!
//! Never waits: past a bound a request is refused at once, with when to try again. Used by the door and by `body`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use motet_actors::pace::Pace;
use motet_config::HttpSettings;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Event streams at one time; each holds a connection, and an actor where its run would wait without one.
const MAX_STREAMS: usize = 4096;

/// The bounds of one server.
pub(crate) struct Limits {
    /// Largest request body in bytes.
    pub(crate) max_body: usize,
    in_flight: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    rate: Option<Rate>,
}

impl Limits {
    /// The bounds that the settings ask for.
    pub(crate) fn new(settings: &HttpSettings) -> Self {
        let in_flight = usize::try_from(settings.max_in_flight).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            max_body: usize::try_from(settings.max_body_bytes).unwrap_or(usize::MAX),
            in_flight: Arc::new(Semaphore::new(in_flight)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            rate: (settings.requests_per_second > 0).then(|| Rate::new(settings.requests_per_second)),
        }
    }

    /// Lets a request in, for as long as the permit is held.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if let Some(rate) = &self.rate
            && let Err(wait) = rate.take(rate.begun.elapsed())
        {
            metrics::counter!("motet_http_refused_total", "reason" => "rate").increment(1);
            let words = "more requests per second than this node takes (http.requests_per_second)";
            return Err(Problem::new(429, "rate_limited", words).retry_after(wait.as_secs_f64().ceil() as u64));
        }
        Arc::clone(&self.in_flight).try_acquire_owned().map_err(|_| {
            metrics::counter!("motet_http_refused_total", "reason" => "in_flight").increment(1);
            let words = "as many requests as this node takes are being worked on (http.max_in_flight)";
            Problem::new(503, "overloaded", words).retry_after(1)
        })
    }

    /// Lets an event stream begin.
    pub(crate) fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            metrics::counter!("motet_http_refused_total", "reason" => "streams").increment(1);
            Problem::new(503, "overloaded", format!("{MAX_STREAMS} event streams are open already")).retry_after(5)
        })
    }
}

/// So many requests a second, from whomever they come.
struct Rate {
    begun: Instant,
    pace: Mutex<Pace>,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        Self { begun: Instant::now(), pace: Mutex::new(Pace::new(per_second, Duration::from_secs(1))) }
    }

    /// Takes a token, or says how long until there is one.
    fn take(&self, now: Duration) -> Result<(), Duration> {
        // A moment is whole whatever happened to another thread.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(now, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_tokens_may_go_at_once_and_comes_back_evenly() {
        let rate = Rate::new(10);
        let at = Duration::from_millis;
        for _ in 0..10 {
            assert_eq!(rate.take(at(0)), Ok(()));
        }
        assert_eq!(rate.take(at(0)), Err(at(100)));
        assert_eq!(rate.take(at(99)), Err(at(1)));
        assert_eq!(rate.take(at(100)), Ok(()));
        assert!(rate.take(at(100)).is_err());
        for _ in 0..10 {
            assert_eq!(rate.take(at(5_000)), Ok(()));
        }
        assert!(rate.take(at(5_000)).is_err());
    }
}
