//! What a user may expect of several nodes, against the real binary: one API from any node, roles, draining, mutual TLS.
//!
//! How nodes end and what that must not cost is for the fault matrix.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/one_system.rs"]
mod one_system;
#[path = "cluster/roles.rs"]
mod roles;
#[path = "cluster/trust.rs"]
mod trust;
