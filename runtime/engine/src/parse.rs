//! Reading structure out of text.
/// A compiled pattern.
#[derive(Debug)]
pub struct Pattern;
