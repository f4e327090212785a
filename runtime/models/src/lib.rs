//! Work being done: the seams behind which models run and other services are called, and what is behind them.
//!
//! Knows neither runs nor actors. Used by the actors through the traits in `port` and `egress`, and by the server,
//! which chooses the backends.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

pub mod burn;
pub mod call;
pub mod child;
#[cfg(test)]
mod contract;
pub mod egress;
mod failure;
pub mod fake;
mod network;
pub mod onnx;
mod parameters;
pub mod port;
mod replica;
pub mod source;
mod suggestion;
