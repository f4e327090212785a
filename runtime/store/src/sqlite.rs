//! On SQLite.
