//! What a user may expect of one node, against the real binary: first use, stopping, misuse, its description of
//! itself, runs that wait, runs that call other services, an encrypted database.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

#[path = "behaviour/encrypted.rs"]
mod encrypted;
#[path = "behaviour/first_use.rs"]
mod first_use;
#[path = "behaviour/http_call.rs"]
mod http_call;
#[path = "behaviour/openapi.rs"]
mod openapi;
#[path = "behaviour/stopping.rs"]
mod stopping;
#[path = "behaviour/waiting.rs"]
mod waiting;
