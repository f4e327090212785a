//! The one connection that writes.
//!
//! Sorts every error, rolls a failed transaction back, and boxes its futures: the borrowed executors of sqlx cannot
//! be proven sendable inside larger ones. Decides nothing. Used by the writer and by what runs inside it.

use futures::future::BoxFuture;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Connection as _, Executor, Sqlite};

use super::schema::Trouble;

/// A statement with its arguments.
pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments<'q>>;

/// The writing connection.
#[derive(Debug)]
pub(super) struct Connection(SqliteConnection);

impl Connection {
    pub(super) fn new(connection: SqliteConnection) -> Self {
        Self(connection)
    }

    /// Runs a text that begins and commits a transaction; after an error nothing of it is left.
    pub(super) fn transaction<'c>(&'c mut self, whole: Statement<'c>) -> BoxFuture<'c, Result<(), Trouble>> {
        Box::pin(async move {
            let Err(error) = self.0.execute(whole).await else { return Ok(()) };
            // Some errors end the transaction by themselves; then there is nothing to roll back.
            let _ = self.0.execute("rollback").await;
            Err(Trouble::of(&error))
        })
    }

    /// Runs one statement and returns how many rows it changed.
    pub(super) fn execute<'c>(&'c mut self, statement: Statement<'c>) -> BoxFuture<'c, Result<u64, Trouble>> {
        Box::pin(async move {
            let done = self.0.execute(statement).await.map_err(|error| Trouble::of(&error))?;
            Ok(done.rows_affected())
        })
    }

    /// Runs one statement and returns its rows.
    pub(super) fn fetch<'c>(&'c mut self, statement: Statement<'c>) -> BoxFuture<'c, Result<Vec<SqliteRow>, Trouble>> {
        Box::pin(async move { self.0.fetch_all(statement).await.map_err(|error| Trouble::of(&error)) })
    }

    /// Moves what it can of the write-ahead log into the database without waiting for readers.
    ///
    /// Failing loses nothing: the log is still there, and a commit that fails tells its callers.
    pub(super) fn move_log(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.0.execute("pragma wal_checkpoint(passive)").await {
                tracing::warn!(%error, "the write-ahead log could not be moved into the database");
            }
        })
    }

    /// Empties the write-ahead log and closes the file.
    pub(super) fn close(mut self) -> BoxFuture<'static, Result<(), Trouble>> {
        Box::pin(async move {
            if let Err(error) = self.0.execute("pragma wal_checkpoint(truncate)").await {
                // The log is read again when the file is opened.
                tracing::warn!(%error, "the write-ahead log could not be emptied");
            }
            self.0.close().await.map_err(|error| Trouble::of(&error))
        })
    }
}
