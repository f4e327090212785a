//! The backend `burn`: networks written in Rust, weights read at run time, computed on the CPU.
//!
//! Never computes on the async executor: every loaded copy has a thread and a pool of its own. Used by the server.

mod architecture;
pub mod features;
pub mod text_classifier;

pub use architecture::Architecture;
