//! Work being done: the seam behind which models run, and the backends behind it.
//!
//! Knows neither runs nor actors. Used by the actors through the traits in `port`, and by the server, which chooses
//! the backends.

pub mod port;
