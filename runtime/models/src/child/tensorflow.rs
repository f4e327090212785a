//! The backend `tensorflow`: SavedModels, each computed in a sandboxed process by TensorFlow's C library.
//!
//! The library is brought to this machine like any other artefact, or named in the settings; it is never opened here.
//! Used by the server.

use std::path::PathBuf;

use async_trait::async_trait;
use motet_engine::definition::{ModelDefinition, ModelSource};
use motet_engine::failure::Failure;

use super::options::{self, ChildOptions};
use super::replica::ChildReplica;
use super::wire::Engine;
use crate::failure::invalid;
use crate::parameters;
use crate::port::{LoadedModel, ModelBackend};

/// Name of the backend in definitions.
const TENSORFLOW: &str = "tensorflow";

/// Parameters that it understands.
const TENSORFLOW_PARAMETERS: [&str; 3] = ["signature", "threads", "memory_bytes"];

/// What a small SavedModel takes in a process; more is known when it was loaded once.
const TENSORFLOW_BYTES: u64 = 340 << 20;

/// The library of TensorFlow 2.21 and what it needs beside it.
const LIBRARY: &str = "libtensorflow_cc.so.2";
const LIBRARY_SHA256: &str = "6505a4b9657e62100c6bdacb683957a395cb047725042945aaa50e40a71e429e";
const FRAMEWORK: &str = "libtensorflow_framework.so.2";
const FRAMEWORK_SHA256: &str = "f060b323b26ef80add21b9df9428de3aeaf2843d772c5bb098745f7abff3709b";

/// The wheel that carries both; any of one version does, so one is named.
const WHEEL: &str = "pypi:tensorflow-cpu==2.21.0;python=3.11";

/// Runs SavedModels.
#[derive(Clone, Debug)]
pub struct TensorFlowBackend {
    options: ChildOptions,
}

impl TensorFlowBackend {
    /// A backend; nothing is started or fetched until a model is loaded.
    #[must_use]
    pub fn new(options: ChildOptions) -> Self {
        Self { options }
    }

    async fn library(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = &self.options.tensorflow {
            return match folder.join(LIBRARY).is_file() {
                true => Ok(folder.clone()),
                false => Err(invalid(format!("models.tensorflow: {} holds no {LIBRARY}", folder.display()))),
            };
        }
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            let words =
                "this system's TensorFlow is not fetched; name the folder of its libraries in models.tensorflow";
            return Err(invalid(words));
        }
        let digests = [(LIBRARY, LIBRARY_SHA256), (FRAMEWORK, FRAMEWORK_SHA256)];
        let source = ModelSource {
            uri: WHEEL.to_owned(),
            sha256: digests.map(|(name, digest)| (name.to_owned(), digest.to_owned())).into(),
            mirrors: vec![],
            license: Some("Apache-2.0".to_owned()),
        };
        let told = |progress: crate::source::Progress| {
            tracing::info!(what = progress.what, bytes = progress.bytes, "fetching the library of TensorFlow");
        };
        self.options.artefacts.fetch(&source, &told).await
    }
}

#[async_trait]
impl ModelBackend for TensorFlowBackend {
    fn name(&self) -> &'static str {
        TENSORFLOW
    }

    fn check(&self, definition: &ModelDefinition) -> Result<(), Failure> {
        parameters::check_known(definition, TENSORFLOW, &TENSORFLOW_PARAMETERS)?;
        parameters::threads(definition, self.options.threads)?;
        parameters::text(definition, "signature")?;
        options::memory(definition)?;
        match &definition.source {
            Some(_) => Ok(()),
            None => Err(invalid("a model of the backend tensorflow needs a source that holds a saved_model.pb")),
        }
    }

    fn expected_bytes(&self, _: &ModelDefinition) -> Option<u64> {
        Some(TENSORFLOW_BYTES)
    }

    async fn load(
        &self,
        definition: &ModelDefinition,
        artefact: Option<PathBuf>,
    ) -> Result<Box<dyn LoadedModel>, Failure> {
        self.check(definition)?;
        let folder = artefact.ok_or_else(|| invalid("a model of the backend tensorflow needs a source"))?;
        let folder = options::absolute(&folder)?;
        if !folder.join("saved_model.pb").is_file() {
            return Err(invalid(format!("the source {} holds no saved_model.pb", folder.display())));
        }
        let library = options::absolute(&self.library().await?)?;
        let read = vec![library.clone(), folder.clone()];
        let engine = Engine::Tensorflow {
            library,
            folder,
            signature: parameters::text(definition, "signature")?.map(str::to_owned),
            threads: parameters::threads(definition, self.options.threads)?,
        };
        Ok(Box::new(ChildReplica::start(self.options.plan(definition, engine, read, None)?).await?))
    }
}
