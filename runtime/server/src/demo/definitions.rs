//! The definitions of the demo, as files that users can read and change, and their form for each embedding model.
//!
//! Used by the demo; `models fetch minilm` reads the model from here too.

use std::sync::Arc;

use motet_engine::definition::{Definition, ModelDefinition, Workflow, parse_definition_value, parse_definitions};
use serde_json::Value;

use crate::cli::failure::{CliError, CliResult};

const MODELS: &str = include_str!("../../demo/models.yaml");
const INDEX: &str = include_str!("../../demo/index.yaml");
const WORKFLOWS: &str = include_str!("../../demo/workflows.yaml");

/// The model that says what a question is about.
pub(crate) const CLASSIFIER: &str = "support-classifier";

/// A model that turns texts into vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embedder {
    /// all-MiniLM-L6-v2, fetched once.
    MiniLm,
    /// What the binary carries.
    Offline,
}

impl Embedder {
    /// The model's name.
    pub(crate) fn model(self) -> &'static str {
        match self {
            Self::MiniLm => "minilm",
            Self::Offline => "offline-embedder",
        }
    }

    /// The index of its vectors: vectors of different models cannot be compared.
    pub(crate) fn index(self) -> &'static str {
        match self {
            Self::MiniLm => "articles",
            Self::Offline => "articles-offline",
        }
    }

    /// The version of the workflows that call it.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::MiniLm => "1",
            Self::Offline => "1-offline",
        }
    }
}

fn read(file: &str, text: &str) -> CliResult<Vec<Definition>> {
    parse_definitions(file, text).map_err(|mistakes| broken(&mistakes))
}

fn broken(mistakes: &[motet_engine::definition::Diagnostic]) -> CliError {
    CliError::failed("the demo's own definitions have mistakes")
        .with_details(mistakes.iter().map(ToString::to_string).collect())
}

/// A model of the demo.
pub(crate) fn model(name: &str) -> CliResult<Arc<ModelDefinition>> {
    let found = read("models.yaml", MODELS)?.into_iter().find_map(|definition| match definition {
        Definition::Model(model) if model.name.as_str() == name => Some(model),
        _ => None,
    });
    found.ok_or_else(|| CliError::failed(format!("the demo has no model '{name}'")))
}

/// The index and the workflows for an embedding model that gives vectors of this length.
pub(crate) fn pipeline(embedder: Embedder, dimension: u64) -> CliResult<Vec<Definition>> {
    let mut definitions = read("index.yaml", INDEX)?;
    definitions.extend(read("workflows.yaml", WORKFLOWS)?);
    let adapted = definitions.iter().map(|definition| {
        let mut document = definition.document().clone();
        adapt(&mut document, embedder, dimension);
        parse_definition_value(&document).map_err(|mistakes| broken(&mistakes))
    });
    adapted.collect()
}

/// Workflows and steps of definitions, in the order in which they are declared.
pub(crate) fn steps(definitions: &[Definition]) -> Vec<(String, String)> {
    let workflows = definitions.iter().filter_map(|definition| match definition {
        Definition::Workflow(workflow) => Some(workflow),
        _ => None,
    });
    let steps = |workflow: &Arc<Workflow>| -> Vec<(String, String)> {
        workflow.steps.iter().map(|step| (workflow.name.to_string(), step.name.to_string())).collect()
    };
    workflows.flat_map(steps).collect()
}

fn adapt(document: &mut Value, embedder: Embedder, dimension: u64) {
    if document["kind"] == "Index" {
        document["name"] = embedder.index().into();
        document["dimension"] = dimension.into();
        return;
    }
    document["version"] = embedder.version().into();
    document["steps"]["embed"]["model"] = embedder.model().into();
    let steps = document["steps"].as_object_mut().into_iter().flat_map(|steps| steps.values_mut());
    for index in steps.filter_map(|step| step.get_mut("with")?.get_mut("index")) {
        *index = embedder.index().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_no_mistakes() {
        for (embedder, dimension) in [(Embedder::MiniLm, 384), (Embedder::Offline, 64)] {
            let pipeline = pipeline(embedder, dimension).unwrap();
            assert_eq!(pipeline.len(), 3);
            for definition in &pipeline {
                let text = definition.document().to_string();
                assert_eq!(text.contains("\"articles-offline\""), embedder == Embedder::Offline, "{text}");
                assert_eq!(text.contains("minilm"), embedder == Embedder::MiniLm && text.contains("Workflow"));
            }
            assert_eq!(model(embedder.model()).unwrap().backend, "burn");
        }
        assert_eq!(model(CLASSIFIER).unwrap().source.as_ref().unwrap().uri, "builtin:support-desk");
    }
}
