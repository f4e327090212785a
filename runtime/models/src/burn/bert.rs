//! Sentence embeddings with BERT: text in, one vector per text out.
//!
//! Tokenizes, cuts, spreads the batch over the copy's threads, pools and scales. Never keeps text. Used by the
//! registry in `burn`.

mod config;
mod network;

use std::collections::BTreeMap;
use std::path::PathBuf;

use motet_engine::definition::ModelDefinition;
use motet_engine::failure::Failure;
use motet_engine::tensor::{Datatype, Tensor};
use rayon::prelude::*;
use tokenizers::{Tokenizer, TruncationParams};

use self::config::{BertConfig, Pooling, PoolingKind};
use self::network::BertNetwork;
use super::texts::{longest, texts};
use super::weights::read;
use crate::failure::{internal, invalid};
use crate::network::Network;
use crate::port::{ModelSignature, TensorSpec, Tensors};

/// Most tokens, padding included, that one thread computes at once: the activations then stay in its cache.
const PIECE_TOKENS: usize = 512;

/// Fewest tokens worth a piece of their own while other threads are idle.
const SMALLEST_PIECE_TOKENS: usize = 16;

/// A loaded embedding model.
struct Bert {
    signature: ModelSignature,
    tokenizer: Tokenizer,
    network: BertNetwork,
    pooling: Pooling,
    hidden: usize,
}

/// Reads `config.json`, `tokenizer.json`, `model.safetensors` and, where they are there, `modules.json`,
/// `1_Pooling/config.json` and `sentence_bert_config.json`.
pub(super) fn load(definition: &ModelDefinition, artefact: Option<PathBuf>) -> Result<Box<dyn Network>, Failure> {
    let folder = artefact.ok_or_else(|| invalid("the architecture 'bert' needs a source"))?;
    let config = BertConfig::read(&folder)?;
    let pooling = Pooling::read(&folder)?;
    let max_length = config::max_length(&folder, &config, definition)?;
    let tokenizer = tokenizer(&read(&folder, "tokenizer.json")?, max_length)?;
    let weights = read(&folder, "model.safetensors")?;
    let network = BertNetwork::read(&weights, &config)?;
    let signature = signature(&config, pooling, max_length, weights.len());
    Ok(Box::new(Bert { signature, tokenizer, network, pooling, hidden: config.hidden_size }))
}

fn tokenizer(bytes: &[u8], max_length: usize) -> Result<Tokenizer, Failure> {
    let mut tokenizer =
        Tokenizer::from_bytes(bytes).map_err(|error| invalid(format!("tokenizer.json cannot be used: {error}")))?;
    // The file's own cutting and padding are settings of whoever exported it; padding is done per piece here.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(Some(TruncationParams { max_length, ..TruncationParams::default() }))
        .map_err(|error| invalid(format!("tokenizer.json cannot be cut at {max_length} tokens: {error}")))?;
    Ok(tokenizer)
}

fn signature(config: &BertConfig, pooling: Pooling, max_length: usize, weight_bytes: usize) -> ModelSignature {
    let spec = |name: &str, datatype, shape| TensorSpec { name: name.to_owned(), datatype, shape, optional: false };
    let pooling_name = match pooling.kind {
        PoolingKind::Mean => "mean",
        PoolingKind::First => "cls",
        PoolingKind::Max => "max",
    };
    ModelSignature {
        inputs: vec![spec("text", Datatype::Bytes, vec![None])],
        outputs: vec![spec("vector", Datatype::Fp32, vec![None, Some(config.hidden_size)])],
        memory_bytes: weight_bytes as u64,
        facts: BTreeMap::from([
            ("architecture".to_owned(), "bert".into()),
            ("dimension".to_owned(), config.hidden_size.into()),
            ("layers".to_owned(), config.num_hidden_layers.into()),
            ("heads".to_owned(), config.num_attention_heads.into()),
            ("vocabulary".to_owned(), config.vocab_size.into()),
            ("max_length".to_owned(), max_length.into()),
            ("pooling".to_owned(), pooling_name.into()),
            ("normalized".to_owned(), pooling.normalize.into()),
        ]),
    }
}

impl Network for Bert {
    fn signature(&self) -> &ModelSignature {
        &self.signature
    }

    fn length(&self, inputs: &Tensors) -> u32 {
        longest(inputs, |text| self.tokenize(text).map_or(0, |tokens| tokens.len()))
    }

    fn forward(
        &self,
        inputs: &Tensors,
        rows: usize,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Tensors, Failure> {
        let texts = texts(inputs, rows)?;
        let tokens = texts.par_iter().map(|text| self.tokenize(text)).collect::<Result<Vec<_>, _>>()?;
        let threads = rayon::current_num_threads();
        let pieces = pieces(&tokens, threads);
        // With fewer pieces than threads, the threads without a piece help with the products of the others.
        let lanes = threads / pieces.len().max(1);
        let vectors = pieces
            .par_iter()
            .map(|piece| {
                let tokens: Vec<&[u32]> = piece.iter().map(|&row| &*tokens[row]).collect();
                Ok(self.pool(&self.network.forward(&tokens, lanes, cancelled)?, &tokens))
            })
            .collect::<Result<Vec<Vec<f32>>, Failure>>()?;
        let mut output = vec![0.0; rows * self.hidden];
        for (piece, vectors) in pieces.iter().zip(&vectors) {
            for (&row, vector) in piece.iter().zip(vectors.chunks_exact(self.hidden)) {
                output[row * self.hidden..][..self.hidden].copy_from_slice(vector);
            }
        }
        let vector = Tensor::from_f32(vec![rows, self.hidden], &output).map_err(|error| internal(error.to_string()))?;
        Ok(Tensors::from([("vector".to_owned(), vector)]))
    }
}

impl Bert {
    fn tokenize(&self, text: &[u8]) -> Result<Vec<u32>, Failure> {
        let text = std::str::from_utf8(text).map_err(|_| invalid("the input 'text' is not UTF-8"))?;
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| invalid(format!("the input 'text' cannot be tokenized: {error}")))?;
        if encoding.get_ids().is_empty() {
            // A tokenizer without special tokens gives nothing for an empty text; token 0 is the padding.
            return Ok(vec![0]);
        }
        Ok(encoding.get_ids().to_vec())
    }

    /// One vector per row out of the vectors of its tokens; padding does not count.
    fn pool(&self, states: &[f32], tokens: &[&[u32]]) -> Vec<f32> {
        let length = tokens.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut pooled = Vec::with_capacity(tokens.len() * self.hidden);
        for (row, states) in tokens.iter().zip(states.chunks_exact((length * self.hidden).max(1))) {
            let mut own = states.chunks_exact(self.hidden).take(row.len());
            let mut vector = own.next().map(<[f32]>::to_vec).unwrap_or_default();
            match self.pooling.kind {
                PoolingKind::First => {}
                PoolingKind::Mean => {
                    own.for_each(|state| vector.iter_mut().zip(state).for_each(|(sum, element)| *sum += element));
                    vector.iter_mut().for_each(|sum| *sum /= row.len() as f32);
                }
                PoolingKind::Max => {
                    own.for_each(|state| {
                        vector.iter_mut().zip(state).for_each(|(most, &element)| *most = most.max(element))
                    });
                }
            }
            if self.pooling.normalize {
                let norm = vector.iter().map(|element| element * element).sum::<f32>().sqrt().max(1e-12);
                vector.iter_mut().for_each(|element| *element /= norm);
            }
            pooled.extend(vector);
        }
        pooled
    }
}

/// Groups of rows of like length, so that little is padded and every thread has work.
fn pieces(tokens: &[Vec<u32>], threads: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(tokens[row].len()));
    let all: usize = tokens.iter().map(Vec::len).sum();
    let budget = all.div_ceil(threads.max(1)).clamp(SMALLEST_PIECE_TOKENS, PIECE_TOKENS);
    let mut pieces: Vec<Vec<usize>> = Vec::new();
    for row in order {
        match pieces.last_mut() {
            // The first row of a piece is its longest: all others are padded to it.
            Some(piece) if (piece.len() + 1) * tokens[piece[0]].len() <= budget => piece.push(row),
            _ => pieces.push(vec![row]),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_hold_every_row_once_and_fill_the_threads() {
        for (lengths, threads, expected) in [
            (vec![32; 32], 2, vec![16, 16]),
            (vec![32; 8], 2, vec![4, 4]),
            (vec![3], 4, vec![1]),
            (vec![], 2, vec![]),
            (vec![256, 4, 4, 4], 2, vec![1, 3]),
            (vec![1000, 1000], 1, vec![1, 1]),
        ] {
            let tokens: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![0; length]).collect();
            let pieces = pieces(&tokens, threads);
            assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{lengths:?} on {threads}");
            let mut rows = pieces.concat();
            rows.sort_unstable();
            assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
