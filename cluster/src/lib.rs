//! Which node does what: who belongs to the cluster and who leads it.
//!
//! Never touches runs: the store keeps what is agreed upon, and its epochs, terms and incarnations are the fences. Used
//! by the actors and by the server.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

pub mod leader;
