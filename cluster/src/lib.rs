//! Which node does what, and how nodes reach each other.
//!
//! Knows neither actors nor runs: what nodes say to each other are opaque payloads here. Used by the actors' router and
//! by the server, which starts the link.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

pub mod clock;
pub mod envelope;
pub mod leader;
pub mod link;
pub mod members;
pub mod rendezvous;
pub mod shards;
mod wire;
