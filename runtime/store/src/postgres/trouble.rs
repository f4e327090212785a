//! What an error of PostgreSQL means for the writes that met it.
//!
//! Sorts by SQLSTATE, never by the words of a message, and never repeats what a URL held. Used by all of `postgres`.

use crate::StoreError;

/// What went wrong.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// A row broke a rule of the schema; others may be fine. Nothing was written.
    Row(String),
    /// The journal has no partition for a run's birth day. Nothing was written.
    NoPartition,
    /// The server gave up for a reason that passes: a lock, a timeout, a lack of room. Nothing was written.
    Passing(String),
    /// The connection is gone: what was in flight may or may not have been committed.
    Lost(String),
    /// All readers are busy. Nothing was tried.
    Busy,
    /// The store was closed.
    Closed,
    /// What was read is not what was written.
    Corrupt(String),
}

impl Trouble {
    /// Sorts an error.
    pub(super) fn of(error: &sqlx::Error) -> Self {
        let sqlx::Error::Database(database) = error else {
            return match error {
                sqlx::Error::PoolTimedOut => Self::Busy,
                sqlx::Error::PoolClosed => Self::Closed,
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
                sqlx::Error::Encode(_) => Self::Row(error.to_string()),
                _ => Self::Lost(error.to_string()),
            };
        };
        let code = database.code().unwrap_or_default();
        let text = format!("{} (SQLSTATE {code})", database.message());
        match (code.get(..2).unwrap_or_default(), &*code) {
            (_, "23514") => Self::NoPartition,
            ("22" | "23" | "54", _) => Self::Row(text),
            // A server that is shutting down, or that became a standby: the next connection may find another one.
            ("08", _) | (_, "57P01" | "57P02" | "57P03" | "57P05" | "25006") => Self::Lost(text),
            ("XX", _) => Self::Corrupt(text),
            _ => Self::Passing(text),
        }
    }

    /// The error that a caller sees.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Row(text) => StoreError::Refused(text),
            Self::NoPartition => StoreError::Storage("the journal has no partition for the run's birth day".to_owned()),
            Self::Passing(text) => StoreError::Storage(text),
            Self::Lost(text) => StoreError::Storage(format!("the connection to PostgreSQL was lost: {text}")),
            Self::Busy => StoreError::Busy,
            Self::Closed => StoreError::Closed,
            Self::Corrupt(text) => StoreError::Corrupt(text),
        }
    }
}

/// An error of the database as callers see it.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    Trouble::of(&error).into_error()
}
