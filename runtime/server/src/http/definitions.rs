//! Putting, reading and listing workflows, models and indexes.
//!
//! Holds no rules of definitions; the engine and the catalog do. Used by the routes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use motet_actors::catalog::word;
use motet_actors::models::ModelView;
use motet_engine::access::Action;
use motet_engine::definition::Definition;
use motet_engine::id::Name;
use motet_engine::time::Timestamp;
use motet_store::port::{DefinitionKind, PutOutcome, StoredDefinition};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::context::Context;
use super::entry::NameEntry;
use super::problem::Problem;
use super::query::Query;
use super::run_view::moment;
use super::{App, body, mistakes};

/// A definition as it is stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Definition)]
pub(crate) struct DefinitionView<'a> {
    /// `workflow`, `model` or `index`.
    #[schema(value_type = String)]
    kind: &'static str,
    /// Tenant.
    namespace: &'a str,
    /// Name.
    name: &'a str,
    /// Version.
    version: &'a str,
    /// When this version was first put.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// The document as it was put.
    document: &'a serde_json::Value,
    /// How a model does on this node, once it was put or called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    model: Option<ModelView>,
    /// What an index holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<IndexFigures>,
}

/// What an index holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IndexFigures {
    /// Vectors in all namespaces of the index.
    vectors: u64,
    /// Bytes on disk.
    disk_bytes: u64,
}

/// Definitions in their newest versions, by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefinitionList)]
pub(crate) struct List<'a> {
    /// The definitions.
    definitions: Vec<DefinitionView<'a>>,
}

/// What became of a definition that was put.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PutResult)]
pub(crate) struct Put<'a> {
    /// `workflow`, `model` or `index`.
    #[schema(value_type = String)]
    kind: &'static str,
    /// Name.
    name: &'a str,
    /// Version.
    version: &'a str,
    /// Whether this version is new; false when it was there with equal content.
    created: bool,
}

/// Which version to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Version {
    /// The newest when none is named.
    version: Option<String>,
}

impl<'a> DefinitionView<'a> {
    fn new(stored: &'a StoredDefinition) -> Self {
        Self {
            kind: word(stored.kind),
            namespace: stored.namespace.0.as_str(),
            name: stored.name.as_str(),
            version: &stored.version,
            created_at: stored.created_at,
            document: &stored.document,
            model: None,
            index: None,
        }
    }

    fn with_model(mut self, app: &App, stored: &StoredDefinition) -> Self {
        if stored.kind == DefinitionKind::Model {
            let view = app.router.models().view(&stored.namespace, &stored.name);
            self.model = view.filter(|view| view.version == stored.version);
        }
        self
    }
}

/// Kind, name and version of a definition.
pub(crate) fn identity(definition: &Definition) -> (DefinitionKind, &Name, &str) {
    match definition {
        Definition::Workflow(workflow) => (DefinitionKind::Workflow, &workflow.name, &workflow.version),
        Definition::Model(model) => (DefinitionKind::Model, &model.name, &model.version),
        // An index has one version for life: its vectors are bound to its shape.
        Definition::Index(index) => (DefinitionKind::Index, &index.name, "1"),
    }
}

/// Puts the one definition of a body under its name.
pub(crate) async fn put(
    kind: DefinitionKind,
    State(app): State<Arc<App>>,
    context: Context,
    NameEntry(name): NameEntry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let bytes = body::read(&app, &headers, body).await?;
    let definitions = mistakes::definitions(&headers, &bytes)?;
    let [definition] = definitions.as_slice() else {
        let words = format!("the body holds {} definitions; put them one by one", definitions.len());
        return Err(Problem::new(422, "invalid_definition", words));
    };
    let (found, called, version) = identity(definition);
    if found != kind || *called != name {
        let words =
            format!("the body defines the {} '{called}', the path names the {} '{name}'", word(found), word(kind));
        return Err(Problem::new(422, "name_mismatch", words));
    }
    let created = match app.router.put(&context.caller, definition).await? {
        PutOutcome::Created => true,
        PutOutcome::Unchanged => false,
        PutOutcome::Conflict => {
            let advice = if kind == DefinitionKind::Index { "choose another name" } else { "raise 'version'" };
            let words = format!("{} '{name}' has version {version} with other content; {advice}", word(kind));
            return Err(Problem::new(409, "version_taken", words));
        }
    };
    let status = if created { 201 } else { 200 };
    body::answer(status, &Put { kind: word(kind), name: name.as_str(), version, created })
}

/// Shows one definition.
pub(crate) async fn show(
    kind: DefinitionKind,
    State(app): State<Arc<App>>,
    context: Context,
    NameEntry(name): NameEntry,
    Query(version): Query<Version>,
) -> Result<Response, Problem> {
    context.caller.may(Action::ReadDefinition)?;
    let namespace = &context.caller.namespace;
    let stored = app.store.definition(kind, namespace, &name, version.version.as_deref()).await?;
    let Some(stored) = stored else {
        let which = version.version.map(|version| format!(" in version '{version}'")).unwrap_or_default();
        return Err(Problem::new(404, "not_found", format!("{} '{name}' does not exist{which}", word(kind))));
    };
    let mut view = DefinitionView::new(&stored).with_model(&app, &stored);
    if kind == DefinitionKind::Index {
        let stats = app.router.indexes().stats(namespace, &name).await?;
        let vectors = stats.namespaces.iter().map(|(_, count)| count).sum();
        view.index = Some(IndexFigures { vectors, disk_bytes: stats.disk_bytes });
    }
    body::answer(200, &view)
}

/// Shows the newest version of every definition of a kind.
pub(crate) async fn list(
    kind: DefinitionKind,
    State(app): State<Arc<App>>,
    context: Context,
) -> Result<Response, Problem> {
    context.caller.may(Action::ReadDefinition)?;
    let stored = app.store.definitions(kind, Some(&context.caller.namespace)).await?;
    let definitions = stored.iter().map(|stored| DefinitionView::new(stored).with_model(&app, stored)).collect();
    body::answer(200, &List { definitions })
}
