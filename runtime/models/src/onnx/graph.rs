//! One loaded ONNX file: its declaration, and the graph that rten computes.
//!
//! Never changes after it was loaded. Used by the backend.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use motet_engine::failure::Failure;
use motet_engine::tensor::Tensor;
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool};

use super::declaration::Declaration;
use super::elements;
use crate::call;
use crate::failure::{internal, invalid};
use crate::network::Network;
use crate::port::{ModelSignature, TensorSpec, Tensors};

/// A loaded file.
pub(super) struct OnnxGraph {
    signature: ModelSignature,
    model: Model,
    /// Nodes of the inputs and outputs, in the order of the signature.
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    fixed_rows: Option<usize>,
    threads: Arc<ThreadPool>,
}

impl OnnxGraph {
    /// Reads a file, and what it keeps beside itself. Blocks.
    ///
    /// # Errors
    /// `Invalid` with the file's name when it cannot be read, understood or served.
    pub(super) fn load(file: &Path, threads: usize) -> Result<Self, Failure> {
        let of_file = |reason: String| invalid(format!("{}: {reason}", file.display()));
        let bytes = fs::read(file).map_err(|error| of_file(format!("it cannot be read: {error}")))?;
        let declared = Declaration::read(&bytes).map_err(|failure| of_file(failure.message))?;
        if let Some(rows) = declared.fixed_rows.filter(|rows| *rows > 1) {
            return Err(of_file(format!(
                "its inputs have exactly {rows} rows; export it with a first dimension of 1 or of any length"
            )));
        }
        drop(bytes);
        // Operators that draw random numbers are not compiled in: they would be named here.
        let model = ModelOptions::with_all_ops()
            .load_file(file)
            .map_err(|error| of_file(format!("it cannot be used: {error}")))?;
        let node = |spec: &TensorSpec| {
            model.node_id(&spec.name).map_err(|error| of_file(format!("'{}' is not in the graph: {error}", spec.name)))
        };
        let inputs = declared.inputs.iter().map(node).collect::<Result<_, _>>()?;
        let outputs = declared.outputs.iter().map(node).collect::<Result<_, _>>()?;
        let facts = BTreeMap::from([
            ("format".to_owned(), "ONNX".into()),
            ("producer".to_owned(), declared.producer.into()),
            ("opset".to_owned(), declared.opset.into()),
            ("parameters".to_owned(), model.total_params().into()),
        ]);
        let memory_bytes = size(file);
        let signature = ModelSignature { inputs: declared.inputs, outputs: declared.outputs, memory_bytes, facts };
        let threads = Arc::new(ThreadPool::with_num_threads(threads));
        Ok(Self { signature, model, inputs, outputs, fixed_rows: declared.fixed_rows, threads })
    }

    fn run(&self, inputs: &Tensors) -> Result<Tensors, Failure> {
        let mut values = Vec::with_capacity(self.inputs.len());
        for (spec, node) in self.signature.inputs.iter().zip(&self.inputs) {
            let tensor = inputs.get(&spec.name).ok_or_else(|| internal(format!("no input '{}'", spec.name)))?;
            values.push((*node, elements::value(&spec.name, tensor)?.into()));
        }
        let mut options = RunOptions::default();
        options.thread_pool = Some(Arc::clone(&self.threads));
        // What a graph refuses it refuses every time: it is a function of its inputs.
        let values = self
            .model
            .run(values, &self.outputs, Some(options))
            .map_err(|error| invalid(format!("the graph cannot compute these inputs: {error}")))?;
        let named = self.signature.outputs.iter().zip(values);
        named
            .map(|(spec, value)| Ok((spec.name.clone(), elements::tensor(&spec.name, value, spec.datatype)?)))
            .collect()
    }

    /// Runs the rows one after the other: the file takes one.
    fn run_each(&self, inputs: &Tensors, rows: usize, cancelled: &dyn Fn() -> bool) -> Result<Tensors, Failure> {
        let calls = call::split(inputs, &vec![1; rows])?;
        let mut answers = Vec::with_capacity(rows);
        for call in &calls {
            if cancelled() {
                return Err(internal("nobody waits for the answer any more"));
            }
            answers.push(self.run(call)?);
        }
        call::join(&answers.iter().collect::<Vec<_>>())
    }

    fn nothing(&self) -> Result<Tensors, Failure> {
        let empty = |spec: &TensorSpec| {
            let mut shape: Vec<usize> = spec.shape.iter().map(|length| length.unwrap_or(0)).collect();
            if let Some(rows) = shape.first_mut() {
                *rows = 0;
            }
            let tensor = Tensor::new(spec.datatype, shape, bytes::Bytes::new());
            Ok((spec.name.clone(), tensor.map_err(|error| internal(error.to_string()))?))
        };
        self.signature.outputs.iter().map(empty).collect()
    }
}

impl Network for OnnxGraph {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    /// The elements of a row along the dimensions that the file leaves open.
    fn length(&self, inputs: &Tensors) -> u32 {
        let length = |spec: &TensorSpec| -> usize {
            let shape = inputs.get(&spec.name).map(Tensor::shape).unwrap_or_default();
            let open = shape.iter().zip(&spec.shape).skip(1).filter(|(_, declared)| declared.is_none());
            let mut open = open.map(|(length, _)| *length).peekable();
            if open.peek().is_some() { open.product() } else { 0 }
        };
        let longest = self.signature.inputs.iter().map(length).max().unwrap_or(0);
        u32::try_from(longest).unwrap_or(u32::MAX)
    }

    fn forward(
        &self,
        inputs: &Tensors,
        rows: usize,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Tensors, Failure> {
        match self.fixed_rows {
            _ if rows == 0 => self.nothing(),
            Some(_) if rows > 1 => self.run_each(inputs, rows, cancelled),
            _ => self.run(inputs),
        }
    }
}

/// Bytes of the file and of those beside it whose names begin with its own: weights that were too large for it.
fn size(file: &Path) -> u64 {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else { return 0 };
    let beside = fs::read_dir(folder).into_iter().flatten().flatten();
    let own = beside.filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
    own.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}
