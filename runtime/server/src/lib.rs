//! The process: which adapters there are, the HTTP surface, logs, metrics, and how it ends.
//!
//! Holds no rules of runs and no actors; those are in the engine and in `actors`. Used by the binary, which is a thin
//! command line over `bootstrap`, by its demo and by tests.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

pub mod bootstrap;
mod grpc;
pub mod http;
mod inference;
pub mod shutdown;
pub mod telemetry;
