//! Work being done: the seam behind which models run, and the backends behind it.
//!
//! Knows neither runs nor actors. Used by the actors through the traits in `port`, and by the server, which chooses
//! the backends.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

pub mod burn;
pub mod port;
