//! The definitions that this node uses, compiled once and kept.
//!
//! The store is the truth; versions are immutable, so what is cached here is never stale. Which version is the newest
//! is remembered too, and changed only through [`Catalog::put`]. Used by the router and by the drivers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use motet_engine::definition::document::parse_definition_value;
use motet_engine::definition::{
    Definition, IndexDefinition, ModelDefinition, ScheduleDefinition, StreamDefinition, Workflow,
};
use motet_engine::id::{Name, Namespace};
use motet_engine::time::Timestamp;
use motet_store::StoreError;
use motet_store::port::{DefinitionKind, PutOutcome, Store, StoredDefinition};

use crate::ports::Clock;

/// Why a definition is not to be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    /// It does not exist.
    #[error("{kind} '{name}' does not exist in namespace '{namespace}'{}", .version.as_ref().map(|v| format!(" in version '{v}'")).unwrap_or_default())]
    Unknown {
        /// `workflow`, `model`, `index`, `schedule` or `stream`.
        kind: &'static str,
        /// Tenant.
        namespace: Namespace,
        /// Name.
        name: Name,
        /// Version that was asked for.
        version: Option<String>,
    },
    /// What is stored is no definition of this binary's language.
    #[error("stored {kind} '{name}' cannot be read: {reason}")]
    Unreadable {
        /// `workflow`, `model`, `index`, `schedule` or `stream`.
        kind: &'static str,
        /// Name.
        name: Name,
        /// Why.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How long a model is used as it was read: another node may have put a newer version, and its news may be lost.
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// How often a schedule or stream is put again when another put came between.
const PUTS: usize = 5;

/// A schedule as it is stored.
#[derive(Debug, Clone)]
pub struct StoredSchedule {
    /// Tenant.
    pub namespace: Namespace,
    /// How often it was put with other content, as a number.
    pub revision: String,
    /// When this revision was put: times before it never count.
    pub since: Timestamp,
    /// The schedule.
    pub definition: Arc<ScheduleDefinition>,
}

/// A stream as it is stored.
#[derive(Debug, Clone)]
pub struct StoredStream {
    /// Tenant.
    pub namespace: Namespace,
    /// How often it was put with other content, as a number.
    pub revision: String,
    /// When this revision was put.
    pub since: Timestamp,
    /// The stream.
    pub definition: Arc<StreamDefinition>,
}

type Versioned = (Namespace, Name, String);

/// A model in the version that was the newest.
struct KnownModel {
    definition: Arc<ModelDefinition>,
    /// When it was; none when there may be a newer one.
    read: Option<Instant>,
}

/// Compiled definitions over a store.
pub struct Catalog {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    workflows: DashMap<Versioned, Arc<Workflow>>,
    newest: DashMap<(Namespace, Name), String>,
    models: DashMap<(Namespace, Name), KnownModel>,
    streams: DashMap<Versioned, Arc<StreamDefinition>>,
}

impl Catalog {
    /// An empty cache over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let (workflows, newest, models, streams) = Default::default();
        Self { store, clock, workflows, newest, models, streams }
    }

    /// A workflow in the given version, or in its newest.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub async fn workflow(
        &self,
        namespace: &Namespace,
        name: &Name,
        version: Option<&str>,
    ) -> Result<Arc<Workflow>, CatalogError> {
        let version = match version {
            Some(version) => Some(version.to_owned()),
            None => self.newest.get(&(namespace.clone(), name.clone())).map(|newest| newest.clone()),
        };
        if let Some(version) = &version {
            let key = (namespace.clone(), name.clone(), version.clone());
            if let Some(workflow) = self.workflows.get(&key) {
                return Ok(Arc::clone(&workflow));
            }
        }
        let stored = self.stored(DefinitionKind::Workflow, namespace, name, version.as_deref()).await?;
        let workflow = match compile(&stored)? {
            Definition::Workflow(workflow) => workflow,
            _ => return Err(unreadable(&stored, "it is of another kind")),
        };
        if version.is_none() {
            self.newest.insert((namespace.clone(), name.clone()), stored.version.clone());
        }
        self.workflows.insert((namespace.clone(), name.clone(), stored.version), Arc::clone(&workflow));
        Ok(workflow)
    }

    /// A model in its newest version.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub async fn model(&self, namespace: &Namespace, name: &Name) -> Result<Arc<ModelDefinition>, CatalogError> {
        let stored = self.stored(DefinitionKind::Model, namespace, name, None).await?;
        match compile(&stored)? {
            Definition::Model(model) => {
                self.know(namespace, &model);
                Ok(model)
            }
            _ => Err(unreadable(&stored, "it is of another kind")),
        }
    }

    /// A model in its newest version, as far as this node has heard: what it read lately is not read again.
    ///
    /// # Errors
    /// When it does not exist or was never read and cannot be now.
    pub async fn known_model(&self, namespace: &Namespace, name: &Name) -> Result<Arc<ModelDefinition>, CatalogError> {
        let key = (namespace.clone(), name.clone());
        let fresh = |known: &KnownModel| known.read.is_some_and(|read| read.elapsed() < KNOWN_FOR);
        let known = self.models.get(&key).map(|known| (Arc::clone(&known.definition), fresh(&known)));
        let Some((definition, fresh)) = known else { return self.model(namespace, name).await };
        if fresh {
            return Ok(definition);
        }
        if let Some(mut known) = self.models.get_mut(&key) {
            // One caller looks; the others go on with what is known.
            known.read = Some(Instant::now());
        }
        self.model(namespace, name).await.or(Ok(definition))
    }

    fn know(&self, namespace: &Namespace, definition: &Arc<ModelDefinition>) {
        let known = KnownModel { definition: Arc::clone(definition), read: Some(Instant::now()) };
        self.models.insert((namespace.clone(), definition.name.clone()), known);
    }

    /// An index in its newest version.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub async fn index(&self, namespace: &Namespace, name: &Name) -> Result<Arc<IndexDefinition>, CatalogError> {
        let stored = self.stored(DefinitionKind::Index, namespace, name, None).await?;
        match compile(&stored)? {
            Definition::Index(index) => Ok(index),
            _ => Err(unreadable(&stored, "it is of another kind")),
        }
    }

    /// Another node may have put newer versions: which are the newest is asked again.
    pub(crate) fn forget_newest(&self) {
        self.newest.clear();
        self.models.iter_mut().for_each(|mut known| known.read = None);
    }

    /// Stores a definition unless its version is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put(&self, namespace: &Namespace, definition: &Definition) -> Result<PutOutcome, CatalogError> {
        let (kind, name, version, document) = match definition {
            Definition::Workflow(w) => (DefinitionKind::Workflow, &w.name, w.version.clone(), &w.document),
            Definition::Model(m) => (DefinitionKind::Model, &m.name, m.version.clone(), &m.document),
            Definition::Index(i) => (DefinitionKind::Index, &i.name, "1".to_owned(), &i.document),
            Definition::Schedule(s) => {
                return self.put_revision(DefinitionKind::Schedule, namespace, &s.name, &s.document).await;
            }
            Definition::Stream(s) => {
                return self.put_revision(DefinitionKind::Stream, namespace, &s.name, &s.document).await;
            }
        };
        let outcome = self
            .store
            .put_definition(StoredDefinition {
                kind,
                namespace: namespace.clone(),
                name: name.clone(),
                version: version.clone(),
                document: document.clone(),
                created_at: self.clock.now(),
            })
            .await?;
        if let (PutOutcome::Created, Definition::Workflow(workflow)) = (outcome, definition) {
            self.workflows.insert((namespace.clone(), name.clone(), version.clone()), Arc::clone(workflow));
            self.newest.insert((namespace.clone(), name.clone()), version);
        }
        if let (PutOutcome::Created, Definition::Model(model)) = (outcome, definition) {
            self.know(namespace, model);
        }
        Ok(outcome)
    }

    /// Every schedule that was not deleted. One that cannot be read is told in the log and left out.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn schedules(&self) -> Result<Vec<StoredSchedule>, StoreError> {
        let schedules = self.revisions(DefinitionKind::Schedule).await?.into_iter();
        Ok(schedules
            .filter_map(|(stored, definition)| match definition {
                Definition::Schedule(definition) => Some(StoredSchedule {
                    namespace: stored.namespace,
                    revision: stored.version,
                    since: stored.created_at,
                    definition,
                }),
                _ => None,
            })
            .collect())
    }

    /// Every stream that was not deleted. One that cannot be read is told in the log and left out.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn streams(&self) -> Result<Vec<StoredStream>, StoreError> {
        let streams = self.revisions(DefinitionKind::Stream).await?.into_iter();
        Ok(streams
            .filter_map(|(stored, definition)| match definition {
                Definition::Stream(definition) => Some(StoredStream {
                    namespace: stored.namespace,
                    revision: stored.version,
                    since: stored.created_at,
                    definition,
                }),
                _ => None,
            })
            .collect())
    }

    /// A stream as one of its revisions says, deleted since or not: what its runs were begun by.
    ///
    /// # Errors
    /// When there is no such revision or it cannot be read.
    pub async fn stream(
        &self,
        namespace: &Namespace,
        name: &Name,
        revision: &str,
    ) -> Result<Arc<StreamDefinition>, CatalogError> {
        let key = (namespace.clone(), name.clone(), revision.to_owned());
        if let Some(stream) = self.streams.get(&key) {
            return Ok(Arc::clone(&stream));
        }
        let stored = self.stored(DefinitionKind::Stream, namespace, name, Some(revision)).await?;
        let Definition::Stream(stream) = compile(&stored)? else {
            return Err(unreadable(&stored, "it is of another kind"));
        };
        self.streams.insert(key, Arc::clone(&stream));
        Ok(stream)
    }

    /// A stream in its newest revision.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub async fn newest_stream(&self, namespace: &Namespace, name: &Name) -> Result<StoredStream, CatalogError> {
        let stored = self.stored(DefinitionKind::Stream, namespace, name, None).await?;
        let unknown = || CatalogError::Unknown {
            kind: word(DefinitionKind::Stream),
            namespace: namespace.clone(),
            name: name.clone(),
            version: None,
        };
        if is_deleted(&stored) {
            return Err(unknown());
        }
        match compile(&stored)? {
            Definition::Stream(definition) => Ok(StoredStream {
                namespace: stored.namespace,
                revision: stored.version,
                since: stored.created_at,
                definition,
            }),
            _ => Err(unreadable(&stored, "it is of another kind")),
        }
    }

    /// The newest revisions of a kind, without those that say that there is nothing any more.
    async fn revisions(&self, kind: DefinitionKind) -> Result<Vec<(StoredDefinition, Definition)>, StoreError> {
        let stored = self.store.definitions(kind, None).await?.into_iter().filter(|stored| !is_deleted(stored));
        let read = |stored: StoredDefinition| match compile(&stored) {
            Ok(definition) => Some((stored, definition)),
            Err(error) => {
                tracing::error!(%error, "a {} stands still", word(kind));
                None
            }
        };
        Ok(stored.filter_map(read).collect())
    }

    /// Ends a schedule or a stream; whether there was one. Its revisions stay in the store, the last one says that it
    /// is deleted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete(&self, kind: DefinitionKind, namespace: &Namespace, name: &Name) -> Result<bool, CatalogError> {
        let there = self.store.definition(kind, namespace, name, None).await?;
        if there.is_none_or(|there| is_deleted(&there)) {
            return Ok(false);
        }
        let document = serde_json::json!({"kind": titled(kind), "name": name.as_str(), DELETED: true});
        self.put_revision(kind, namespace, name, &document).await.map(|_| true)
    }

    /// Puts what may be changed, unlike what runs are pinned to, so that each content is a revision.
    async fn put_revision(
        &self,
        kind: DefinitionKind,
        namespace: &Namespace,
        name: &Name,
        document: &serde_json::Value,
    ) -> Result<PutOutcome, CatalogError> {
        let mut outcome = PutOutcome::Conflict;
        for _ in 0..PUTS {
            let newest = self.store.definition(kind, namespace, name, None).await?;
            if newest.as_ref().is_some_and(|newest| newest.document == *document) {
                return Ok(PutOutcome::Unchanged);
            }
            let revision = newest.and_then(|newest| newest.version.parse::<u64>().ok()).map_or(1, |found| found + 1);
            let new = StoredDefinition {
                kind,
                namespace: namespace.clone(),
                name: name.clone(),
                version: revision.to_string(),
                document: document.clone(),
                created_at: self.clock.now(),
            };
            outcome = self.store.put_definition(new).await?;
            if outcome != PutOutcome::Conflict {
                break;
            }
        }
        Ok(outcome)
    }

    async fn stored(
        &self,
        kind: DefinitionKind,
        namespace: &Namespace,
        name: &Name,
        version: Option<&str>,
    ) -> Result<StoredDefinition, CatalogError> {
        self.store.definition(kind, namespace, name, version).await?.ok_or_else(|| CatalogError::Unknown {
            kind: word(kind),
            namespace: namespace.clone(),
            name: name.clone(),
            version: version.map(str::to_owned),
        })
    }
}

/// The key of a revision that says that the schedule or stream is no more.
const DELETED: &str = "deleted";

/// Whether the kind may be changed: each content is a revision, which the store counts.
#[must_use]
pub fn has_revisions(kind: DefinitionKind) -> bool {
    matches!(kind, DefinitionKind::Schedule | DefinitionKind::Stream)
}

/// Whether the newest revision of a schedule or stream says that it is no more.
#[must_use]
pub fn is_deleted(stored: &StoredDefinition) -> bool {
    has_revisions(stored.kind) && stored.document[DELETED] == true
}

fn compile(stored: &StoredDefinition) -> Result<Definition, CatalogError> {
    parse_definition_value(&stored.document).map_err(|mistakes| {
        let words: Vec<_> = mistakes.iter().take(3).map(ToString::to_string).collect();
        unreadable(stored, &words.join("; "))
    })
}

fn unreadable(stored: &StoredDefinition, reason: &str) -> CatalogError {
    CatalogError::Unreadable { kind: word(stored.kind), name: stored.name.clone(), reason: reason.to_owned() }
}

/// The kind's name for people.
#[must_use]
pub fn word(kind: DefinitionKind) -> &'static str {
    match kind {
        DefinitionKind::Workflow => "workflow",
        DefinitionKind::Model => "model",
        DefinitionKind::Index => "index",
        DefinitionKind::Schedule => "schedule",
        DefinitionKind::Stream => "stream",
    }
}

/// The kind's name in documents.
fn titled(kind: DefinitionKind) -> &'static str {
    match kind {
        DefinitionKind::Workflow => "Workflow",
        DefinitionKind::Model => "Model",
        DefinitionKind::Index => "Index",
        DefinitionKind::Schedule => "Schedule",
        DefinitionKind::Stream => "Stream",
    }
}
