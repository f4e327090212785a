//! Texts as inputs of a network.
//!
//! Never decodes them. Used by the architectures.

use motet_engine::failure::Failure;
use motet_engine::tensor::Tensor;

use crate::failure::invalid;
use crate::port::Tensors;

/// The texts of the input `text`, one per row. Whether they are UTF-8 is for the architecture to see.
///
/// # Errors
/// `Invalid` when the input is missing, is no BYTES tensor or has another number of rows.
pub(super) fn texts(inputs: &Tensors, rows: usize) -> Result<Vec<&[u8]>, Failure> {
    inputs
        .get("text")
        .and_then(Tensor::byte_strings)
        .filter(|texts| texts.len() == rows)
        .ok_or_else(|| invalid(format!("the input 'text' must be a BYTES tensor of {rows} rows")))
}

/// The largest measure among the texts of a call; 0 when it has none.
pub(super) fn longest(inputs: &Tensors, measure: impl Fn(&[u8]) -> usize) -> u32 {
    let texts = inputs.get("text").and_then(Tensor::byte_strings).unwrap_or_default();
    texts.into_iter().map(measure).max().map_or(0, |length| u32::try_from(length).unwrap_or(u32::MAX))
}
