//! What the backends of this room share: what they need of their node, and what a definition lets a process have.
//!
//! Used by `tensorflow` and `python`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use motet_engine::definition::{Isolation, ModelDefinition};
use motet_engine::failure::Failure;
use motet_engine::value::Value;
use tempfile::TempDir;

use super::keeper::Plan;
use super::wire::{Engine, Rules, Start};
use crate::failure::invalid;
use crate::source::ArtefactCache;

/// Resident bytes that a process may have when its definition does not say.
const MEMORY: u64 = 4 << 30;

/// The least that a definition may say, so that the engine itself fits.
const LEAST_MEMORY: i64 = 64 << 20;

/// Address space beyond the resident bytes: mapped libraries, and stacks of threads that are never touched.
const ADDRESS_SPACE: u64 = 4 << 30;

/// What the processes of models need of this node.
#[derive(Clone, Debug)]
pub struct ChildOptions {
    /// The program that becomes a model's process when its first argument is
    /// [`SUBCOMMAND`](super::SUBCOMMAND): as a rule, this one.
    pub worker: PathBuf,
    /// Where engines are brought to.
    pub artefacts: Arc<ArtefactCache>,
    /// Threads of a copy whose definition names none; as many as there are processors when it is 0.
    pub threads: usize,
    /// Folder with TensorFlow's libraries; when there is none, they are fetched when the first model needs them.
    pub tensorflow: Option<PathBuf>,
}

impl ChildOptions {
    /// How the process of a model is started. It may read what is named, and write to its scratch.
    pub(super) fn plan(
        &self,
        definition: &ModelDefinition,
        engine: Engine,
        read: Vec<PathBuf>,
        scratch: Option<TempDir>,
    ) -> Result<Plan, Failure> {
        let memory = memory(definition)?;
        let address_space = memory.saturating_add(ADDRESS_SPACE);
        let write = scratch.iter().map(|scratch| scratch.path().to_owned()).collect();
        let rules = Rules { required: definition.isolation == Isolation::Required, read, write, address_space };
        let start = Start { model: definition.name.to_string(), engine, rules };
        Ok(Plan { worker: self.worker.clone(), start, memory, _scratch: scratch })
    }
}

/// Resident bytes that the process may have.
pub(super) fn memory(definition: &ModelDefinition) -> Result<u64, Failure> {
    match definition.parameters.get("memory_bytes") {
        None => Ok(MEMORY),
        Some(Value::Int(bytes @ LEAST_MEMORY..)) => Ok(bytes.unsigned_abs()),
        Some(_) => Err(invalid(format!("parameters.memory_bytes must be a whole number from {LEAST_MEMORY}"))),
    }
}

/// The process works elsewhere and sees no links that leave what it may read.
pub(super) fn absolute(folder: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(folder).map_err(|error| invalid(format!("{} cannot be read: {error}", folder.display())))
}
