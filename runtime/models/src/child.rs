//! Models that run in a process of their own, and what is said between it and the node.
//!
//! The node never opens a library of such a model and never trusts its files: what they do, they do in a child that may
//! die. Used by the backends `tensorflow` and `python`; the other side is the crate `motet-worker`.

mod keeper;
mod launch;
mod memory;
mod options;
mod process;
mod python;
mod replica;
mod tensorflow;
pub mod wire;

pub use launch::SUBCOMMAND;
pub use options::ChildOptions;
pub use python::PythonBackend;
pub use tensorflow::TensorFlowBackend;
