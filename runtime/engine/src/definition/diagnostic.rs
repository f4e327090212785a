//! Mistakes in definitions.
/// A mistake.
#[derive(Debug)]
pub struct Diagnostic;
