//! Work coming in and results going out: record sources and record sinks, in memory and on Kafka.
//!
//! Knows neither runs nor stores, and never decides what becomes of a record: where reading begins and what a record
//! means are told from above. Every implementation passes the one suite in `contract`. Used by the actors through the
//! traits in `port`, and by the server, which chooses the implementation.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod error;
pub mod kafka;
pub mod memory;
mod pattern;
pub mod port;

pub use error::{BrokerError, ErrorClass};
