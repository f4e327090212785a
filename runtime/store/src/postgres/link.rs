//! One connection of a writer, made again when it is lost.
//!
//! Attempts are spaced with growing, jittered pauses, and waiting for one has an end; the store's health tells the
//! fault meanwhile. Decides nothing about writes. Used by the writers; `connect` by everyone who needs a connection.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{ConnectOptions, Connection, Executor};

use super::options::PostgresOptions;
use super::queue::Status;
use super::schema;
use super::trouble::Trouble;
use crate::StoreError;

/// The first pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a statement may take longer here than on the server before the connection counts as lost.
const GRACE: Duration = Duration::from_secs(5);

/// Writers' statements touch few rows of large tables, but are planned when the tables may still be empty: one plan
/// serves for ever, and it goes by index.
const WRITER_GREETING: &str = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set jit = off";

/// Makes a connection and tells it the limits.
pub(super) async fn connect(options: &PostgresOptions) -> Result<PgConnection, StoreError> {
    let unreachable =
        |why: String| StoreError::Storage(format!("PostgreSQL at {} cannot be used: {why}", options.place()));
    let made = async {
        let mut connection = options.connect().connect().await.map_err(|error| unreachable(error.to_string()))?;
        schema::run(&mut connection, &options.greeting()).await?;
        Ok(connection)
    };
    match tokio::time::timeout(options.connect_timeout, made).await {
        Ok(made) => made,
        Err(_) => Err(unreachable(format!("no answer within {} s", options.connect_timeout.as_secs()))),
    }
}

/// A part of a duration, different every time, so that nodes do not come back in step.
pub(super) fn jittered(pause: Duration) -> Duration {
    let draw = RandomState::new().build_hasher().finish() % 512;
    pause.mul_f64(0.5 + draw as f64 / 1024.0)
}

/// Since when, and how, there is no connection.
struct Down {
    since: Instant,
    next: Instant,
    pause: Duration,
    fault: String,
}

/// A writer's connection.
pub(super) struct Link {
    options: Arc<PostgresOptions>,
    status: Arc<Status>,
    connection: Option<PgConnection>,
    down: Option<Down>,
}

impl Link {
    pub(super) fn new(options: Arc<PostgresOptions>, status: Arc<Status>) -> Self {
        Self { options, status, connection: None, down: None }
    }

    /// When the next attempt is due; none while nothing is wrong.
    pub(super) fn retry_in(&self) -> Option<Duration> {
        self.down.as_ref().map(|down| down.next.saturating_duration_since(Instant::now()))
    }

    /// Waits until there is a connection, for the store's patience since it was lost at most.
    pub(super) async fn ready(&mut self) -> Result<(), StoreError> {
        while self.connection.is_none() {
            if let Some(down) = &self.down {
                let pause = down.next.saturating_duration_since(Instant::now());
                if down.since.elapsed() + pause > self.options.patience {
                    return Err(StoreError::Storage(down.fault.clone()));
                }
                tokio::time::sleep(pause).await;
            }
            self.attempt().await;
        }
        Ok(())
    }

    /// The same where nobody tries meanwhile: an attempt that is due is made also when the patience is used up. Else what
    /// was down for longer than that would stay down.
    pub(super) async fn ready_by_itself(&mut self) -> Result<(), StoreError> {
        if self.retry_in().is_some_and(|pause| pause.is_zero()) {
            self.attempt().await;
        }
        self.ready().await
    }

    /// Tries once.
    pub(super) async fn attempt(&mut self) {
        let made = async {
            let mut connection = connect(&self.options).await?;
            schema::run(&mut connection, WRITER_GREETING).await?;
            Ok::<_, StoreError>(connection)
        };
        match made.await {
            Ok(connection) => {
                if self.down.take().is_some() {
                    tracing::info!(place = self.options.place(), "PostgreSQL can be reached again");
                }
                self.connection = Some(connection);
                self.status.clear_fault();
            }
            Err(error) => self.lost(error.to_string()),
        }
    }

    /// Notes that the connection is gone.
    pub(super) fn lost(&mut self, why: String) {
        self.connection = None;
        let now = Instant::now();
        let (since, pause) = self
            .down
            .as_ref()
            .map_or((now, FIRST_PAUSE), |down| (down.since, down.pause.saturating_mul(2).min(LONGEST_PAUSE)));
        if self.down.is_none() {
            tracing::warn!(place = self.options.place(), %why, "the connection to PostgreSQL was lost");
            metrics::counter!("motet_store_connections_lost_total").increment(1);
        }
        self.status.set_fault(&why);
        self.down = Some(Down { since, next: now + jittered(pause), pause, fault: why });
    }

    /// Runs one statement in a transaction of its own and returns its rows. A connection that fails is dropped.
    pub(super) fn fetch<'c>(
        &'c mut self,
        text: &'c str,
        arguments: PgArguments,
    ) -> BoxFuture<'c, Result<Vec<PgRow>, Trouble>> {
        Box::pin(async move {
            let Some(connection) = self.connection.as_mut() else {
                return Err(Trouble::Lost("there is no connection".to_owned()));
            };
            let limit = self.options.statement_timeout + GRACE;
            let work = connection.fetch_all(sqlx::query_with(text, arguments));
            let trouble = match tokio::time::timeout(limit, work).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(error)) => Trouble::of(&error),
                Err(_) => Trouble::Lost(format!("no answer within {} s", limit.as_secs())),
            };
            if let Trouble::Lost(why) = &trouble {
                self.lost(why.clone());
            }
            Err(trouble)
        })
    }

    /// The connection for work that sorts its own errors; none while it is lost.
    pub(super) fn connection(&mut self) -> Option<&mut PgConnection> {
        self.connection.as_mut()
    }

    /// Says goodbye to the server.
    pub(super) async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = tokio::time::timeout(self.options.connect_timeout, connection.close()).await;
        }
    }
}
