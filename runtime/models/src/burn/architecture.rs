//! What a model family must do to be run by burn: describe itself, measure a call, compute a batch.
//!
//! An architecture never starts threads, never waits and never reads files after it was loaded. Implemented by
//! `bert` and `text_classifier`; used by the inference thread in `replica`.

use motet_engine::failure::Failure;
use motet_engine::tensor::Tensor;

use crate::failure::invalid;
use crate::port::{ModelSignature, Tensors};

/// One loaded network with its weights. Called on its copy's inference thread, inside its rayon pool.
pub trait Architecture: Send + Sync + 'static {
    /// What the network takes and gives.
    fn signature(&self) -> &ModelSignature;

    /// How long the input of one call is in the unit in which its cost grows (tokens for text); the longest row of a
    /// call with many rows. 0 where length does not matter.
    fn length(&self, inputs: &Tensors) -> u32;

    /// Computes `rows` rows. `cancelled` says whether nobody waits for the answer any more: ask it between layers
    /// where they are long, and give up with any failure when it is true.
    ///
    /// # Errors
    /// `Invalid` for inputs that are not as the signature says, `Internal` for a network that cannot compute.
    fn forward(&self, inputs: &Tensors, rows: usize, cancelled: &(dyn Fn() -> bool + Sync))
    -> Result<Tensors, Failure>;
}

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
