//! What the benches share: the machine, the load generator, the work, the floor below the store, other engines, the
//! verdict.
//!
//! Measures nothing by itself. Used by the benches beside it, which `make bench` runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails loudly")]

pub mod echo;
pub mod floor;
pub mod intake;
pub mod load;
pub mod machine;
pub mod nodes;
pub mod peers;
pub mod short_run;
pub mod three_steps;
pub mod verdict;
mod wire;
