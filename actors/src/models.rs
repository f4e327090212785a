//! The models of this node: loading, the way to each, and what they do.
//!
//! A model is loaded when it is first called or when it is put, once, however many ask. A call waits for the load as
//! long as it has time. Used by the router and the API.

mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dashmap::DashMap;
use motet_engine::access::Caller;
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace};
use motet_engine::value::Value;
use motet_models::call;
use motet_models::port::{LoadedModel, ModelBackend};
use motet_models::source::{ArtefactCache, Progress};
use ractor::{Actor, ActorCell};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::address::Address;
use crate::catalog::{Catalog, CatalogError};
use crate::census::Census;
use crate::mailbox::{Mailbox, SendError};
use crate::memory_budget::MemoryBudget;
use crate::message::{ModelAsk, RouteError};
use crate::model_actor::{ModelActor, ModelCall, ModelMessage};
use crate::stats::ModelStats;
use crate::supervisor::{Children, Nursery};

pub use view::ModelView;
use view::view;

/// Where a model stands.
#[derive(Clone)]
enum Status {
    Loading(Loading),
    Ready { mailbox: Mailbox<ModelMessage>, model: Arc<dyn LoadedModel> },
    Failed { failure: Failure, since: Instant },
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
    ) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            census,
            children: Arc::default(),
            backends: backends.into_iter().map(|backend| (backend.name(), backend)).collect(),
            artefacts,
            memory,
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

    /// Begins to load the newest version of a model, unless that version is loaded or on its way.
    ///
    /// # Errors
    /// When the model does not exist.
    pub async fn load(self: &Arc<Self>, namespace: &Namespace, name: &Name) -> Result<(), RouteError> {
        self.entry(namespace, name, true).await.map(drop)
    }

    async fn entry(
        self: &Arc<Self>,
        namespace: &Namespace,
        name: &Name,
        newest: bool,
    ) -> Result<Arc<Entry>, RouteError> {
        let key = (namespace.clone(), name.clone());
        if !newest
            && let Some(entry) = self.entries.get(&key)
            && !entry.may_load_again(LOAD_AGAIN_AFTER)
        {
            return Ok(Arc::clone(&entry));
        }
        let definition = self.catalog.model(namespace, name).await.map_err(|error| match error {
            CatalogError::Unknown { .. } => RouteError::Unknown(format!("model '{name}'")),
            error => Failure::new(FailureClass::Internal, error.to_string()).into(),
        })?;
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

    /// Answers one call, as part of a batch.
    pub(crate) async fn infer(
        self: &Arc<Self>,
        caller: &Caller,
        name: &Name,
        ask: ModelAsk,
        patience: Duration,
    ) -> Result<Value, RouteError> {
        let ModelAsk::Infer { with, priority, key } = ask;
        let deadline = Instant::now() + patience;
        let entry = self.entry(&caller.namespace, name, false).await?;
        let (mailbox, model) = ready(&entry).await?;
        let encoded = call::encode(model.signature(), &with)?;
        let single = encoded.single;
        let place = place(&entry, key.is_some()).await.ok_or_else(|| {
            RouteError::Overloaded(format!("the queue of model '{name}' is full ({} calls)", entry.definition.queue))
        })?;
        let (reply, answer) = oneshot::channel();
        let length = model.length(&encoded.inputs);
        let call =
            ModelCall { inputs: encoded.inputs, rows: encoded.rows, length, priority, deadline, reply, _place: place };
        mailbox.try_send(caller, ModelMessage::Call(call)).map_err(|error| match error {
            SendError::Full => RouteError::Overloaded(format!("the queue of model '{name}' is full")),
            SendError::Gone => RouteError::Failed(Failure::new(
                FailureClass::Unavailable,
                format!("model '{name}' is being restarted"),
            )),
        })?;
        match answer.await {
            Ok(outputs) => Ok(call::decode(outputs?, single)),
            Err(_) => {
                Err(Failure::new(FailureClass::Unavailable, format!("model '{name}' ended before it answered")).into())
            }
        }
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

    /// Waits until a model is loaded.
    ///
    /// # Errors
    /// When it does not exist or cannot be loaded.
    pub async fn ready(self: &Arc<Self>, namespace: &Namespace, name: &Name) -> Result<(), RouteError> {
        let entry = self.entry(namespace, name, false).await?;
        ready(&entry).await.map(drop)
    }
}

/// A place for one call. A run's call waits for it, since the run is accepted and must not fail for want of room;
/// whoever else asks is told at once. The wait ends with the caller's patience.
async fn place(entry: &Entry, may_wait: bool) -> Option<OwnedSemaphorePermit> {
    let places = Arc::clone(&entry.places);
    if may_wait { places.acquire_owned().await.ok() } else { places.try_acquire_owned().ok() }
}

async fn ready(entry: &Entry) -> Result<(Mailbox<ModelMessage>, Arc<dyn LoadedModel>), RouteError> {
    let mut status = entry.status.subscribe();
    let settled = status.wait_for(|status| !matches!(status, Status::Loading(_))).await;
    match settled.as_deref() {
        Ok(Status::Ready { mailbox, model }) => Ok((mailbox.clone(), Arc::clone(model))),
        Ok(Status::Failed { failure, .. }) => Err(RouteError::Failed(failure.clone())),
        Ok(Status::Loading(_)) | Err(_) => {
            Err(Failure::new(FailureClass::Unavailable, "the model is being replaced").into())
        }
    }
}

fn new_entry(definition: &Arc<ModelDefinition>) -> Arc<Entry> {
    Arc::new(Entry {
        definition: Arc::clone(definition),
        status: watch::channel(Status::Loading(Loading { what: "waiting".into(), ..Loading::default() })).0,
        stats: Arc::new(ModelStats::new(definition.name.as_str())),
        places: Arc::new(Semaphore::new(usize::try_from(definition.queue).unwrap_or(Semaphore::MAX_PERMITS))),
    })
}

/// What the supervisor of models needs to know.
pub(crate) struct ModelNursery(pub(crate) Arc<Models>);

#[async_trait]
impl Nursery for ModelNursery {
    async fn revive(&self, child: &Address) -> Result<(), String> {
        let Address::Model(namespace, name) = child else { return Ok(()) };
        let key = (namespace.clone(), name.clone());
        let Some(entry) = self.0.entries.get(&key).map(|entry| Arc::clone(&entry)) else { return Ok(()) };
        self.0.try_bring_up(&key, &entry).await.map_err(|failure| failure.to_string())
    }

    fn ended(&self, child: &Address) {
        let Address::Model(namespace, name) = child else { return };
        if let Some(entry) = self.0.entries.get(&(namespace.clone(), name.clone())) {
            entry.status.send_if_modified(|status| {
                let dead = matches!(status, Status::Ready { mailbox, .. } if mailbox.is_gone());
                if dead {
                    *status = Status::Loading(Loading { what: "restarting".into(), ..Loading::default() });
                }
                dead
            });
        }
    }

    fn quarantined(&self, child: &Address, reason: &str) {
        let Address::Model(namespace, name) = child else { return };
        if let Some(entry) = self.0.entries.get(&(namespace.clone(), name.clone())) {
            let words = format!("model '{name}' failed too often and stays down: {reason}");
            entry.status.send_replace(Status::failed(Failure::new(FailureClass::Unavailable, words)));
        }
    }
}
