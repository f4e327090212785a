//! What bytes with the id of a schema mean: Avro, Protobuf and JSON Schema, by a registry that holds the schemas.
//!
//! Knows neither topics nor runs, and decides nothing about a record but whether its bytes can be read: what becomes of
//! it is the engine's rule. No bytes and no schema whatever make it panic, recurse without bound or take memory without
//! bound. Used by the actors that own partitions through the trait in `port`, and by the server, which chooses the
//! registry.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

mod avro;
mod budget;
mod cache;
mod compiled;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod decimal;
mod decoder;
mod framing;
mod json_schema;
mod moment;
pub mod port;
mod protobuf;
pub mod registry;

pub use compiled::{CompiledSchema, MAX_SCHEMA_BYTES, Mistake};
pub use decoder::RegistryDecoder;
