//! What is found again: the seam behind which vectors are kept, and the embedded index.
//!
//! Knows neither runs nor actors. Used by the actors through the traits in `port`, and by the server, which chooses
//! the backends.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

#[cfg(test)]
mod contract;
pub mod embedded;
pub mod filter;
pub mod limits;
pub mod port;
