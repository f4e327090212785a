//! A small text classifier whose hidden layer is also an embedder: text in, a label or a vector out.
//!
//! Hashes text into features, sums the vectors of their buckets, and runs one hidden and one linear layer. Never keeps
//! text, never reads files after loading, and looks at no more than [`MAX_TEXT_BYTES`] bytes of a text. One trained
//! file, `support-desk`, is part of the program, so that real inference needs no download. Used by the registry in
//! `burn`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor as Array, TensorData, activation, f16};
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::tensor::{Datatype, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::features::{self, FeatureRow, MAX_TEXT_BYTES};
use super::texts::{longest, texts};
use crate::failure::{internal, invalid};
use crate::network::Network;
use crate::port::{ModelSignature, TensorSpec, Tensors};

/// Rows computed at once: bounds the dense matrix of weights to rows times buckets.
const PIECE_ROWS: usize = 64;

/// Most buckets, hidden values and labels that a description may ask for.
const LIMITS: (usize, usize, usize) = (1 << 20, 4096, 4096);

/// Name of the architecture in definitions and in `config.json`.
pub(super) const NAME: &str = "text-classifier";

/// Loads what a definition names: a model that the program carries (`builtin:NAME`) or a folder.
///
/// # Errors
/// `Invalid` for an unknown output or damaged files, `NotFound` for a model that the program does not carry.
pub(super) fn load(definition: &ModelDefinition, artefact: Option<PathBuf>) -> Result<Box<dyn Network>, Failure> {
    let output = match definition.parameters.get("output") {
        None => Output::default(),
        Some(value) => value.as_str().and_then(Output::from_name).ok_or_else(|| {
            invalid(format!("parameters.output must be 'labels' or 'vector', not {}", value.to_json()))
        })?,
    };
    if let Some(folder) = artefact {
        return Ok(Box::new(TextClassifier::from_folder(&folder, output)?));
    }
    let name = definition.source.as_ref().and_then(|source| source.uri.strip_prefix("builtin:")).unwrap_or_default();
    let (config, weights) = bundled(name).ok_or_else(|| {
        let words = format!("the program carries no model '{name}'; it carries 'support-desk'");
        Failure::new(FailureClass::NotFound, words)
    })?;
    Ok(Box::new(TextClassifier::from_bytes(config, weights, output)?))
}

/// What a copy of the classifier answers with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Output {
    /// `label` (BYTES), `score` (FP32) and `scores` (FP32, one per label).
    #[default]
    Labels,
    /// `vector` (FP32), of length 1.
    Vector,
}

impl Output {
    /// The output of a name under `parameters.output`: `labels` or `vector`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "labels" => Some(Self::Labels),
            "vector" => Some(Self::Vector),
            _ => None,
        }
    }
}

/// `config.json` of a trained folder.
#[derive(Deserialize)]
struct Config {
    features: u32,
    buckets: usize,
    hidden: usize,
    labels: Vec<String>,
}

/// A loaded classifier. All weights are 32-bit floats on the CPU.
pub struct TextClassifier {
    signature: ModelSignature,
    output: Output,
    config: Config,
    device: Device,
    embedding: Array<2>,
    hidden_bias: Array<2>,
    output_weight: Array<2>,
    output_bias: Array<2>,
}

impl TextClassifier {
    /// Reads a description and weights that the training program wrote.
    ///
    /// # Errors
    /// `Invalid` when the two are damaged, do not fit together, or belong to another recipe of features.
    pub fn from_bytes(config_json: &[u8], safetensors: &[u8], output: Output) -> Result<Self, Failure> {
        let config = Config::read(config_json)?;
        let file = SafeTensors::deserialize(safetensors)
            .map_err(|error| invalid(format!("the weights are no valid safetensors file: {error}")))?;
        let (hidden, labels) = (config.hidden, config.labels.len());
        let device = Device::flex();
        let matrix = |name: &str, shape: &[usize]| -> Result<Array<2>, Failure> {
            let columns = *shape.last().unwrap_or(&1);
            let elements = take(&file, name, shape)?;
            let rows = elements.len() / columns;
            Ok(Array::from_data(TensorData::new(elements, [rows, columns]), &device))
        };
        Ok(Self {
            embedding: matrix("embedding", &[config.buckets, hidden])?,
            hidden_bias: matrix("hidden.bias", &[hidden])?,
            output_weight: matrix("output.weight", &[hidden, labels])?,
            output_bias: matrix("output.bias", &[labels])?,
            signature: signature(&config, output),
            output,
            config,
            device,
        })
    }

    /// Reads `config.json` and `model.safetensors` of a folder.
    ///
    /// # Errors
    /// `NotFound` or `Internal` when a file cannot be read, else as [`Self::from_bytes`].
    pub fn from_folder(folder: &Path, output: Output) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| {
                let missing = error.kind() == std::io::ErrorKind::NotFound;
                let class = if missing { FailureClass::NotFound } else { FailureClass::Internal };
                Failure::new(class, format!("{} cannot be read: {error}", path.display()))
            })
        };
        Self::from_bytes(&read("config.json")?, &read("model.safetensors")?, output)
    }

    /// Vectors of length 1 and label scores of some texts, as `[rows, hidden]` and `[rows, labels]`.
    fn compute(&self, texts: &[&[u8]], first_row: usize) -> Result<(Vec<f32>, Vec<f32>), Failure> {
        let mut rows = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let text = readable(text, first_row + at)?;
            rows.push(FeatureRow::from_text(text, self.config.buckets as u32));
        }
        let mut used: Vec<u32> = rows.iter().flat_map(|row| row.buckets.iter().copied()).collect();
        used.sort_unstable();
        used.dedup();
        let mut hidden = self.hidden_bias.clone().repeat_dim(0, rows.len());
        if !used.is_empty() {
            // Only the buckets that the batch fills take part, so the cost follows the texts and not the table.
            let mut dense = vec![0.0f32; rows.len() * used.len()];
            for (row, line) in rows.iter().zip(dense.chunks_exact_mut(used.len())) {
                for (bucket, &weight) in row.buckets.iter().zip(&row.weights) {
                    if let Ok(column) = used.binary_search(bucket) {
                        line[column] = weight;
                    }
                }
            }
            let count = used.len();
            let indices: Vec<i64> = used.into_iter().map(i64::from).collect();
            let indices = Array::<1, Int>::from_data(TensorData::new(indices, [count]), &self.device);
            let dense = Array::<2>::from_data(TensorData::new(dense, [rows.len(), count]), &self.device);
            hidden = hidden + dense.matmul(self.embedding.clone().select(0, indices));
        }
        let hidden = hidden.tanh();
        let length = hidden.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-6);
        let vectors = hidden.div(length);
        let scores = vectors.clone().matmul(self.output_weight.clone()) + self.output_bias.clone();
        let scores = if self.output == Output::Labels { elements(activation::softmax(scores, 1))? } else { Vec::new() };
        Ok((elements(vectors)?, scores))
    }
}

impl Network for TextClassifier {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    /// Bytes of the longest text, as far as they are looked at.
    fn length(&self, inputs: &Tensors) -> u32 {
        longest(inputs, |text| text.len().min(MAX_TEXT_BYTES))
    }

    fn forward(
        &self,
        inputs: &Tensors,
        rows: usize,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Tensors, Failure> {
        let texts = texts(inputs, rows)?;
        let (mut vectors, mut scores) = (Vec::new(), Vec::new());
        for (piece, texts) in texts.chunks(PIECE_ROWS).enumerate() {
            if cancelled() {
                return Err(Failure::new(FailureClass::Unavailable, "the call was given up"));
            }
            let (piece_vectors, piece_scores) = self.compute(texts, piece * PIECE_ROWS)?;
            vectors.extend(piece_vectors);
            scores.extend(piece_scores);
        }
        let floats =
            |shape, elements: &[f32]| Tensor::from_f32(shape, elements).map_err(|error| internal(error.to_string()));
        if self.output == Output::Vector {
            return Ok(Tensors::from([("vector".to_owned(), floats(vec![rows, self.config.hidden], &vectors)?)]));
        }
        let labels = &self.config.labels;
        let best: Vec<(usize, f32)> = scores.chunks_exact(labels.len()).map(best).collect();
        let names: Vec<&str> = best.iter().map(|&(label, _)| labels[label].as_str()).collect();
        let highest: Vec<f32> = best.iter().map(|&(_, score)| score).collect();
        Ok(Tensors::from([
            ("label".to_owned(), Tensor::from_strings(&names)),
            ("score".to_owned(), floats(vec![rows], &highest)?),
            ("scores".to_owned(), floats(vec![rows, labels.len()], &scores)?),
        ]))
    }
}

impl Config {
    fn read(json: &[u8]) -> Result<Self, Failure> {
        let config: Self = serde_json::from_slice(json)
            .map_err(|error| invalid(format!("config.json does not describe a text classifier: {error}")))?;
        if config.features != features::VERSION {
            let (found, known) = (config.features, features::VERSION);
            return Err(invalid(format!("the model was trained with features {found}, this program has {known}")));
        }
        let sizes = [
            ("buckets", config.buckets, LIMITS.0),
            ("hidden", config.hidden, LIMITS.1),
            ("labels", config.labels.len(), LIMITS.2),
        ];
        match sizes.into_iter().find(|&(_, size, limit)| size == 0 || size > limit) {
            Some((name, size, limit)) => Err(invalid(format!("config.json: {name} is {size}, not 1 to {limit}"))),
            None => Ok(config),
        }
    }
}

/// `config.json` and `model.safetensors` of a model that the program carries, for sources `builtin:NAME`.
#[must_use]
pub fn bundled(name: &str) -> Option<(&'static [u8], &'static [u8])> {
    (name == "support-desk").then_some((
        include_bytes!("../../bundled/support-desk/config.json").as_slice(),
        include_bytes!("../../bundled/support-desk/model.safetensors").as_slice(),
    ))
}

/// The text of a row as far as it is looked at. What lies behind the cut is not checked either.
fn readable(text: &[u8], row: usize) -> Result<&str, Failure> {
    let seen = &text[..text.len().min(MAX_TEXT_BYTES)];
    match std::str::from_utf8(seen) {
        Ok(text) => Ok(text),
        // The cut may have gone through the middle of the last character.
        Err(error) if error.error_len().is_none() && seen.len() < text.len() => {
            std::str::from_utf8(&seen[..error.valid_up_to()]).map_err(|error| internal(error.to_string()))
        }
        Err(_) => Err(invalid(format!("row {row} of the input 'text' is not UTF-8"))),
    }
}

/// The largest score and its place; the first one of equals.
fn best(scores: &[f32]) -> (usize, f32) {
    scores
        .iter()
        .copied()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best })
}

/// The finite elements of a tensor that must have this shape.
fn take(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, Failure> {
    let view = file.tensor(name).map_err(|_| invalid(format!("the weights lack the tensor '{name}' of {shape:?}")))?;
    if view.shape() != shape {
        return Err(invalid(format!("the tensor '{name}' has the shape {:?}, not {shape:?}", view.shape())));
    }
    let bytes = view.data();
    let elements: Vec<f32> = match view.dtype() {
        Dtype::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        other => return Err(invalid(format!("the tensor '{name}' has the type {other:?}; F16 and F32 can be read"))),
    };
    if elements.iter().any(|element| !element.is_finite()) {
        return Err(invalid(format!("the tensor '{name}' holds numbers that are not finite")));
    }
    Ok(elements)
}

fn elements(array: Array<2>) -> Result<Vec<f32>, Failure> {
    array.into_data().try_to_vec::<f32>().map_err(|error| internal(format!("the network gave no floats: {error:?}")))
}

fn signature(config: &Config, output: Output) -> ModelSignature {
    let spec = |name: &str, datatype, shape| TensorSpec { name: name.to_owned(), datatype, shape, optional: false };
    let (hidden, labels) = (config.hidden, config.labels.len());
    let outputs = match output {
        Output::Vector => vec![spec("vector", Datatype::Fp32, vec![None, Some(hidden)])],
        Output::Labels => vec![
            spec("label", Datatype::Bytes, vec![None]),
            spec("score", Datatype::Fp32, vec![None]),
            spec("scores", Datatype::Fp32, vec![None, Some(labels)]),
        ],
    };
    let mut facts = BTreeMap::from([
        ("architecture".to_owned(), "text-classifier".into()),
        ("buckets".to_owned(), config.buckets.into()),
        ("max_bytes".to_owned(), MAX_TEXT_BYTES.into()),
    ]);
    match output {
        Output::Vector => {
            facts.insert("dimension".to_owned(), hidden.into());
            facts.insert("normalized".to_owned(), true.into());
        }
        Output::Labels => {
            facts.insert("labels".to_owned(), config.labels.clone().into());
        }
    }
    let memory_bytes = 4 * (config.buckets * hidden + hidden * labels + hidden + labels) as u64;
    ModelSignature { inputs: vec![spec("text", Datatype::Bytes, vec![None])], outputs, memory_bytes, facts }
}

#[cfg(test)]
mod tests;
