//! The seam behind which models run: load, describe, infer, unload, health.
//!
//! A backend never retries, never batches calls of others and never touches the async executor's threads for
//! computing: inference runs on threads or processes of its own. Implemented by `burn` and by `fake`; used by the
//! model actor.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt, once};
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::Failure;
use motet_engine::tensor::{Datatype, Tensor};

/// Tensors by name. Dimension 0 of every input and output is the row, one per item of the batch.
pub type Tensors = BTreeMap<String, Tensor>;

/// One named input or output of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorSpec {
    /// Name of the input or output.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Lengths of the dimensions; `None` where any length is accepted. Dimension 0 is the row.
    pub shape: Vec<Option<usize>>,
    /// Whether a call may leave the input out.
    pub optional: bool,
}

/// What a loaded model takes and gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelSignature {
    /// Inputs in documented order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in documented order.
    pub outputs: Vec<TensorSpec>,
    /// Resident memory of one loaded copy in bytes, estimated from the artefact.
    pub memory_bytes: u64,
    /// What the model is, for people: architecture, sizes, labels.
    pub facts: BTreeMap<String, serde_json::Value>,
}

/// One batch. All inputs have the same number of rows.
#[derive(Clone, Debug)]
pub struct InferRequest {
    /// Inputs by name.
    pub inputs: Tensors,
    /// Rows in every input.
    pub rows: usize,
    /// When the answer is of no use any more; a backend that has not begun by then answers with a timeout.
    pub deadline: Instant,
}

/// A part of a streamed answer: outputs so far unseen, such as the next token of a text.
pub type InferChunk = Result<Tensors, Failure>;

/// A loaded copy of a model.
#[async_trait]
pub trait LoadedModel: Send + Sync + 'static {
    /// What the model takes and gives.
    fn signature(&self) -> &ModelSignature;

    /// How long the input of one row is in the unit in which the model's cost grows (tokens for text); buckets of
    /// equal length batch best. 0 where length does not matter.
    fn length(&self, inputs: &Tensors) -> u32;

    /// Runs one batch. Dropping the future abandons the answer; a batch that has begun may run to its end.
    async fn infer(&self, request: InferRequest) -> Result<Tensors, Failure>;

    /// Runs one request and gives its answer in parts. Models that answer whole give one part.
    fn infer_stream(&self, request: InferRequest) -> BoxStream<'_, InferChunk> {
        once(self.infer(request)).boxed()
    }

    /// Whether the copy can serve.
    async fn health(&self) -> Result<(), Failure>;

    /// Lets go of memory and threads. Calls in flight end first.
    async fn unload(&self);
}

/// Makes loaded copies from definitions.
#[async_trait]
pub trait ModelBackend: Send + Sync + 'static {
    /// Name under `backend:` of a definition.
    fn name(&self) -> &'static str;

    /// Checks a definition without loading: known architecture, known parameters.
    fn check(&self, definition: &ModelDefinition) -> Result<(), Failure>;

    /// What one copy will take in bytes, where the definition tells; otherwise it is thought to take what its artefact
    /// does, until it was loaded once.
    fn expected_bytes(&self, _definition: &ModelDefinition) -> Option<u64> {
        None
    }

    /// Loads one copy. `artefact` is the folder that the definition's source was brought to, where it has one.
    async fn load(
        &self,
        definition: &ModelDefinition,
        artefact: Option<PathBuf>,
    ) -> Result<Box<dyn LoadedModel>, Failure>;
}
