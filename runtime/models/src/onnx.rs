//! The backend `onnx`: ONNX files, read at run time and computed on the CPU by rten.
//!
//! Never runs a file whose inputs have no dimension for rows, and never computes on the async executor. Used by the
//! server.

mod declaration;
mod elements;
mod graph;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::Failure;

use self::graph::OnnxGraph;
use crate::failure::{internal, invalid};
use crate::parameters;
use crate::port::{LoadedModel, ModelBackend};
use crate::replica::ThreadReplica;

/// Name of the backend in definitions.
const NAME: &str = "onnx";

/// Parameters that it understands.
const PARAMETERS: [&str; 2] = ["file", "threads"];

/// Runs ONNX files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnnxBackend {
    threads: usize,
}

impl OnnxBackend {
    /// A backend; it holds nothing until a model is loaded. A copy whose definition names no `threads` computes on
    /// this many; on as many as there are processors when it is 0.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads }
    }
}

#[async_trait]
impl ModelBackend for OnnxBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, definition: &ModelDefinition) -> Result<(), Failure> {
        parameters::check_known(definition, NAME, &PARAMETERS)?;
        parameters::threads(definition, self.threads)?;
        if let Some(file) = parameters::text(definition, "file")?
            && (Path::new(file).is_absolute() || file.split('/').any(|part| part == ".."))
        {
            return Err(invalid("parameters.file must be a path within the source, without '..'"));
        }
        if definition.source.is_none() {
            return Err(invalid("a model of the backend onnx needs a source that holds an .onnx file"));
        }
        Ok(())
    }

    async fn load(
        &self,
        definition: &ModelDefinition,
        artefact: Option<PathBuf>,
    ) -> Result<Box<dyn LoadedModel>, Failure> {
        self.check(definition)?;
        let threads = parameters::threads(definition, self.threads)?;
        let folder = artefact.ok_or_else(|| invalid("a model of the backend onnx needs a source"))?;
        let named = parameters::text(definition, "file")?.map(str::to_owned);
        let name = definition.name.to_string();
        // Files of hundreds of megabytes are read and rearranged: not on the executor.
        let loaded = tokio::task::spawn_blocking(move || OnnxGraph::load(&file(&folder, named)?, threads));
        let graph = loaded.await.map_err(|error| internal(format!("loading the model {name} failed: {error}")))??;
        // rten brings its own threads.
        Ok(Box::new(ThreadReplica::start(NAME, &name, Box::new(graph), None)?))
    }
}

/// The file that is named, else the only one of its kind, else `model.onnx`.
fn file(folder: &Path, named: Option<String>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(folder.join(named));
    }
    let entries = std::fs::read_dir(folder)
        .map_err(|error| invalid(format!("the source {} cannot be read: {error}", folder.display())))?;
    let mut files: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")))
        .collect();
    files.sort();
    match &*files {
        [only] => Ok(folder.join(only)),
        [] => Err(invalid(format!("the source {} holds no .onnx file", folder.display()))),
        several if several.iter().any(|name| name == "model.onnx") => Ok(folder.join("model.onnx")),
        several => Err(invalid(format!("the source holds {}; name one in parameters.file", several.join(", ")))),
    }
}
