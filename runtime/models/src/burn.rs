//! The backend `burn`: networks written in Rust, weights read at run time, computed on the CPU.
//!
//! Never computes on the async executor: every loaded copy has a thread and a pool of its own. Used by the server.

mod bert;
pub mod features;
mod gelu;
pub mod text_classifier;
mod texts;
mod weights;

use std::path::PathBuf;

use async_trait::async_trait;
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::value::Value;

use crate::failure::{internal, invalid};
use crate::network::Network;
use crate::parameters;
use crate::port::{LoadedModel, ModelBackend};
use crate::replica::ThreadReplica;
use crate::source::needs_fetch;
use crate::suggestion::suggestion;

/// Name of the backend in definitions.
const NAME: &str = "burn";

/// Parameters that every architecture understands.
const COMMON_PARAMETERS: [&str; 2] = ["architecture", "threads"];

/// Reads an architecture's weights. Called on a thread that may block.
type Load = fn(&ModelDefinition, Option<PathBuf>) -> Result<Box<dyn Network>, Failure>;

/// One family of networks.
struct Entry {
    /// Value of `parameters.architecture`, or of `model_type` in the artefact's `config.json`.
    name: &'static str,
    /// Parameters that it understands beside the common ones.
    parameters: &'static [&'static str],
    load: Load,
}

/// Every architecture by name. What is not named here cannot be loaded.
const ARCHITECTURES: &[Entry] = &[
    Entry { name: "bert", parameters: &["max_length"], load: bert::load },
    Entry { name: text_classifier::NAME, parameters: &["output"], load: text_classifier::load },
];

/// Runs networks that are written in Rust on burn's CPU device.
#[derive(Clone, Copy, Debug, Default)]
pub struct BurnBackend {
    threads: usize,
}

impl BurnBackend {
    /// A backend; it holds nothing until a model is loaded. A copy whose definition names no `threads` computes on
    /// this many; on as many as there are processors when it is 0.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads }
    }
}

#[async_trait]
impl ModelBackend for BurnBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, definition: &ModelDefinition) -> Result<(), Failure> {
        parameters::threads(definition, self.threads)?;
        let entry = match definition.parameters.get("architecture") {
            None => None,
            Some(Value::String(name)) => Some(entry(name)?),
            Some(other) => {
                return Err(invalid(format!("parameters.architecture must be a string, not {}", other.kind())));
            }
        };
        let candidates =
            ARCHITECTURES.iter().filter(|candidate| entry.is_none_or(|entry| entry.name == candidate.name));
        let known: Vec<&str> = COMMON_PARAMETERS
            .into_iter()
            .chain(candidates.flat_map(|candidate| candidate.parameters.iter().copied()))
            .collect();
        parameters::check_known(definition, NAME, &known)
    }

    async fn load(
        &self,
        definition: &ModelDefinition,
        artefact: Option<PathBuf>,
    ) -> Result<Box<dyn LoadedModel>, Failure> {
        self.check(definition)?;
        let threads = parameters::threads(definition, self.threads)?;
        let definition = definition.clone();
        let name = definition.name.to_string();
        // Weights of hundreds of megabytes are read and transposed: not on the executor.
        let loaded = tokio::task::spawn_blocking(move || {
            let entry = entry(&architecture_name(&definition, artefact.as_deref())?)?;
            (entry.load)(&definition, artefact)
        });
        let network = loaded.await.map_err(|error| internal(format!("loading the model {name} failed: {error}")))??;
        Ok(Box::new(ThreadReplica::start(NAME, &name, network, Some(threads))?))
    }
}

/// The registered architecture of a name.
fn entry(name: &str) -> Result<&'static Entry, Failure> {
    ARCHITECTURES.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let hint = suggestion(name, ARCHITECTURES.iter().map(|entry| entry.name));
        let known: Vec<_> = ARCHITECTURES.iter().map(|entry| entry.name).collect();
        invalid(format!(
            "the backend burn does not know the architecture '{name}'{hint}; it knows: {}",
            known.join(", ")
        ))
    })
}

/// What the definition says, else what the artefact says about itself.
fn architecture_name(definition: &ModelDefinition, artefact: Option<&std::path::Path>) -> Result<String, Failure> {
    if let Some(name) = definition.parameters.get("architecture").and_then(Value::as_str) {
        return Ok(name.to_owned());
    }
    if definition.source.as_ref().is_some_and(|source| !needs_fetch(source)) {
        // Everything that the program carries is a text classifier.
        return Ok(text_classifier::NAME.to_owned());
    }
    let Some(folder) = artefact else {
        return Err(invalid("a model of the backend burn needs a source or parameters.architecture"));
    };
    let path = folder.join("config.json");
    let text = std::fs::read(&path).map_err(|error| {
        let class = match error.kind() {
            std::io::ErrorKind::NotFound => FailureClass::NotFound,
            _ => FailureClass::Internal,
        };
        Failure::new(
            class,
            format!("{} cannot be read ({error}) and there is no parameters.architecture", path.display()),
        )
    })?;
    let config: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| invalid(format!("{} is no JSON: {error}", path.display())))?;
    config["model_type"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| invalid(format!("{} has no model_type; name parameters.architecture", path.display())))
}

#[cfg(test)]
mod tests;
