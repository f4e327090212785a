//! The models of this node: loading, the way to each, and what they do.
//!
//! A model is loaded when it is first called or when it is put, once, however many ask. A call waits for the load as
//! long as it has time. Used by the router and the API.

mod calling;
mod nursery;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace};
use motet_models::port::{LoadedModel, ModelBackend};
use motet_models::source::{ArtefactCache, Progress};
use ractor::{Actor, ActorCell};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use crate::address::Address;
use crate::catalog::{Catalog, CatalogError};
use crate::census::Census;
use crate::mailbox::Mailbox;
use crate::memory_budget::MemoryBudget;
use crate::message::RouteError;
use crate::model_actor::{ModelActor, ModelMessage};
use crate::stats::ModelStats;
use crate::supervisor::Children;

pub(crate) use calling::Asker;
pub(crate) use nursery::ModelNursery;
use view::view;
pub use view::{ModelNode, ModelView};

/// Where a model stands.
#[derive(Clone)]
enum Status {
    Loading(Loading),
    Ready { mailbox: Mailbox<ModelMessage>, model: Arc<dyn LoadedModel> },
    Failed { failure: Failure, since: Instant },
}

/// Calls from other nodes that wait for one model to be loaded. More are told at once: what waits takes a place in the
/// lane of all calls from there.
const EXPECTING: usize = 64;

/// Which models a node loads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holding {
    /// All that are put or called: it runs alone.
    All,
    /// Those whose calls come here: it is one of several.
    Placed,
    /// None: it is one of several, and others have that role.
    None,
}

/// A model that could not be loaded is tried again by a call that comes later than this.
const LOAD_AGAIN_AFTER: Duration = Duration::from_secs(15);

/// How far a load has come.
#[derive(Clone, Debug, Serialize, Default, PartialEq)]
pub struct Loading {
    /// What is being done.
    pub what: String,
    /// Bytes brought so far.
    pub bytes: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
}

struct Entry {
    definition: Arc<ModelDefinition>,
    status: watch::Sender<Status>,
    stats: Arc<ModelStats>,
    /// Places for calls that wait or are computed.
    places: Arc<Semaphore>,
    /// Places for calls from other nodes that wait for it to be loaded.
    expecting: Semaphore,
}

impl Status {
    fn failed(failure: Failure) -> Self {
        Self::Failed { failure, since: Instant::now() }
    }
}

impl Entry {
    /// Whether the last try to load failed at least this long ago.
    fn may_load_again(&self, patience: Duration) -> bool {
        matches!(&*self.status.borrow(), Status::Failed { since, .. } if since.elapsed() >= patience)
    }
}

/// The models of this node.
pub struct Models {
    catalog: Arc<Catalog>,
    census: Arc<Census>,
    children: Arc<Children>,
    backends: BTreeMap<&'static str, Arc<dyn ModelBackend>>,
    artefacts: Arc<ArtefactCache>,
    memory: MemoryBudget,
    holding: Holding,
    entries: DashMap<(Namespace, Name), Arc<Entry>>,
    supervisor: OnceLock<ActorCell>,
}

impl Models {
    pub(crate) fn new(
        catalog: Arc<Catalog>,
        census: Arc<Census>,
        backends: Vec<Arc<dyn ModelBackend>>,
        artefacts: Arc<ArtefactCache>,
        memory: MemoryBudget,
        holding: Holding,
    ) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            census,
            children: Arc::default(),
            backends: backends.into_iter().map(|backend| (backend.name(), backend)).collect(),
            artefacts,
            memory,
            holding,
            entries: DashMap::new(),
            supervisor: OnceLock::new(),
        })
    }

    pub(crate) fn wire(&self, supervisor: ActorCell) {
        // Wired once, by the node, before anything can arrive.
        let _ = self.supervisor.set(supervisor);
    }

    pub(crate) fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// Checks a definition against the backends of this node without loading anything.
    ///
    /// # Errors
    /// When the backend is unknown or refuses the definition.
    pub fn check(&self, definition: &ModelDefinition) -> Result<(), Failure> {
        self.backend(definition)?.check(definition)
    }

    fn backend(&self, definition: &ModelDefinition) -> Result<&Arc<dyn ModelBackend>, Failure> {
        self.backends.get(definition.backend.as_str()).ok_or_else(|| {
            let known: Vec<_> = self.backends.keys().copied().collect();
            let words =
                format!("backend '{}' is not in this build; there are: {}", definition.backend, known.join(", "));
            Failure::new(FailureClass::Invalid, words)
        })
    }

    /// Which models this node loads.
    pub(crate) fn holding(&self) -> Holding {
        self.holding
    }

    /// Begins to load the newest version of a model, unless that version is loaded or on its way.
    ///
    /// # Errors
    /// When the model does not exist, or this node has none.
    pub async fn load(self: &Arc<Self>, namespace: &Namespace, name: &Name) -> Result<(), RouteError> {
        self.entry(namespace, name, true).await.map(drop)
    }

    async fn entry(
        self: &Arc<Self>,
        namespace: &Namespace,
        name: &Name,
        newest: bool,
    ) -> Result<Arc<Entry>, RouteError> {
        if self.holding == Holding::None {
            let words = "this node has no models: it has not the role for them";
            return Err(RouteError::Absent(Failure::new(FailureClass::Unavailable, words)));
        }
        let key = (namespace.clone(), name.clone());
        let there = self.entries.get(&key).map(|entry| Arc::clone(&entry)).filter(|_| !newest);
        if let Some(entry) = there
            && !entry.may_load_again(LOAD_AGAIN_AFTER)
            && !self.is_behind(&key, &entry).await
        {
            return Ok(entry);
        }
        let definition = self.catalog.model(namespace, name).await.map_err(|error| not_to_be_had(name, &error))?;
        let mut begun = false;
        let entry = {
            let mut slot = self.entries.entry(key.clone()).or_insert_with(|| {
                begun = true;
                new_entry(&definition)
            });
            let other = slot.definition.version != definition.version;
            // Whoever puts a model again wants it tried at once.
            let patience = if newest { Duration::ZERO } else { LOAD_AGAIN_AFTER };
            if other || slot.may_load_again(patience) {
                begun = true;
                if let Status::Ready { mailbox, .. } = &*slot.status.borrow() {
                    // What waits is still answered; the replicas are unloaded when the mailbox is empty.
                    let _ = mailbox.actor().drain();
                }
                *slot = new_entry(&definition);
            }
            Arc::clone(&slot)
        };
        if begun {
            let (models, entry) = (Arc::clone(self), Arc::clone(&entry));
            tokio::spawn(async move { models.bring_up(&key, &entry).await });
        }
        Ok(entry)
    }

    /// Whether another node has put a newer version.
    async fn is_behind(&self, (namespace, name): &(Namespace, Name), entry: &Entry) -> bool {
        self.holding == Holding::Placed
            && self
                .catalog
                .known_model(namespace, name)
                .await
                .is_ok_and(|known| known.version != entry.definition.version)
    }

    async fn bring_up(self: &Arc<Self>, key: &(Namespace, Name), entry: &Arc<Entry>) {
        if let Err(failure) = self.try_bring_up(key, entry).await {
            tracing::error!(model = %key.1, %failure, "model cannot be loaded");
            entry.status.send_replace(Status::failed(failure));
        }
    }

    async fn try_bring_up(self: &Arc<Self>, key: &(Namespace, Name), entry: &Arc<Entry>) -> Result<(), Failure> {
        let definition = &entry.definition;
        let backend = Arc::clone(self.backend(definition)?);
        backend.check(definition)?;
        let begun = Instant::now();
        let artefact = match &definition.source {
            None => None,
            // What the binary carries needs no fetching; the backend knows it by name.
            Some(source) if source.uri.starts_with("builtin:") => None,
            Some(source) => {
                let status = entry.status.clone();
                let report = move |progress: Progress| {
                    let loading = Loading { what: progress.what, bytes: progress.bytes, total: progress.total };
                    status.send_replace(Status::Loading(loading));
                };
                Some(self.artefacts.fetch(source, &report).await?)
            }
        };
        entry.status.send_replace(Status::Loading(Loading { what: "loading".into(), ..Loading::default() }));
        let mut replicas: Vec<Arc<dyn LoadedModel>> = vec![];
        for _ in 0..definition.replicas.max(1) {
            replicas.push(Arc::from(backend.load(definition, artefact.clone()).await?));
        }
        let bytes = replicas.iter().map(|replica| replica.signature().memory_bytes).sum();
        let memory = match self.memory.take(&definition.name, bytes) {
            Ok(memory) => memory,
            Err(failure) => {
                futures::future::join_all(replicas.iter().map(|replica| replica.unload())).await;
                return Err(failure);
            }
        };
        let address = Address::Model(key.0.clone(), key.1.clone());
        let vitals = self
            .census
            .enter(address.clone(), usize::try_from(definition.queue).unwrap_or(usize::MAX).saturating_add(64));
        let model = Arc::clone(&replicas[0]);
        let actor = ModelActor {
            definition: Arc::clone(definition),
            replicas,
            _memory: memory,
            vitals: Arc::clone(&vitals),
            stats: Arc::clone(&entry.stats),
            caller: crate::router::system_caller(key.0.clone()),
        };
        let Some(supervisor) = self.supervisor.get() else {
            return Err(Failure::new(FailureClass::Unavailable, "the node is not started"));
        };
        let (actor, _) = Actor::spawn_linked(None, actor, (), supervisor.clone()).await.map_err(|error| {
            Failure::new(FailureClass::Internal, format!("the model's actor cannot start: {error}"))
        })?;
        self.children.enter(&actor.get_cell(), address);
        tracing::info!(model = %key.1, version = definition.version, ms = begun.elapsed().as_millis(), "model ready");
        entry.status.send_replace(Status::Ready { mailbox: Mailbox::new(actor, vitals), model });
        Ok(())
    }

    /// Every model that was called or put since the start.
    #[must_use]
    pub fn views(&self, namespace: &Namespace) -> Vec<ModelView> {
        let mut views: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| entry.key().0 == *namespace)
            .map(|entry| view(entry.key(), entry.value()))
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// One model.
    #[must_use]
    pub fn view(&self, namespace: &Namespace, name: &Name) -> Option<ModelView> {
        let entry = self.entries.get(&(namespace.clone(), name.clone()))?;
        Some(view(entry.key(), entry.value()))
    }
}

/// Why a model's definition is not to be had.
pub(crate) fn not_to_be_had(name: &Name, error: &CatalogError) -> RouteError {
    let class = match error {
        CatalogError::Unknown { .. } => return RouteError::Unknown(format!("model '{name}'")),
        CatalogError::Unreadable { .. } => FailureClass::Internal,
        CatalogError::Store(_) => FailureClass::Unavailable,
    };
    Failure::new(class, error.to_string()).into()
}

fn new_entry(definition: &Arc<ModelDefinition>) -> Arc<Entry> {
    Arc::new(Entry {
        definition: Arc::clone(definition),
        status: watch::channel(Status::Loading(Loading { what: "waiting".into(), ..Loading::default() })).0,
        stats: Arc::new(ModelStats::new(definition.name.as_str())),
        places: Arc::new(Semaphore::new(usize::try_from(definition.queue).unwrap_or(Semaphore::MAX_PERMITS))),
        expecting: Semaphore::new(EXPECTING),
    })
}
