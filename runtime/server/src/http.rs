//! The HTTP surface: which routes there are, and what every request passes before it reaches one.
//!
//! Holds no rules: handlers read a request, ask the router, and show the answer. Used by `bootstrap`.

mod actors;
mod body;
mod check;
mod cluster;
pub(crate) mod context;
mod dead_letters;
mod definitions;
mod dialect;
mod document;
mod door;
mod encoding;
mod entry;
mod events;
pub(crate) mod health;
mod idempotency;
mod infer;
mod limits;
pub mod listener;
mod mistakes;
mod node;
mod open_inference;
mod partitions;
pub(crate) mod problem;
mod query;
mod run_source;
mod run_view;
mod runs;
mod schedules;
mod status;
mod steering;
mod streams;
mod why;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use motet_actors::router::Router;
use motet_engine::time::Timestamp;
use motet_store::port::Store;
use tokio_util::sync::CancellationToken;

pub use run_view::RunView;

use crate::grpc;
use crate::inference::served::Descriptions;
use limits::Limits;
use motet_config::Settings;
use problem::Problem;

/// What every handler needs. One per server.
pub struct App {
    /// The door to the actors.
    pub(crate) router: Arc<Router>,
    /// For what needs no actor: heads, definitions, health.
    pub(crate) store: Arc<dyn Store>,
    /// Bounds at the entrance.
    pub(crate) limits: Limits,
    /// Longest `?wait=`.
    pub(crate) max_wait: Duration,
    /// Longest time for a request, beside its wait.
    pub(crate) request_timeout: Duration,
    /// How long an idempotency key is kept.
    pub(crate) key_life: Duration,
    /// Name of the node.
    pub(crate) name: String,
    /// Whether it has the role `api`.
    pub(crate) answers_clients: bool,
    /// When the server started.
    pub(crate) started_at: Timestamp,
    /// The same for measuring.
    pub(crate) started: Instant,
    /// Set when nothing new is taken any more.
    pub(crate) stopping: CancellationToken,
    /// What models take and give, as far as it was asked.
    pub(crate) descriptions: Descriptions,
    metrics: PrometheusHandle,
}

/// Which listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// The API, with health beside it.
    Api,
    /// Models over gRPC.
    Grpc,
    /// Health and metrics only.
    Admin,
}

impl Surface {
    /// The name in settings, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "http",
            Self::Grpc => "grpc",
            Self::Admin => "admin",
        }
    }
}

/// The least life of an idempotency key: a client may repeat for a day.
const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

impl App {
    /// What handlers need, from the settings and the started node.
    #[must_use]
    pub fn new(
        settings: &Settings,
        router: Arc<Router>,
        store: Arc<dyn Store>,
        metrics: PrometheusHandle,
    ) -> Arc<Self> {
        Arc::new(Self {
            limits: Limits::new(&settings.http),
            max_wait: settings.http.max_wait,
            request_timeout: settings.http.request_timeout,
            key_life: KEY_LIFE,
            name: settings.node.name.clone(),
            answers_clients: Self::answers_clients(settings),
            started_at: router.now(),
            started: Instant::now(),
            stopping: CancellationToken::new(),
            router,
            store,
            descriptions: Descriptions::default(),
            metrics,
        })
    }

    /// Whether a node with these settings answers clients.
    #[must_use]
    pub fn answers_clients(settings: &Settings) -> bool {
        settings.cluster.address.is_none() || settings.cluster.roles().contains(&"api")
    }

    /// The routes of a surface.
    fn routes(self: &Arc<Self>, surface: Surface) -> axum::Router {
        let health = axum::Router::new()
            .route("/health/live", get(health::live))
            .route("/health/ready", get(health::ready))
            .route("/metrics", get(health::metrics));
        let routes = match surface {
            Surface::Admin => health,
            Surface::Grpc => return self.calls(),
            Surface::Api if self.answers_clients => health.merge(api()).merge(open_inference::routes()),
            Surface::Api => health.merge(nodes()),
        };
        let nothing = if self.answers_clients || surface == Surface::Admin {
            "there is nothing at this path; see /openapi.json"
        } else {
            "this node has not the role 'api': ask one that has, see /api/v1/cluster"
        };
        routes
            .route_layer(axum::middleware::from_fn(name_route))
            .fallback(async move || Problem::new(404, "unknown_route", nothing))
            .method_not_allowed_fallback(async || {
                Problem::new(
                    405,
                    "method_not_allowed",
                    "this path does not take this method; 'Allow' names those it takes",
                )
            })
            .with_state(Arc::clone(self))
    }
}

impl App {
    /// The calls of gRPC.
    fn calls(self: &Arc<Self>) -> axum::Router {
        axum::Router::new()
            .route_service(grpc::PATH, grpc::service(self))
            .route_layer(axum::middleware::from_fn(name_route))
            .fallback(async || Problem::new(501, "unknown_service", "this server has no such gRPC service"))
    }
}

/// Tells the door which route a request took.
async fn name_route(path: MatchedPath, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.extensions_mut().insert(door::Route(path));
    response
}

fn api() -> axum::Router<Arc<App>> {
    let definition = |kind| {
        get(async move |state, context, name, query| definitions::show(kind, state, context, name, query).await).put(
            async move |state, context, name, headers, body| {
                definitions::put(kind, state, context, name, headers, body).await
            },
        )
    };
    let list = |kind| get(async move |state, context| definitions::list(kind, state, context).await);
    use motet_store::port::DefinitionKind::{Index, Model, Schedule, Stream, Workflow};
    axum::Router::new()
        .route("/api/v1/workflows", list(Workflow))
        .route("/api/v1/workflows/{name}", definition(Workflow))
        .route("/api/v1/workflows/{name}/runs", post(runs::submit))
        .route("/api/v1/models", list(Model))
        .route("/api/v1/models/{name}", definition(Model))
        .route("/api/v1/models/{name}/infer", post(infer::infer))
        .route("/api/v1/indexes", list(Index))
        .route("/api/v1/indexes/{name}", definition(Index))
        .route("/api/v1/schedules", list(Schedule))
        .route("/api/v1/schedules/{name}", definition(Schedule).delete(schedules::delete))
        .route("/api/v1/streams", list(Stream))
        .route("/api/v1/streams/{name}", definition(Stream).delete(streams::delete))
        .merge(partitions())
        .route("/api/v1/check", post(check::check))
        .route("/api/v1/runs", get(runs::list))
        .route("/api/v1/runs/{id}", get(runs::show))
        .route("/api/v1/runs/{id}/cancel", post(steering::cancel))
        .route("/api/v1/runs/{id}/pause", post(steering::pause))
        .route("/api/v1/runs/{id}/resume", post(steering::resume))
        .route("/api/v1/runs/{id}/retry", post(steering::retry))
        .route("/api/v1/runs/{id}/fork", post(steering::fork))
        .route("/api/v1/runs/{id}/skip", post(steering::skip))
        .route("/api/v1/runs/{id}/signals/{name}", post(steering::signal))
        .route("/api/v1/runs/{id}/events", get(events::events))
        .route("/api/v1/runs/{id}/why", get(why::why))
        .merge(nodes())
}

/// The partitions of streams, and their dead letters.
fn partitions() -> axum::Router<Arc<App>> {
    const PARTITION: &str = "/api/v1/streams/{name}/partitions/{topic}/{partition}";
    const LETTER: &str = "/api/v1/streams/{name}/dead-letters/{topic}/{partition}/{generation}/{offset}";
    axum::Router::new()
        .route("/api/v1/streams/{name}/partitions", get(partitions::list))
        .route(&format!("{PARTITION}/pause"), post(partitions::pause))
        .route(&format!("{PARTITION}/resume"), post(partitions::resume))
        .route(&format!("{PARTITION}/seek"), post(partitions::seek))
        .route("/api/v1/streams/{name}/dead-letters", get(dead_letters::list))
        .route(LETTER, get(dead_letters::show))
        .route(&format!("{LETTER}/redrive"), post(dead_letters::redrive))
        .route(&format!("{LETTER}/discard"), post(dead_letters::discard))
}

/// What every node answers, whatever its roles.
fn nodes() -> axum::Router<Arc<App>> {
    axum::Router::new()
        .route("/api/v1/actors", get(actors::list))
        .route("/api/v1/cluster", get(cluster::show))
        .route("/api/v1/node", get(node::show))
        .route("/api/v1/nodes/{name}/drain", post(cluster::drain))
        .route("/openapi.json", get(document::show))
}
