//! What is found again: the seam behind which vectors are kept, and the embedded index.
//!
//! Knows neither runs nor actors. Used by the actors through the traits in `port`, and by the server.

pub mod filter;
pub mod port;
