//! The floor below the store: what SQLite itself does on this disk with rows of the journal's shape and size.
//!
//! One connection, write-ahead log, every commit synced, nothing else going on. Used by `durable_runs` to say how much
//! of what the disk allows is reached; the floors of others are beside it.

pub mod consumer;
pub mod ingest;
pub mod postgres;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Executor};

const SCHEMA: &str = "create table journal (position integer primary key, run blob not null, seq integer not null,
    count integer not null, at integer not null, payload blob not null) strict;
  create unique index journal_by_run on journal (run, seq);";

/// Runs whose rows are mixed in one commit.
const RUNS: u64 = 1_000;

/// Bare commits of one size.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    /// Rows in each commit.
    pub rows: usize,
    /// Commits per second.
    pub commits: f64,
    /// Median time of a commit.
    pub p50: Duration,
    /// Time within which 99 of 100 commits are done.
    pub p99: Duration,
}

impl Floor {
    fn of(rows: usize, times: &Histogram<u64>, elapsed: Duration) -> Self {
        let at = |quantile| Duration::from_micros(times.value_at_quantile(quantile));
        Self { rows, commits: times.len() as f64 / elapsed.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
    }

    /// Rows per second.
    #[must_use]
    pub fn rows_per_second(&self) -> f64 {
        self.commits * self.rows as f64
    }
}

/// What the journal of a folder holds: rows, runs and bytes of payload.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Rows of the journal.
    pub rows: u64,
    /// Runs.
    pub runs: u64,
    /// Mean bytes of a row's payload.
    pub payload_bytes: usize,
}

/// Commits `rows` rows at a time for `time`, one commit after the other.
///
/// # Errors
/// When the database refuses.
pub async fn measure(folder: &Path, rows: usize, payload_bytes: usize, time: Duration) -> Result<Floor> {
    let file = folder.join(format!("floor-{rows}.db"));
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "10000");
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
    let values = (0..rows).map(|row| format!("(?{},?{},1,0,?1)", row * 2 + 2, row * 2 + 3)).collect::<Vec<_>>();
    let statement = format!(
        "begin immediate; insert into journal (run, seq, count, at, payload) values {}; commit",
        values.join(",")
    );
    let payload = vec![7u8; payload_bytes];
    let mut times = Histogram::<u64>::new(3)?;
    let (begun, mut next) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        let mut query = sqlx::query(&statement).bind(&payload[..]);
        for _ in 0..rows {
            let run = (next % RUNS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            query = query.bind([run.to_be_bytes(), run.to_le_bytes()].concat()).bind(i64::try_from(next / RUNS)?);
            next += 1;
        }
        let commit = Instant::now();
        connection.execute(query).await?;
        times.record(u64::try_from(commit.elapsed().as_micros())?)?;
    }
    let floor = Floor::of(rows, &times, begun.elapsed());
    connection.close().await?;
    Ok(floor)
}

/// Counts what a stopped node has written.
///
/// # Errors
/// When the database cannot be read.
pub async fn written(data: &Path) -> Result<Written> {
    let options = SqliteConnectOptions::new().filename(data.join("motet.db")).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let (rows, bytes): (i64, f64) = sqlx::query_as("select count(*), coalesce(avg(length(payload)), 0.0) from journal")
        .fetch_one(&mut connection)
        .await?;
    let (runs,): (i64,) = sqlx::query_as("select count(*) from run").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(Written { rows: rows.unsigned_abs(), runs: runs.unsigned_abs(), payload_bytes: bytes as usize })
}
