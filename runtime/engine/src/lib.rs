//! The rules of Motet: what a run is, what it records and what it owes.
//!
//! Pure: no async, no clock, no randomness, no log, no input or output; time and entropy come in with the inputs, and
//! maps are ordered, so the same events give the same state everywhere. Used by every other crate; uses none of them.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

pub mod access;
pub mod command;
pub mod definition;
pub mod event;
pub mod expression;
pub mod failure;
pub mod id;
pub mod input;
pub mod parse;
pub mod prompt;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod schema;
pub mod stream;
pub mod tensor;
pub mod time;
pub mod trace;
pub mod value;
