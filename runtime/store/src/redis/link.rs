//! One connection to the server: kept up in the background, asked with a bound on every wait.
//!
//! Never lets anybody wait for a server that is away: without a connection a question fails at once, and a server that
//! did not answer several times is left alone. Used by the leases, the cache and the hints of `redis`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fred::clients::{Client, WithOptions};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::Options;
use tokio::sync::watch;
use tokio::time::timeout;

use super::breaker::{Breaker, Change, Limits};
use super::connect;
use super::settings::RedisSettings;
use crate::port::VolatileError;

/// What a wait on this side may take longer than the one that was asked for, before it is ended from outside.
const SLACK: Duration = Duration::from_millis(50);

/// Longest wait for a connection to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

/// Rest after the client itself gave up, which it does when it is told that the server is of another kind.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// A connection.
pub(super) struct Link {
    client: Client,
    breaker: Breaker,
    /// What it is for, as metrics and logs say it.
    purpose: &'static str,
    place: String,
    /// Why the connection was lost or could not be made.
    trouble: Arc<Mutex<Option<String>>>,
    /// True when it was closed; ends the task that keeps the connection.
    closed: watch::Sender<bool>,
}

impl Link {
    /// Begins to connect, and returns at once.
    pub(super) fn new(settings: &RedisSettings, purpose: &'static str) -> Result<Self, VolatileError> {
        let client = connect::client(settings)?;
        let limits = Limits {
            failures: settings.failures_before_rest.max(1),
            at_first: settings.rest_at_first,
            at_most: settings.rest_at_most.max(settings.rest_at_first),
            trial: settings.lease_timeout.max(settings.command_timeout) + SLACK,
        };
        let (closed, closing) = watch::channel(false);
        let trouble = Arc::new(Mutex::new(None));
        tokio::spawn(keep(client.clone(), Arc::clone(&trouble), closing));
        Ok(Self { client, breaker: Breaker::new(limits), purpose, place: settings.place(), trouble, closed })
    }

    /// The client, for what is no question.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Why there is no connection, as far as it is known.
    #[cfg(test)]
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks once and waits no longer than `patience`, or not at all while the server is left alone.
    pub(super) async fn ask<T, F>(
        &self,
        patience: Duration,
        question: impl FnOnce(WithOptions<Client>) -> F + Send,
    ) -> Result<T, VolatileError>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        if *self.closed.borrow() {
            return Err(VolatileError::Closed);
        }
        let begun = Instant::now();
        if let Err(left) = self.breaker.admit(begun) {
            self.count("resting");
            return Err(VolatileError::Resting { left });
        }
        let options = Options { timeout: Some(patience), max_attempts: Some(1), fail_fast: true, ..Options::default() };
        // The client's own timeout frees what it holds for the question; the one around it is the promise.
        let answer = timeout(patience + SLACK, question(self.client.with_options(&options))).await;
        metrics::histogram!("motet_redis_seconds", "purpose" => self.purpose).record(begun.elapsed().as_secs_f64());
        let (change, outcome) = match answer {
            Ok(Ok(value)) => (self.breaker.answered(), Ok(value)),
            Ok(Err(error)) if was_answered(&error) => (self.breaker.answered(), Err(refusal(&error))),
            Ok(Err(error)) => (self.breaker.failed(Instant::now()), Err(self.silence(&error))),
            Err(_) => (self.breaker.failed(Instant::now()), Err(no_answer(patience))),
        };
        self.count(if outcome.is_ok() { "answered" } else { "failed" });
        self.tell(change, outcome.as_ref().err());
        outcome
    }

    fn silence(&self, error: &Error) -> VolatileError {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (error.kind(), &*trouble) {
            (ErrorKind::Timeout, _) => VolatileError::Unavailable("no answer in time".to_owned()),
            (_, Some(why)) => VolatileError::Unavailable(format!("no connection to {}: {why}", self.place)),
            _ => VolatileError::Unavailable(format!("no connection to {}: {}", self.place, error.details())),
        }
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!("motet_redis_requests_total", "purpose" => self.purpose, "outcome" => outcome).increment(1);
    }

    fn tell(&self, change: Change, error: Option<&VolatileError>) {
        let Self { purpose, place, .. } = self;
        match (change, error) {
            (Change::None, _) => {}
            (Change::Closed, _) => {
                metrics::gauge!("motet_redis_up", "purpose" => *purpose).set(1.0);
                tracing::info!(purpose, place, "Redis answers again");
            }
            (Change::Opened, error) => {
                metrics::gauge!("motet_redis_up", "purpose" => *purpose).set(0.0);
                let error = error.map(ToString::to_string).unwrap_or_default();
                tracing::warn!(purpose, place, error, "Redis is left alone for a while; work goes on without it");
            }
        }
    }

    /// Ends the connection; later questions are refused.
    pub(super) async fn close(&self) {
        if !self.closed.send_replace(true) {
            let _ = timeout(GOODBYE, self.client.quit()).await;
        }
    }
}

fn no_answer(patience: Duration) -> VolatileError {
    VolatileError::Unavailable(format!("no answer within {} ms", patience.as_millis()))
}

/// Whether the server itself answered with this error.
fn was_answered(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Timeout
            | ErrorKind::IO
            | ErrorKind::Canceled
            | ErrorKind::Routing
            | ErrorKind::Tls
            | ErrorKind::Sentinel
            | ErrorKind::Backpressure
            | ErrorKind::Protocol
            | ErrorKind::Config
    )
}

/// What a server's error means. Some pass by themselves: it loads, is being replaced, or runs a long script.
fn refusal(error: &Error) -> VolatileError {
    const PASSING: [&str; 7] = ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "OOM"];
    let first = error.details().split_whitespace().next().unwrap_or_default();
    if PASSING.contains(&first) {
        VolatileError::Unavailable(error.details().to_owned())
    } else {
        VolatileError::Refused(format!("Redis refuses: {}", error.details()))
    }
}

/// Keeps a client connected until it is closed.
async fn keep(client: Client, trouble: Arc<Mutex<Option<String>>>, mut closing: watch::Receiver<bool>) {
    let remember = |why: Option<String>| *trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    loop {
        let (mut errors, mut connections) = (client.error_rx(), client.reconnect_rx());
        let mut driver = client.connect();
        let gave_up = loop {
            tokio::select! {
                ended = &mut driver => break ended,
                // The sender goes with the link: then nobody needs the connection either.
                _ = closing.changed() => {
                    let _ = timeout(GOODBYE, client.quit()).await;
                    driver.abort();
                    return;
                }
                Ok((error, _)) = errors.recv() => remember(Some(error.details().to_owned())),
                Ok(_) = connections.recv() => remember(None),
            }
        };
        if let Ok(Err(error)) = &gave_up {
            remember(Some(error.details().to_owned()));
            tracing::warn!(error = error.details(), "the connection to Redis was given up; it is begun anew");
        }
        if timeout(GIVEN_UP, closing.changed()).await.is_ok() {
            return;
        }
    }
}
