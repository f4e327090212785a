//! Faults that are made to the real binary from outside, and the load that it must not lose meanwhile.
//!
//! Never needs more of the binary than a user has. Used by the rows of the fault matrix in `tests/faults`.

pub mod audit;
pub mod backing;
pub mod disk;
pub mod kafka;
pub mod leader;
pub mod load;
pub mod postgres;
pub mod proxy;
pub mod shim;
pub mod stale;
