//! Metadata filters.
/// A filter.
#[derive(Clone, Debug)]
pub struct Filter;
