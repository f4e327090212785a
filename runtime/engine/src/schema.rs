//! JSON Schemas.
/// A compiled JSON Schema.
#[derive(Debug)]
pub struct Schema;
