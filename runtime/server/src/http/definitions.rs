//! Putting, reading and listing workflows, models, indexes, schedules and streams.
//!
//! Holds no rules of definitions; the engine and the catalog do. Used by the routes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use motet_actors::catalog::{has_revisions, is_deleted, word};
use motet_actors::models::{Loading, ModelNode};
use motet_actors::stats::ModelFigures;
use motet_engine::access::Action;
use motet_engine::definition::{Definition, Metric};
use motet_engine::failure::Failure;
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
use super::schedules::ScheduleView;
use super::streams::BlockedView;
use super::{App, body, mistakes};

/// Longest wait for what an index says of itself, which may live on another node.
const INDEX_PATIENCE: Duration = Duration::from_secs(2);

/// A definition as it is stored, and how it does on this node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Definition)]
pub(crate) struct DefinitionView<'a> {
    /// `workflow`, `model`, `index`, `schedule` or `stream`.
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
    /// Backend of a model or index.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    /// A model's state on this node: `unloaded` until it is put or called, `loading`, `ready` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    state: Option<&'static str>,
    /// How far the load of a model has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    loading: Option<Loading>,
    /// Why a model failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<super::run_view::ErrorView<'_>>)]
    error: Option<Failure>,
    /// The nodes of a cluster that have a model, as they tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    nodes: Option<Vec<ModelNode>>,
    /// What a loaded model takes, gives and is.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<serde_json::Value>,
    /// What a model did since the node started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    figures: Option<ModelFigures>,
    /// Length of an index's vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    dimension: Option<u32>,
    /// How near two vectors of an index are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    metric: Option<Metric>,
    /// Vectors in all namespaces of an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<u64>,
    /// Vectors by namespace of an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<BTreeMap<String, u64>>,
    /// Bytes of an index on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bytes: Option<u64>,
    /// When a schedule begins its next run, and how the last one went.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<ScheduleView>,
    /// Why the topic of a stream's results takes none, where they wait on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<BlockedView>,
    /// The document as it was put.
    document: &'a serde_json::Value,
}

/// Definitions of one kind in their newest versions, by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DefinitionList)]
pub(crate) struct List<'a> {
    /// Workflows, when those were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    workflows: Option<Vec<DefinitionView<'a>>>,
    /// Models, when those were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<Vec<DefinitionView<'a>>>,
    /// Indexes, when those were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    indexes: Option<Vec<DefinitionView<'a>>>,
    /// Schedules, when those were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedules: Option<Vec<DefinitionView<'a>>>,
    /// Streams, when those were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<Vec<DefinitionView<'a>>>,
}

/// What became of a definition that was put.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PutResult)]
pub(crate) struct Put<'a> {
    /// `workflow`, `model`, `index`, `schedule` or `stream`.
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
    async fn new(app: &App, stored: &'a StoredDefinition) -> Self {
        let view = Self {
            kind: word(stored.kind),
            namespace: stored.namespace.0.as_str(),
            name: stored.name.as_str(),
            version: &stored.version,
            created_at: stored.created_at,
            backend: stored.document["backend"].as_str(),
            state: None,
            loading: None,
            error: None,
            nodes: None,
            signature: None,
            figures: None,
            dimension: None,
            metric: None,
            vectors: None,
            namespaces: None,
            disk_bytes: None,
            schedule: None,
            blocked: None,
            document: &stored.document,
        };
        match stored.kind {
            DefinitionKind::Workflow => view,
            DefinitionKind::Stream => Self { blocked: BlockedView::of(app, &stored.document), ..view },
            DefinitionKind::Model => view.with_model(app, stored),
            DefinitionKind::Index => view.with_index(app, stored).await,
            DefinitionKind::Schedule => {
                let figures = app.router.schedules().figures(&stored.namespace, &stored.name);
                Self { schedule: Some(ScheduleView::new(&stored.document, figures)), ..view }
            }
        }
    }

    fn with_model(self, app: &App, stored: &StoredDefinition) -> Self {
        let live = app.router.models().view(&stored.namespace, &stored.name);
        let nodes = app.router.model_nodes(&stored.namespace, &stored.name);
        match live.filter(|live| live.version == stored.version) {
            None => Self { state: Some("unloaded"), nodes, ..self },
            Some(live) => Self {
                state: Some(live.state),
                nodes,
                loading: live.loading,
                error: live.error,
                signature: live.signature,
                figures: Some(live.figures),
                ..self
            },
        }
    }

    async fn with_index(self, app: &App, stored: &StoredDefinition) -> Self {
        match app.router.index_stats(&stored.namespace, &stored.name, INDEX_PATIENCE).await {
            Ok(stats) => Self {
                // Named by its default where the document leaves it out.
                backend: self.backend.or(Some("embedded")),
                dimension: Some(stats.dimension),
                metric: Some(stats.metric),
                vectors: Some(stats.namespaces.iter().map(|(_, count)| count).sum()),
                namespaces: Some(stats.namespaces.into_iter().collect()),
                disk_bytes: Some(stats.disk_bytes),
                ..self
            },
            Err(error) => Self { state: Some("failed"), error: Some(error.into_failure()), ..self },
        }
    }
}

/// Kind, name and version of a definition.
pub(crate) fn identity(definition: &Definition) -> (DefinitionKind, &Name, &str) {
    match definition {
        Definition::Workflow(workflow) => (DefinitionKind::Workflow, &workflow.name, &workflow.version),
        Definition::Model(model) => (DefinitionKind::Model, &model.name, &model.version),
        // An index has one version for life: its vectors are bound to its shape.
        Definition::Index(index) => (DefinitionKind::Index, &index.name, "1"),
        // The store counts the revisions of a schedule and of a stream.
        Definition::Schedule(schedule) => (DefinitionKind::Schedule, &schedule.name, "1"),
        Definition::Stream(stream) => (DefinitionKind::Stream, &stream.name, "1"),
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
    let revision = match has_revisions(kind) {
        true => app.store.definition(kind, &context.caller.namespace, &name, None).await?,
        false => None,
    };
    let version = revision.as_ref().map_or(version, |stored| &stored.version);
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
    let Some(stored) = stored.filter(|stored| !is_deleted(stored)) else {
        let which = version.version.map(|version| format!(" in version '{version}'")).unwrap_or_default();
        return Err(Problem::new(404, "not_found", format!("{} '{name}' does not exist{which}", word(kind))));
    };
    body::answer(200, &DefinitionView::new(&app, &stored).await)
}

/// Shows the newest version of every definition of a kind.
pub(crate) async fn list(
    kind: DefinitionKind,
    State(app): State<Arc<App>>,
    context: Context,
) -> Result<Response, Problem> {
    context.caller.may(Action::ReadDefinition)?;
    let stored = app.store.definitions(kind, Some(&context.caller.namespace)).await?;
    let mut views = vec![];
    for stored in stored.iter().filter(|stored| !is_deleted(stored)) {
        views.push(DefinitionView::new(&app, stored).await);
    }
    let mut list = List { workflows: None, models: None, indexes: None, schedules: None, streams: None };
    match kind {
        DefinitionKind::Workflow => list.workflows = Some(views),
        DefinitionKind::Model => list.models = Some(views),
        DefinitionKind::Index => list.indexes = Some(views),
        DefinitionKind::Schedule => list.schedules = Some(views),
        DefinitionKind::Stream => list.streams = Some(views),
    }
    body::answer(200, &list)
}
