//! What a network must do to be computed in this process: describe itself, measure a call, compute a batch.
//!
//! Never starts threads of its own accord, never waits and never reads files after it was loaded. Implemented by the
//! architectures of `burn` and by `onnx`; used by the inference thread in `replica`.

use motet_engine::failure::Failure;

use crate::port::{ModelSignature, Tensors};

/// One loaded network with its weights. Called on its copy's inference thread, inside its rayon pool if it has one.
pub(crate) trait Network: Send + Sync + 'static {
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
