//! Brings models up: their artefacts, their share of the memory, their replicas, their actors.
//!
//! Never loads what there is no memory for. Used by `models`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_models::call::{self, EncodedCall};
use motet_models::port::{InferRequest, LoadedModel, ModelBackend};
use motet_models::source::{Progress, needs_fetch};
use ractor::Actor;

use super::{Entry, Loading, Models, Status};
use crate::address::Address;
use crate::mailbox::Mailbox;
use crate::model_actor::ModelActor;
use crate::residency::{Asking, Leaving, MemoryShare, ModelKey, NoShare};

/// Folders within folders whose files count to the size of an artefact.
const DEPTH: usize = 4;

/// Copies of a model with their share of the memory.
struct Loaded {
    replicas: Vec<Arc<dyn LoadedModel>>,
    memory: MemoryShare,
}

impl Models {
    pub(super) async fn bring_up(self: &Arc<Self>, key: &ModelKey, entry: &Arc<Entry>) {
        if let Err(failure) = self.try_bring_up(key, entry).await {
            tracing::error!(model = %key.1, %failure, "model cannot be loaded");
            entry.status.send_replace(Status::failed(failure));
        }
    }

    pub(super) async fn try_bring_up(self: &Arc<Self>, key: &ModelKey, entry: &Arc<Entry>) -> Result<(), Failure> {
        let definition = &entry.definition;
        let backend = Arc::clone(self.backend(definition)?);
        backend.check(definition)?;
        let artefact = self.artefact(entry).await?;
        let begun = Instant::now();
        let Some(loaded) = self.load_within(key, entry, &*backend, artefact).await? else {
            tracing::info!(model = %key.1, "model not loaded: others have the memory, and nobody calls it");
            return Ok(());
        };
        self.spawn(key, entry, loaded).await?;
        let (version, ms) = (&definition.version, begun.elapsed().as_millis());
        tracing::info!(model = %key.1, version, ms, "model ready");
        Ok(())
    }

    async fn artefact(&self, entry: &Entry) -> Result<Option<PathBuf>, Failure> {
        // What the binary carries needs no fetching; the backend knows it by name.
        let Some(source) = entry.definition.source.as_ref().filter(|source| needs_fetch(source)) else {
            return Ok(None);
        };
        let status = entry.status.clone();
        let report = move |progress: Progress| {
            let loading = Loading { what: progress.what, bytes: progress.bytes, total: progress.total };
            status.send_replace(Status::Loading(loading));
        };
        self.artefacts.fetch(source, &report).await.map(Some)
    }

    /// Loads the replicas once there is memory for them; none when nobody wants them and there is none.
    async fn load_within(
        &self,
        key: &ModelKey,
        entry: &Arc<Entry>,
        backend: &dyn ModelBackend,
        artefact: Option<PathBuf>,
    ) -> Result<Option<Loaded>, Failure> {
        let (definition, history) = (&entry.definition, &entry.history);
        let queue = usize::try_from(definition.queue).unwrap_or(usize::MAX);
        let copies = u64::from(definition.replicas.max(1));
        let mut bytes = match (history.bytes(), backend.expected_bytes(definition)) {
            (Some(bytes), _) => bytes,
            (None, Some(each)) => each.saturating_mul(copies),
            (None, None) => size(artefact.as_deref()).await.saturating_mul(copies),
        };
        loop {
            tell(entry, "waiting for memory");
            let asking = Asking { key, bytes, history, places: &entry.places, queue };
            let memory = match self.memory.reserve(asking, &|leaving| self.end(leaving)).await {
                Ok(memory) => memory,
                Err(NoShare::TooLarge(failure)) => return Err(failure),
                Err(NoShare::NotWanted) if gave_up(entry) => return Ok(None),
                Err(NoShare::NotWanted) => continue,
            };
            tell(entry, "loading");
            let begun = Instant::now();
            let replicas = replicas(backend, definition, artefact.as_ref()).await?;
            if !definition.serving.warm_up.is_empty() {
                tell(entry, "warming up");
                warm_up(&replicas, definition).await?;
            }
            bytes = replicas.iter().map(|replica| replica.signature().memory_bytes).sum();
            history.loaded(bytes, begun.elapsed());
            metrics::counter!("motet_model_loads_total", "model" => key.1.to_string()).increment(1);
            if memory.resize(bytes) {
                return Ok(Some(Loaded { replicas, memory }));
            }
            // It takes more than was thought and than there is: it waits for as much like others do.
            futures::future::join_all(replicas.iter().map(|replica| replica.unload())).await;
        }
    }

    async fn spawn(&self, key: &ModelKey, entry: &Arc<Entry>, loaded: Loaded) -> Result<(), Failure> {
        let definition = &entry.definition;
        let queue = usize::try_from(definition.queue).unwrap_or(usize::MAX);
        let Some(supervisor) = self.supervisor.get() else {
            return Err(Failure::new(FailureClass::Unavailable, "the node is not started"));
        };
        let address = Address::Model(key.0.clone(), key.1.clone());
        let vitals = self.census.enter(address.clone(), queue.saturating_add(64));
        let Some(model) = loaded.replicas.first().map(Arc::clone) else {
            return Err(Failure::new(FailureClass::Internal, "a model without replicas"));
        };
        let memory = Arc::new(loaded.memory);
        let actor = ModelActor {
            definition: Arc::clone(definition),
            replicas: loaded.replicas,
            _memory: Arc::clone(&memory),
            vitals: Arc::clone(&vitals),
            stats: Arc::clone(&entry.history.stats),
            entropy: Arc::clone(&self.entropy),
            caller: crate::router::system_caller(key.0.clone()),
        };
        let (actor, _) = Actor::spawn_linked(None, actor, (), supervisor.clone()).await.map_err(|error| {
            Failure::new(FailureClass::Internal, format!("the model's actor cannot start: {error}"))
        })?;
        self.children.enter(&actor.get_cell(), address);
        let ready = Status::Ready { mailbox: Mailbox::new(actor, vitals), model };
        let left = !entry.status.send_if_modified(|status| {
            let loading = matches!(status, Status::Loading(_));
            if loading {
                *status = ready.clone();
            }
            loading
        });
        if left {
            // It was replaced while it was loaded.
            entry.status.send_replace(ready);
            entry.leave();
        }
        memory.settle();
        Ok(())
    }

    /// Ends a model for others; one that came to life under its name meanwhile is not meant.
    fn end(&self, leaving: &Leaving) {
        let entry = self.entries.get(&leaving.key).map(|entry| Arc::clone(&entry));
        if let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.places, &leaving.places)) {
            tracing::debug!(model = %leaving.key.1, "model unloaded: others need its memory");
            entry.leave();
        }
    }
}

/// Gives up a model that was put and has no memory, unless somebody calls it.
fn gave_up(entry: &Entry) -> bool {
    let unwanted = !entry.history.is_wanted() || entry.places.is_closed();
    if unwanted {
        entry.leave();
    }
    unwanted
}

fn tell(entry: &Entry, what: &str) {
    entry.status.send_if_modified(|status| {
        let loading = matches!(status, Status::Loading(_));
        if loading {
            *status = Status::Loading(Loading { what: what.to_owned(), ..Loading::default() });
        }
        loading
    });
}

async fn replicas(
    backend: &dyn ModelBackend,
    definition: &ModelDefinition,
    artefact: Option<&PathBuf>,
) -> Result<Vec<Arc<dyn LoadedModel>>, Failure> {
    let mut replicas: Vec<Arc<dyn LoadedModel>> = vec![];
    for _ in 0..definition.replicas.max(1) {
        match backend.load(definition, artefact.cloned()).await {
            Ok(replica) => replicas.push(Arc::from(replica)),
            Err(failure) => {
                futures::future::join_all(replicas.iter().map(|replica| replica.unload())).await;
                return Err(failure);
            }
        }
    }
    Ok(replicas)
}

/// Lets every copy answer the samples of the definition, so that no caller waits for what only first calls do. A copy
/// that cannot answer them serves nobody.
async fn warm_up(replicas: &[Arc<dyn LoadedModel>], definition: &ModelDefinition) -> Result<(), Failure> {
    let warmed = futures::future::try_join_all(replicas.iter().map(async |replica| {
        for (place, sample) in definition.serving.warm_up.iter().enumerate() {
            let unfit = |failure: Failure| {
                let words = format!("sample {} of warm_up has no answer: {}", place + 1, failure.message);
                Failure::new(failure.class, words)
            };
            let EncodedCall { inputs, rows, .. } = call::encode(replica.signature(), sample).map_err(unfit)?;
            let request = InferRequest { inputs, rows, deadline: Instant::now() + definition.timeout };
            replica.infer(request).await.map_err(unfit)?;
        }
        Ok(())
    }));
    let outcome = warmed.await;
    if outcome.is_err() {
        futures::future::join_all(replicas.iter().map(|replica| replica.unload())).await;
    }
    outcome.map(drop)
}

/// Bytes of an artefact's files: what a model is thought to take before it was loaded for the first time.
async fn size(artefact: Option<&Path>) -> u64 {
    let Some(folder) = artefact.map(Path::to_owned) else { return 0 };
    tokio::task::spawn_blocking(move || size_of(&folder, DEPTH)).await.unwrap_or(0)
}

fn size_of(folder: &Path, depth: usize) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_entry = |entry: std::fs::DirEntry| match std::fs::metadata(entry.path()) {
        Ok(file) if file.is_file() => file.len(),
        Ok(folder) if folder.is_dir() && depth > 0 => size_of(&entry.path(), depth - 1),
        _ => 0,
    };
    entries.map(of_entry).sum()
}
