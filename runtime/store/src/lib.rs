//! What is remembered: journal, snapshots, epochs, timers, definitions, blobs.
//!
//! Knows neither actors nor models. Every implementation passes the one suite in `contract`. Used by the actors
//! through the traits in `port`, and by the server, which chooses the implementation.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

mod check;
pub mod codec;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod error;
mod headers;
pub mod memory;
mod partition_rules;
pub mod port;
pub mod postgres;
pub mod redis;
mod shard_map;
pub mod sqlite;

pub use error::{ErrorClass, StoreError};
