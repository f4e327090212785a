//! What the files beside the weights say about a BERT model: sizes, pooling, longest text.
//!
//! Never guesses: a setting that the network cannot honour is refused. Used by `bert`.

use std::path::Path;

use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::value::Value;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::weights::read;
use crate::failure::invalid;

/// `config.json`. Source of the names: the configuration that the Transformers library writes.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct BertConfig {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    pub(super) max_position_embeddings: usize,
    #[serde(default = "default_type_vocab_size")]
    pub(super) type_vocab_size: usize,
    #[serde(default = "default_layer_norm_eps")]
    pub(super) layer_norm_eps: f64,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

fn default_type_vocab_size() -> usize {
    2
}

fn default_layer_norm_eps() -> f64 {
    1e-12
}

impl BertConfig {
    /// Reads and checks `config.json`.
    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        let config: Self = json(folder, "config.json")?;
        if let Some(other) = config.hidden_act.as_deref().filter(|act| *act != "gelu") {
            return Err(invalid(format!("config.json asks for hidden_act '{other}'; only 'gelu' can be computed")));
        }
        if let Some(other) = config.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            return Err(invalid(format!("config.json asks for {other} positions; only 'absolute' can be computed")));
        }
        let sizes = [
            config.vocab_size,
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.intermediate_size,
            config.type_vocab_size,
        ];
        if sizes.contains(&0) || sizes.iter().any(|&size| size > 1 << 24) || config.max_position_embeddings < 3 {
            return Err(invalid("config.json has a size that no network can have"));
        }
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            return Err(invalid(format!(
                "config.json splits a hidden size of {} into {} heads, which leaves a rest",
                config.hidden_size, config.num_attention_heads
            )));
        }
        Ok(config)
    }
}

/// How the vectors of a text's tokens become one vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PoolingKind {
    /// The mean over all tokens.
    Mean,
    /// The vector of the first token.
    First,
    /// The largest value of every component.
    Max,
}

/// Pooling and what follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pooling {
    pub(super) kind: PoolingKind,
    /// Whether vectors are scaled to length 1.
    pub(super) normalize: bool,
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

#[derive(Deserialize)]
struct PoolingModes {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
}

impl Pooling {
    /// Follows `modules.json` where it is there; else `1_Pooling/config.json` and scaling to length 1; else the mean.
    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        let Some(modules) = optional_json::<Vec<Module>>(folder, "modules.json")? else {
            let kind = Self::kind(folder, "1_Pooling")?;
            return Ok(Self { kind, normalize: true });
        };
        let mut pooling = Self { kind: PoolingKind::Mean, normalize: false };
        for module in modules {
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => pooling.kind = Self::kind(folder, &module.path)?,
                "Normalize" => pooling.normalize = true,
                other => return Err(invalid(format!("modules.json names a module '{other}' that cannot be computed"))),
            }
        }
        Ok(pooling)
    }

    fn kind(folder: &Path, name: &str) -> Result<PoolingKind, Failure> {
        if name.contains("..") || Path::new(name).is_absolute() {
            return Err(invalid(format!("modules.json points out of the model's folder: '{name}'")));
        }
        let name = if name.is_empty() { "config.json".to_owned() } else { format!("{name}/config.json") };
        let Some(modes) = optional_json::<PoolingModes>(folder, &name)? else { return Ok(PoolingKind::Mean) };
        let chosen = [
            (modes.pooling_mode_mean_tokens, PoolingKind::Mean),
            (modes.pooling_mode_cls_token, PoolingKind::First),
            (modes.pooling_mode_max_tokens, PoolingKind::Max),
        ];
        let mut chosen = chosen.into_iter().filter(|(wanted, _)| *wanted).map(|(_, kind)| kind);
        match (chosen.next(), chosen.next(), modes.pooling_mode_mean_sqrt_len_tokens) {
            (Some(kind), None, false) => Ok(kind),
            _ => Err(invalid(format!("{name} must choose exactly one of mean, cls and max pooling"))),
        }
    }
}

#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

/// Tokens after which a text is cut: the definition's `max_length`, else what the folder says, else all positions.
pub(super) fn max_length(folder: &Path, config: &BertConfig, definition: &ModelDefinition) -> Result<usize, Failure> {
    let positions = config.max_position_embeddings;
    if let Some(wanted) = definition.parameters.get("max_length") {
        return match wanted {
            Value::Int(tokens) if (3..=positions as i64).contains(tokens) => Ok(*tokens as usize),
            _ => Err(invalid(format!("parameters.max_length must be a whole number from 3 to {positions}"))),
        };
    }
    let stated = optional_json::<SentenceConfig>(folder, "sentence_bert_config.json")?.and_then(|c| c.max_seq_length);
    Ok(stated.unwrap_or(positions).clamp(3, positions))
}

fn json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, Failure> {
    serde_json::from_slice(&read(folder, name)?).map_err(|error| invalid(format!("{name} is not as expected: {error}")))
}

fn optional_json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, Failure> {
    match json(folder, name) {
        Ok(content) => Ok(Some(content)),
        Err(failure) if failure.class == FailureClass::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}
