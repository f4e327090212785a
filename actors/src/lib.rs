//! Mailboxes around the rules: supervision, the router, runs, models with their batches, indexes, calls to other
//! services, timers.
//!
//! Holds no rules of runs (the engine does) and no adapters (the server chooses them). Every mailbox is bounded, every
//! question has a time limit, every actor is addressed by kind and key. Used by the server and by benches.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

pub mod address;
pub mod batcher;
mod breaker;
pub mod catalog;
pub mod census;
pub mod driver;
pub mod egress;
mod egress_actor;
mod foresight;
mod gate;
mod index_actor;
pub mod indexes;
mod limits;
mod lines;
pub mod mailbox;
pub mod message;
mod model_actor;
pub mod models;
pub mod node;
pub mod pace;
mod partition_actor;
pub mod peers;
pub mod placement;
pub mod ports;
mod recovery;
mod relay;
mod residency;
pub mod router;
mod run_actor;
pub mod runs;
mod schedule_actor;
pub mod schedules;
mod services;
mod shards;
pub mod stats;
mod stream_actor;
pub mod streams;
mod submission;
pub mod supervisor;
mod timers;
mod turn;
mod vector_call;
mod wire;
