//! Which node does what.
//!
//! Knows the store's ports, but neither actors nor models. Used by the actors, which serve shards, and by the server.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

pub mod shards;
