//! The layers of BERT: embeddings, attention, feed-forward, all products two-dimensional.
//!
//! Never sees text and never pools. burn's products run on one thread as it is built here: the caller gives every
//! thread a piece of the batch, or tells how many threads (`lanes`) share the products of a single piece. Source:
//! Devlin et al. 2018, with the tensor names that the Transformers library writes. Used by `bert`.

use burn::tensor::module::{attention, layer_norm, linear};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use motet_engine::failure::Failure;
use rayon::prelude::*;

use super::super::gelu::gelu;
use super::super::weights::{Weights, transposed};
use super::config::BertConfig;
use crate::failure::{internal, invalid, unavailable};

/// Multiplications below which a product is not worth sharing among threads.
const SMALLEST_SPLIT_PRODUCT: usize = 1 << 20;

/// A product with a bias. The weight is [input, output].
struct Linear {
    weight: Tensor<2>,
    bias: Tensor<1>,
}

impl Linear {
    /// Several layers of one input side by side, so that one product computes them all.
    fn joined(
        weights: &mut Weights<'_>,
        names: &[String],
        input: usize,
        output: usize,
        device: &Device,
    ) -> Result<Self, Failure> {
        let mut rows = Vec::with_capacity(names.len() * input * output);
        let mut bias = Vec::with_capacity(names.len() * output);
        for name in names {
            rows.extend(weights.take(&format!("{name}.weight"), &[output, input])?);
            bias.extend(weights.take(&format!("{name}.bias"), &[output])?);
        }
        let outputs = names.len() * output;
        let weight = TensorData::new(transposed(&rows, outputs, input), [input, outputs]);
        Ok(Self {
            weight: Tensor::from_data(weight, device),
            bias: Tensor::from_data(TensorData::new(bias, [outputs]), device),
        })
    }

    fn read(
        weights: &mut Weights<'_>,
        name: String,
        input: usize,
        output: usize,
        device: &Device,
    ) -> Result<Self, Failure> {
        Self::joined(weights, &[name], input, output, device)
    }

    fn forward(&self, input: Tensor<2>, lanes: usize) -> Tensor<2> {
        let [input_size, output_size] = self.weight.dims();
        if lanes <= 1 || input.dims()[0] * input_size * output_size < SMALLEST_SPLIT_PRODUCT {
            return linear(input, self.weight.clone(), Some(self.bias.clone()));
        }
        split_product(&input, &self.weight, lanes) + self.bias.clone().unsqueeze::<2>()
    }
}

/// The product, with the columns of the result shared among `lanes` threads of the current pool.
fn split_product(input: &Tensor<2>, weight: &Tensor<2>, lanes: usize) -> Tensor<2> {
    let columns = weight.dims()[1];
    let width = columns.div_ceil(lanes).max(1);
    let starts: Vec<usize> = (0..columns).step_by(width).collect();
    let parts: Vec<Tensor<2>> = starts
        .into_par_iter()
        .map(|start| input.clone().matmul(weight.clone().slice_dim(1, start..columns.min(start + width))))
        .collect();
    Tensor::cat(parts, 1)
}

/// Scaling of every row to mean 0 and variance 1, then by learned factors.
struct Norm {
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
}

impl Norm {
    fn read(weights: &mut Weights<'_>, name: &str, config: &BertConfig, device: &Device) -> Result<Self, Failure> {
        let size = config.hidden_size;
        let mut vector = |part: &str| -> Result<Tensor<1>, Failure> {
            let elements = weights.take(&format!("{name}.{part}"), &[size])?;
            Ok(Tensor::from_data(TensorData::new(elements, [size]), device))
        };
        Ok(Self { gamma: vector("weight")?, beta: vector("bias")?, epsilon: config.layer_norm_eps })
    }

    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        layer_norm(input, self.gamma.clone(), Some(self.beta.clone()), self.epsilon)
    }
}

struct Layer {
    query_key_value: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
}

impl Layer {
    fn read(weights: &mut Weights<'_>, index: usize, config: &BertConfig, device: &Device) -> Result<Self, Failure> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let at = |part: &str| format!("encoder.layer.{index}.{part}");
        let joined = ["query", "key", "value"].map(|part| at(&format!("attention.self.{part}")));
        Ok(Self {
            query_key_value: Linear::joined(weights, &joined, hidden, hidden, device)?,
            attention_output: Linear::read(weights, at("attention.output.dense"), hidden, hidden, device)?,
            attention_norm: Norm::read(weights, &at("attention.output.LayerNorm"), config, device)?,
            intermediate: Linear::read(weights, at("intermediate.dense"), hidden, inner, device)?,
            output: Linear::read(weights, at("output.dense"), inner, hidden, device)?,
            output_norm: Norm::read(weights, &at("output.LayerNorm"), config, device)?,
        })
    }

    /// One layer over [rows · length, hidden].
    fn forward(&self, input: Tensor<2>, shape: &Shape, mask: Option<&Tensor<4, Bool>>) -> Result<Tensor<2>, Failure> {
        let Shape { rows, length, heads, head, lanes } = *shape;
        // [rows, length, 3, heads, head] -> [3, rows, heads, length, head]
        let joined: Tensor<5> = self
            .query_key_value
            .forward(input.clone(), lanes)
            .reshape([rows, length, 3, heads, head])
            .permute([2, 0, 3, 1, 4]);
        let part = |index: usize| joined.clone().slice_dim(0, index..index + 1).squeeze_dim::<4>(0);
        let options = AttentionModuleOptions::default();
        let context = attention(part(0), part(1), part(2), mask.cloned(), None, options);
        let context = context.permute([0, 2, 1, 3]).reshape([rows * length, heads * head]);
        let attended = self.attention_norm.forward(self.attention_output.forward(context, lanes) + input);
        let inner = gelu(self.intermediate.forward(attended.clone(), lanes))?;
        Ok(self.output_norm.forward(self.output.forward(inner, lanes) + attended))
    }
}

/// Sizes of one forward pass.
struct Shape {
    rows: usize,
    length: usize,
    heads: usize,
    head: usize,
    /// Threads that share a product.
    lanes: usize,
}

/// The network with its weights.
pub(super) struct BertNetwork {
    words: Tensor<2>,
    /// Position embeddings with the embedding of token type 0 added: a single text has no other type.
    positions: Tensor<2>,
    norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
    hidden: usize,
    device: Device,
}

impl BertNetwork {
    /// Takes every tensor that the architecture has out of the file, and refuses a file with others.
    pub(super) fn read(bytes: &[u8], config: &BertConfig) -> Result<Self, Failure> {
        let device = Device::flex();
        let mut weights = Weights::new(bytes)?;
        weights.enter("bert.");
        let hidden = config.hidden_size;
        let words = weights.take("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])?;
        let mut positions =
            weights.take("embeddings.position_embeddings.weight", &[config.max_position_embeddings, hidden])?;
        let types = weights.take("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, hidden])?;
        for position in positions.chunks_exact_mut(hidden) {
            position.iter_mut().zip(&types).for_each(|(element, of_type)| *element += of_type);
        }
        let norm = Norm::read(&mut weights, "embeddings.LayerNorm", config, &device)?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::read(&mut weights, index, config, &device))
            .collect::<Result<_, _>>()?;
        // The pooler serves classification of pairs; sentence vectors do not use it.
        weights.finish(&["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"])?;
        Ok(Self {
            words: Tensor::from_data(TensorData::new(words, [config.vocab_size, hidden]), &device),
            positions: Tensor::from_data(TensorData::new(positions, [config.max_position_embeddings, hidden]), &device),
            norm,
            layers,
            heads: config.num_attention_heads,
            hidden,
            device,
        })
    }

    /// The last layer's vectors, [rows, length, hidden] in row-major order. Every row of `tokens` is one text; shorter
    /// ones are padded to the longest and the padding is masked out of the attention.
    pub(super) fn forward(
        &self,
        tokens: &[&[u32]],
        lanes: usize,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<f32>, Failure> {
        let length = tokens.iter().map(|row| row.len()).max().unwrap_or(0);
        let shape = Shape { rows: tokens.len(), length, heads: self.heads, head: self.hidden / self.heads, lanes };
        let mut x = self.embed(tokens, length)?;
        let mask = self.mask(tokens, length);
        for layer in &self.layers {
            if cancelled() {
                return Err(unavailable("the batch was abandoned: nobody waits for its answer"));
            }
            x = layer.forward(x, &shape, mask.as_ref())?;
        }
        x.into_data().try_into_vec::<f32>().map_err(|error| internal(format!("the network gave no floats: {error:?}")))
    }

    fn embed(&self, tokens: &[&[u32]], length: usize) -> Result<Tensor<2>, Failure> {
        let [vocabulary, _] = self.words.dims();
        let mut ids = Vec::with_capacity(tokens.len() * length);
        for row in tokens {
            if let Some(id) = row.iter().find(|&&id| id as usize >= vocabulary) {
                return Err(invalid(format!(
                    "the tokenizer gives token {id}, but the vocabulary ends at {vocabulary}"
                )));
            }
            ids.extend(row.iter().map(|&id| i64::from(id)));
            ids.resize(ids.len() + length - row.len(), 0);
        }
        let count = ids.len();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &self.device);
        let words = self.words.clone().select(0, ids).reshape([tokens.len(), length, self.hidden]);
        let positions = self.positions.clone().slice_dim(0, 0..length).unsqueeze::<3>();
        Ok(self.norm.forward((words + positions).reshape([count, self.hidden])))
    }

    /// True where a key is padding; none when all rows are equally long.
    fn mask(&self, tokens: &[&[u32]], length: usize) -> Option<Tensor<4, Bool>> {
        if tokens.iter().all(|row| row.len() == length) {
            return None;
        }
        let mut padded = Vec::with_capacity(tokens.len() * length * length);
        for row in tokens {
            for _ in 0..length {
                padded.extend((0..length).map(|key| key >= row.len()));
            }
        }
        Some(Tensor::from_data(TensorData::new(padded, [tokens.len(), 1, length, length]), &self.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_product_is_the_product() {
        let device = Device::flex();
        let matrix = |rows: usize, columns: usize| {
            let elements: Vec<f32> = (0..rows * columns).map(|n| (n % 7) as f32 - 3.0).collect();
            Tensor::<2>::from_data(TensorData::new(elements, [rows, columns]), &device)
        };
        let (input, weight) = (matrix(3, 5), matrix(5, 8));
        let whole = input.clone().matmul(weight.clone()).into_data();
        for lanes in [1, 2, 3, 8, 20] {
            assert_eq!(split_product(&input, &weight, lanes).into_data(), whole, "{lanes} lanes");
        }
    }
}
