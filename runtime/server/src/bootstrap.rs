//! From settings to a serving process and back: the only place that chooses adapters.
//!
//! Never decides about runs and never reads settings' files. Used by `motet serve`, by the demo and by tests.

mod adapters;
mod cluster;
mod kafka;
mod migration;
mod registry;
mod resources;
mod retention;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use motet_actors::node::Node;
use motet_actors::router::Router;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::listener::{self, Listener};
use crate::http::{App, Surface};
use crate::shutdown;
use crate::telemetry;
use cluster::Membership;
use motet_config::Settings;

pub use migration::{Migrated, migrate};

/// How long the listeners wait for connections to end once no request is worked on any more.
const LINGER: Duration = Duration::from_secs(5);

/// A node that serves.
pub struct RunningServer {
    node: Node,
    membership: Option<Membership>,
    app: Arc<App>,
    http: Listener,
    grpc: Option<Listener>,
    admin: Listener,
    background: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl RunningServer {
    /// Where the API listens.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where models are called over gRPC; none on a node that answers no clients.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(Listener::address)
    }

    /// Where health and metrics are served for operators.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The door to the node's actors.
    #[must_use]
    pub fn router(&self) -> &Arc<Router> {
        self.node.router()
    }

    /// The node behind the surface.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Resolves when the node can not go on by itself.
    pub async fn broken(&self) {
        self.node.broken().await;
    }

    /// Stops: takes nothing new, lets requests and runs end for at most `grace`, closes the store. Returns how many
    /// live runs were handed back to the store, from where they go on after the next start.
    ///
    /// # Errors
    /// When the store cannot be closed cleanly.
    pub async fn stop(self, grace: Duration) -> anyhow::Result<usize> {
        let deadline = Instant::now() + grace;
        self.node.close();
        self.app.stopping.cancel();
        // Requests that wait for their runs are answered while those runs may still end.
        let calls = async {
            if let Some(grpc) = self.grpc {
                grpc.stop(grace).await;
            }
        };
        futures::join!(self.http.stop(grace), calls);
        if let Some(membership) = self.membership {
            // Others go on with the runs at once, so they need not end here first.
            membership.leave(deadline.saturating_duration_since(Instant::now())).await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let stopped = self.node.stop(left).await;
        self.background.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task did not end well");
            }
        }
        self.admin.stop(LINGER).await;
        stopped.context("the store could not be closed cleanly; what was acknowledged is durable all the same")
    }
}

/// Starts a node and its listeners; returns when both listen and all definitions of the resources folder are put.
///
/// # Errors
/// When an address is taken, the store cannot be opened, or a definition has mistakes; each error says what to do.
pub async fn start(settings: Settings) -> anyhow::Result<RunningServer> {
    let metrics = telemetry::metrics::install()?;
    // Before anything else is touched: a second server on the same machine should fail for the reason it will see.
    let http = listener::bind(settings.http.address, "http").await?;
    let grpc = match App::answers_clients(&settings) {
        true => Some(listener::bind(settings.grpc.address, "grpc").await?),
        false => None,
    };
    let admin = listener::bind(settings.admin.address, "admin").await?;
    let node = Node::start(adapters::parts(&settings).await?).await.context("the node cannot start")?;
    let background = CancellationToken::new();
    let app = App::new(&settings, Arc::clone(node.router()), Arc::clone(node.store()), metrics.clone());
    if let Some(folder) = &settings.resources.folder
        && let Err(error) = resources::load(node.router(), folder).await
    {
        // Nothing runs yet; what matters to the reader is the mistake in the definition.
        let _ = node.stop(Duration::ZERO).await;
        return Err(error);
    }
    let membership = match Membership::join(&settings, &node).await {
        Ok(membership) => membership,
        Err(error) => {
            let _ = node.stop(Duration::ZERO).await;
            return Err(error);
        }
    };
    let tasks = vec![
        tokio::spawn(retention::run(Arc::clone(node.store()), settings.runs.retention, background.clone())),
        tokio::spawn(telemetry::metrics::run(metrics, background.clone())),
    ];
    let http = http.serve(Surface::Api, &app);
    let grpc = grpc.map(|grpc| grpc.serve(Surface::Grpc, &app));
    let admin = admin.serve(Surface::Admin, &app);
    let calls = grpc.as_ref().map(|grpc| grpc.address().to_string()).unwrap_or_default();
    tracing::info!(
        http = %http.address(), grpc = calls, admin = %admin.address(), store = %settings.store.url, "serving"
    );
    Ok(RunningServer { node, membership, app, http, grpc, admin, background, tasks })
}

/// Serves until the process is asked to end or the node breaks. A second request to end takes effect at once.
///
/// # Errors
/// When the server cannot start, breaks, or cannot be stopped cleanly.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    telemetry::init(&settings.log)?;
    let mut signals = shutdown::Signals::listen()?;
    let grace = settings.shutdown.grace;
    let server = tokio::select! {
        server = start(settings) => server?,
        name = signals.next() => {
            tracing::info!(signal = name, "asked to end while starting");
            return Ok(());
        }
    };
    let broken = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, grace_ms = grace.as_millis(), "stopping; once more ends at once");
            false
        }
        () = server.broken() => true,
    };
    shutdown::end_at_once_on_next(signals);
    let handed_back = server.stop(grace).await?;
    tracing::info!(unfinished_runs = handed_back, "stopped; unfinished runs go on after the next start");
    anyhow::ensure!(!broken, "a supervisor broke; the log above says which one");
    Ok(())
}
