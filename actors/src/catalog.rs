//! The definitions that this node uses, compiled once and kept.
//!
//! The store is the truth; versions are immutable, so what is cached here is never stale. Which version is the newest
//! is remembered too, and changed only through [`Catalog::put`]. Used by the router and by the drivers.

use std::sync::Arc;

use dashmap::DashMap;
use motet_engine::definition::document::parse_definition_value;
use motet_engine::definition::{Definition, IndexDefinition, ModelDefinition, Workflow};
use motet_engine::id::{Name, Namespace};
use motet_store::StoreError;
use motet_store::port::{DefinitionKind, PutOutcome, Store, StoredDefinition};

use crate::ports::Clock;

/// Why a definition is not to be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    /// It does not exist.
    #[error("{kind} '{name}' does not exist in namespace '{namespace}'{}", .version.as_ref().map(|v| format!(" in version '{v}'")).unwrap_or_default())]
    Unknown {
        /// `workflow`, `model` or `index`.
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
        /// `workflow`, `model` or `index`.
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

type Versioned = (Namespace, Name, String);

/// Compiled definitions over a store.
pub struct Catalog {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    workflows: DashMap<Versioned, Arc<Workflow>>,
    newest: DashMap<(Namespace, Name), String>,
}

impl Catalog {
    /// An empty cache over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, workflows: DashMap::new(), newest: DashMap::new() }
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
            Definition::Model(model) => Ok(model),
            _ => Err(unreadable(&stored, "it is of another kind")),
        }
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

    /// Stores a definition unless its version is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put(&self, namespace: &Namespace, definition: &Definition) -> Result<PutOutcome, CatalogError> {
        let (kind, name, version, document) = match definition {
            Definition::Workflow(w) => (DefinitionKind::Workflow, &w.name, w.version.clone(), &w.document),
            Definition::Model(m) => (DefinitionKind::Model, &m.name, m.version.clone(), &m.document),
            Definition::Index(i) => (DefinitionKind::Index, &i.name, "1".to_owned(), &i.document),
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
    }
}
