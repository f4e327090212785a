//! The HTTP surface as a client meets it: every answer of a started server, over both stores.
//!
//! Knows nothing of what is behind the surface. Each file is one part of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

#[path = "http/stage.rs"]
mod stage;

#[path = "http/definitions.rs"]
mod definitions;
#[path = "http/history.rs"]
mod history;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/node.rs"]
mod node;
#[path = "http/problems.rs"]
mod problems;
#[path = "http/runs.rs"]
mod runs;
