//! What is remembered: journal, snapshots, epochs, timers, definitions, blobs.
//!
//! Knows neither actors nor models. Every implementation passes the one suite in `contract`. Used by the actors
//! through the traits in `port`, and by the server, which chooses the implementation.

pub mod codec;
pub mod contract;
mod error;
pub mod memory;
pub mod port;
pub mod sqlite;

pub use error::{ErrorClass, StoreError};
