//! The models of this node: loading, the way to each, and what they do.
//!
//! A model is loaded when it is first called or when it is put, once, however many ask. A call waits for the load as
//! long as it has time. Used by the router and the API.

mod calling;
mod description;
mod loading;
mod nursery;
mod responses;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use motet_engine::definition::ModelDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace};
use motet_models::port::{LoadedModel, ModelBackend};
use motet_models::source::ArtefactCache;
use motet_store::port::Cache;
use ractor::ActorCell;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use crate::catalog::{Catalog, CatalogError};
use crate::census::Census;
use crate::mailbox::Mailbox;
use crate::message::RouteError;
use crate::model_actor::ModelMessage;
use crate::ports::Entropy;
use crate::residency::{History, Interest, ModelKey, Residency};
use crate::stats::ModelStats;
use crate::supervisor::Children;

pub(crate) use calling::Asker;
pub use description::ModelDescription;
pub(crate) use description::described;
pub(crate) use nursery::ModelNursery;
use responses::Responses;
use view::view;
pub use view::{ModelNode, ModelView};

/// Where a model stands.
#[derive(Clone)]
enum Status {
    Loading(Loading),
    Ready {
        mailbox: Mailbox<ModelMessage>,
        model: Arc<dyn LoadedModel>,
    },
    Failed {
        failure: Failure,
        since: Instant,
    },
    /// It is not loaded any more, or was not for want of memory; whoever calls it asks for it anew.
    Left,
}

/// Calls from other nodes that wait for one model to be loaded. More are told at once: what waits takes a place in the
/// lane of all calls from there.
const EXPECTING: usize = 64;

/// Why a model is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// A call waits for it, of whatever version is there.
    Called,
    /// It was put: its newest version is to be loaded, where there is memory for it.
    Put,
}

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

/// Longest wait for a place in the mailbox of a model that is to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(60);

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
    namespace: Namespace,
    definition: Arc<ModelDefinition>,
    status: watch::Sender<Status>,
    history: Arc<History>,
    /// Responses that are kept, where the definition wants them.
    responses: Option<Responses>,
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
    /// Lets it go: what it has taken it answers, whoever comes now is told to ask anew.
    fn leave(&self) {
        self.places.close();
        if let Status::Ready { mailbox, .. } = self.status.send_replace(Status::Left) {
            let caller = crate::router::system_caller(self.namespace.clone());
            // An actor that has ended has left.
            tokio::spawn(async move { mailbox.send(&caller, ModelMessage::Leave, LEAVE_WITHIN).await.ok() });
        }
    }

    /// Whether it is unloaded, or the last try to load failed at least this long ago.
    fn may_load_again(&self, patience: Duration) -> bool {
        match &*self.status.borrow() {
            Status::Failed { since, .. } => since.elapsed() >= patience,
            Status::Left => true,
            Status::Loading(_) | Status::Ready { .. } => false,
        }
    }
}

/// The models of this node.
pub struct Models {
    catalog: Arc<Catalog>,
    census: Arc<Census>,
    children: Arc<Children>,
    backends: BTreeMap<&'static str, Arc<dyn ModelBackend>>,
    artefacts: Arc<ArtefactCache>,
    memory: Arc<Residency>,
    holding: Holding,
    entropy: Arc<dyn Entropy>,
    /// Where nodes share responses.
    shared: Option<Arc<dyn Cache>>,
    entries: DashMap<ModelKey, Arc<Entry>>,
    /// By model and version.
    histories: DashMap<(ModelKey, String), Arc<History>>,
    /// The version of each model that was asked for last.
    newest: DashMap<ModelKey, String>,
    supervisor: OnceLock<ActorCell>,
}

/// What the models of a node are made of.
pub(crate) struct ModelsParts {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) census: Arc<Census>,
    pub(crate) backends: Vec<Arc<dyn ModelBackend>>,
    pub(crate) artefacts: Arc<ArtefactCache>,
    pub(crate) memory: Arc<Residency>,
    pub(crate) holding: Holding,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// Where nodes share responses.
    pub(crate) responses: Option<Arc<dyn Cache>>,
}

impl Models {
    pub(crate) fn new(parts: ModelsParts) -> Arc<Self> {
        let ModelsParts { catalog, census, backends, artefacts, memory, holding, entropy, responses } = parts;
        Arc::new(Self {
            catalog,
            census,
            children: Arc::default(),
            backends: backends.into_iter().map(|backend| (backend.name(), backend)).collect(),
            artefacts,
            memory,
            holding,
            entropy,
            shared: responses,
            entries: DashMap::new(),
            histories: DashMap::new(),
            newest: DashMap::new(),
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
        self.entry(namespace, name, Why::Put).await.map(drop)
    }

    /// Gives back what a model holds once it has answered what waits. The next call loads it again.
    ///
    /// # Errors
    /// While it is being loaded: what is on its way cannot be given back.
    pub fn unload(&self, namespace: &Namespace, name: &Name) -> Result<(), RouteError> {
        let Some(entry) = self.entries.get(&(namespace.clone(), name.clone())).map(|entry| Arc::clone(&entry)) else {
            return Ok(());
        };
        if matches!(&*entry.status.borrow(), Status::Loading(_)) {
            let words = format!("model '{name}' is being loaded; unload it when it is ready");
            return Err(Failure::new(FailureClass::Unavailable, words).into());
        }
        entry.leave();
        Ok(())
    }

    /// The model as it is now, on its way to be loaded if it is not. The interest of one who calls it is noted before it
    /// is looked whether anybody does.
    async fn entry(
        self: &Arc<Self>,
        namespace: &Namespace,
        name: &Name,
        why: Why,
    ) -> Result<(Arc<Entry>, Option<Interest>), RouteError> {
        if self.holding == Holding::None {
            let words = "this node has no models: it has not the role for them";
            return Err(RouteError::Absent(Failure::new(FailureClass::Unavailable, words)));
        }
        let key = (namespace.clone(), name.clone());
        let there = self.entries.get(&key).map(|entry| Arc::clone(&entry)).filter(|_| why == Why::Called);
        if let Some(entry) = there
            && !entry.may_load_again(LOAD_AGAIN_AFTER)
            && !self.is_behind(&key, &entry).await
        {
            let interest = entry.history.called_for();
            return Ok((entry, Some(interest)));
        }
        let definition = self.catalog.model(namespace, name).await.map_err(|error| not_to_be_had(name, &error))?;
        let history = self.history(&key, &definition);
        let interest = (why == Why::Called).then(|| history.called_for());
        let make = || new_entry(namespace, &definition, Arc::clone(&history), self.shared.clone());
        let mut begun = false;
        let entry = {
            let mut slot = self.entries.entry(key.clone()).or_insert_with(|| {
                begun = true;
                make()
            });
            let other = slot.definition.version != definition.version;
            // Whoever puts a model again wants it tried at once.
            let patience = if why == Why::Put { Duration::ZERO } else { LOAD_AGAIN_AFTER };
            if other || slot.may_load_again(patience) {
                begun = true;
                slot.leave();
                *slot = make();
            }
            Arc::clone(&slot)
        };
        if begun {
            let (models, entry) = (Arc::clone(self), Arc::clone(&entry));
            tokio::spawn(async move { models.bring_up(&key, &entry).await });
        }
        Ok((entry, interest))
    }

    fn history(&self, key: &ModelKey, definition: &ModelDefinition) -> Arc<History> {
        let version = (key.clone(), definition.version.clone());
        let make = || Arc::new(History::new(ModelStats::new(definition.name.as_str())));
        self.newest.insert(key.clone(), definition.version.clone());
        Arc::clone(&self.histories.entry(version).or_insert_with(make))
    }

    /// Whether another node has put a newer version.
    async fn is_behind(&self, (namespace, name): &ModelKey, entry: &Entry) -> bool {
        self.holding == Holding::Placed
            && self
                .catalog
                .known_model(namespace, name)
                .await
                .is_ok_and(|known| known.version != entry.definition.version)
    }

    /// Whether models have had to wait for memory here.
    pub(crate) fn are_scarce(&self) -> bool {
        self.memory.is_tight()
    }

    /// Notes that a run under way is going to call a model that was called before.
    pub(crate) fn foresee(&self, namespace: &Namespace, name: &Name) -> Option<Interest> {
        let key = (namespace.clone(), name.clone());
        let version = self.newest.get(&key).map(|newest| newest.clone())?;
        Some(self.histories.get(&(key, version))?.foresee())
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

fn new_entry(
    namespace: &Namespace,
    definition: &Arc<ModelDefinition>,
    history: Arc<History>,
    shared: Option<Arc<dyn Cache>>,
) -> Arc<Entry> {
    Arc::new(Entry {
        responses: Responses::new(namespace, definition, shared),
        namespace: namespace.clone(),
        definition: Arc::clone(definition),
        status: watch::channel(Status::Loading(Loading { what: "waiting".into(), ..Loading::default() })).0,
        history,
        places: Arc::new(Semaphore::new(usize::try_from(definition.queue).unwrap_or(Semaphore::MAX_PERMITS))),
        expecting: Semaphore::new(EXPECTING),
    })
}
