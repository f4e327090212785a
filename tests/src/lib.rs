//! The harness of the behaviour tests: starts the real binary, talks to it, kills it, and checks what it promised.
//!
//! Holds no tests. Never waits by sleeping for a guessed time: it polls a condition up to a deadline. Ends only the
//! processes that it started. Used by the suites of this package and by the benches.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a harness fails loudly, in the test that uses it")]

pub mod client;
pub mod faults;
pub mod history;
pub mod house;
pub mod journal;
pub mod node;
pub mod nodes;
pub mod past;
pub mod place;
pub mod ports;
pub mod python;
pub mod scale;
pub mod seed;
pub mod service;
pub mod simulation;
pub mod skip;
pub mod topics;
pub mod waiting;
