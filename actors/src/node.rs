//! One node: which actors there are, who supervises whom, how it starts and how it stops.
//!
//! The tree: the root (which ends the process when a supervisor breaks) over the supervisors of runs, models, indexes,
//! calls to other services and the node's own services; under each its children. Used by the server's bootstrap and by benches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use motet_cluster::members::{ModelName, Replica};
use motet_cluster::shards::ShardHost;
use motet_engine::id::ShardId;
use motet_models::egress::HttpCaller;
use motet_models::port::ModelBackend;
use motet_models::source::ArtefactCache;
use motet_store::StoreError;
use motet_store::port::{Cache, HeadState, Store};
use motet_vectors::port::VectorBackend;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{Notify, watch};

use crate::catalog::Catalog;
use crate::census::Census;
use crate::driver::DriverParts;
use crate::egress::{Egress, EgressLimits, EgressNursery};
use crate::indexes::{IndexNursery, Indexes};
use crate::models::{Holding, ModelNursery, Models, ModelsParts};
use crate::peers::{Peers, Reception};
use crate::placement::Telling;
use crate::ports::{Clock, Entropy};
use crate::residency::Residency;
use crate::router::Router;
use crate::runs::{RunHost, RunNursery, Runs};
use crate::schedules::Schedules;
use crate::services::Services;
use crate::streams::{StreamNursery, StreamParts, Streams};
use crate::supervisor::{Children, Nursery, RestartPolicy, Supervisor};

/// What a node is made of. The server chooses the adapters.
pub struct NodeParts {
    /// Name of the node, written beside the shards that it owns.
    pub name: String,
    /// Where everything is remembered.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Random bits.
    pub entropy: Arc<dyn Entropy>,
    /// Which models can be run.
    pub model_backends: Vec<Arc<dyn ModelBackend>>,
    /// Which indexes can be opened.
    pub vector_backends: Vec<Arc<dyn VectorBackend>>,
    /// What sends HTTP calls.
    pub http_caller: Arc<dyn HttpCaller>,
    /// How many of them may be under way.
    pub egress: EgressLimits,
    /// Where model artefacts are brought to.
    pub artefacts: Arc<ArtefactCache>,
    /// Bytes that loaded models may take together; 0 for no bound.
    pub model_memory: u64,
    /// Where nodes share the responses of models; none for each its own.
    pub responses: Option<Arc<dyn Cache>>,
    /// Number of shards, fixed for the life of a store.
    pub shards: u16,
    /// Run actors at one time.
    pub max_live: usize,
    /// Unfinished runs past which no more are taken.
    pub max_unfinished: u64,
    /// Results waiting to be sent, for each node, past which no records are read.
    pub max_outbox: u64,
    /// Unfinished runs brought up per second after a start.
    pub recovery_per_second: u32,
    /// Whether it runs alone and claims every shard at its start; a node among others is given shards.
    pub alone: bool,
    /// What reads the records of streams.
    pub streams: StreamParts,
    /// Whether a node among others has models (the role `models`); one that runs alone has them all.
    pub holds_models: bool,
}

/// A running node.
pub struct Node {
    router: Arc<Router>,
    store: Arc<dyn Store>,
    root: ActorRef<()>,
    broken: Arc<Notify>,
    telling: OnceLock<Telling>,
}

impl Node {
    /// Claims the shards and starts the tree. Unfinished runs come up in the background.
    ///
    /// # Errors
    /// When the store cannot be read or written, or an actor cannot start.
    pub async fn start(parts: NodeParts) -> Result<Self, StoreError> {
        let census = Arc::new(Census::default());
        let catalog = Arc::new(Catalog::new(Arc::clone(&parts.store), Arc::clone(&parts.clock)));
        let drivers = DriverParts {
            store: Arc::clone(&parts.store),
            catalog: Arc::clone(&catalog),
            clock: Arc::clone(&parts.clock),
        };
        let runs = Runs::new(drivers, Arc::clone(&census), parts.shards.max(1), parts.max_live);
        if parts.alone {
            claim_shards(&*parts.store, &runs, &parts.name).await?;
            let later = parts.store.counts().await?.into_iter().filter(|(state, _)| *state < HeadState::Waiting);
            runs.backlog().expect(later.map(|(_, count)| count).sum());
        }
        let holding = holding(&parts);
        let models = Models::new(ModelsParts {
            catalog: Arc::clone(&catalog),
            census: Arc::clone(&census),
            backends: parts.model_backends,
            artefacts: parts.artefacts,
            memory: Residency::new(parts.model_memory),
            holding,
            entropy: Arc::clone(&parts.entropy),
            responses: parts.responses,
        });
        let indexes = Indexes::new(Arc::clone(&catalog), Arc::clone(&census), parts.vector_backends);
        let entropy = Arc::clone(&parts.entropy);
        let egress = Egress::new(Arc::clone(&census), parts.http_caller, parts.egress, entropy);
        let streams = Streams::new(
            parts.streams,
            parts.name.clone(),
            Arc::clone(&parts.store),
            Arc::clone(&catalog),
            Arc::clone(&census),
            Arc::clone(&parts.entropy),
        );
        let router = Arc::new(Router {
            runs: Arc::clone(&runs),
            streams: Arc::clone(&streams),
            models: Arc::clone(&models),
            indexes: Arc::clone(&indexes),
            egress: Arc::clone(&egress),
            schedules: Arc::new(Schedules::default()),
            catalog,
            census: Arc::clone(&census),
            entropy: Arc::clone(&parts.entropy),
            clock: parts.clock,
            max_unfinished: parts.max_unfinished,
            max_outbox: parts.max_outbox,
            open: AtomicBool::new(true),
            peers: OnceLock::new(),
        });
        let broken = Arc::new(Notify::new());
        let (root, _) = Actor::spawn(None, Root { broken: Arc::clone(&broken) }, ()).await.map_err(cannot_start)?;
        let tree = Tree { root: root.get_cell(), census, entropy: parts.entropy };
        let run_supervisor = tree.supervise(Arc::new(RunNursery(Arc::clone(&runs))), runs.children()).await?;
        runs.wire(run_supervisor, Arc::downgrade(&router));
        models.wire(tree.supervise(Arc::new(ModelNursery(Arc::clone(&models))), models.children()).await?);
        indexes.wire(tree.supervise(Arc::new(IndexNursery(Arc::clone(&indexes))), indexes.children()).await?);
        egress.wire(tree.supervise(Arc::new(EgressNursery(Arc::clone(&egress))), egress.children()).await?);
        let supervisor = tree.supervise(Arc::new(StreamNursery(Arc::clone(&streams))), streams.children()).await?;
        streams.wire(supervisor, Arc::downgrade(&router));
        let services = Services::new(runs, streams, Arc::downgrade(&router), parts.recovery_per_second);
        let supervisor = tree.supervise(Arc::clone(&services) as Arc<dyn Nursery>, services.children()).await?;
        services.start(supervisor).await.map_err(StoreError::Refused)?;
        Ok(Self { router, store: parts.store, root, broken, telling: OnceLock::new() })
    }

    /// The door to the node's actors.
    #[must_use]
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// Makes it one of several nodes: questions to actors elsewhere go there from now on.
    pub fn join(&self, peers: Peers) {
        // Once: a node has one link.
        let _ = self.router.peers.set(Arc::new(peers));
    }

    /// The models of this node, for others to hear: changes that matter, at most every half second.
    #[must_use]
    pub fn models_told(&self) -> watch::Receiver<BTreeMap<ModelName, Replica>> {
        self.telling.get_or_init(|| Telling::start(Arc::downgrade(&self.router.models))).told()
    }

    /// What answers the questions of other nodes.
    #[must_use]
    pub fn reception(&self) -> Arc<Reception> {
        Reception::new(Arc::downgrade(&self.router), Arc::clone(&self.store))
    }

    /// What takes shards and gives them away.
    #[must_use]
    pub fn shard_host(&self) -> Arc<dyn ShardHost> {
        Arc::new(RunHost(Arc::clone(&self.router.runs)))
    }

    /// The node's store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Resolves when a supervisor broke and the node must end.
    pub async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Takes no new runs from now on.
    pub fn close(&self) {
        self.router.open.store(false, Ordering::Relaxed);
    }

    /// Stops: lets live runs end for at most `grace`, ends the actors of the rest, whose runs go on after the next
    /// start, and closes the store. Returns how many runs were handed back.
    ///
    /// # Errors
    /// When the store cannot be closed cleanly; what was acknowledged is durable all the same.
    pub async fn stop(self, grace: Duration) -> Result<usize, StoreError> {
        let store = Arc::clone(&self.store);
        let left = self.end(grace).await;
        store.close().await?;
        Ok(left)
    }

    /// The same without closing the store, which others in this process may share.
    pub async fn end(self, grace: Duration) -> usize {
        self.close();
        // Nothing more comes in; what was read is durable or read again by whoever is given the partitions.
        self.router.streams.end_all().await;
        let _ = tokio::time::timeout(grace, self.router.runs.idle()).await;
        let left = self.router.runs.live();
        self.router.runs.stop().await;
        self.root.stop_children(None);
        // Children of the supervisors close indexes and unload models in their own last handler.
        let ended = self.root.stop_and_wait(None, Some(Duration::from_secs(5))).await;
        if let Err(error) = ended {
            tracing::warn!(%error, "the actor tree did not end in time");
        }
        left
    }
}

fn holding(parts: &NodeParts) -> Holding {
    match (parts.alone, parts.holds_models) {
        (true, _) => Holding::All,
        (false, true) => Holding::Placed,
        (false, false) => Holding::None,
    }
}

async fn claim_shards(store: &dyn Store, runs: &Runs, owner: &str) -> Result<(), StoreError> {
    let claims = (0..runs.shards())
        .map(ShardId)
        .map(|shard| async move { store.claim(shard, owner).await.map(|epoch| runs.take_over(shard, epoch)) });
    // Together, so that one commit holds many claims.
    futures::future::try_join_all(claims).await.map(drop)
}

fn cannot_start(error: ractor::SpawnErr) -> StoreError {
    StoreError::Refused(format!("an actor cannot start: {error}"))
}

struct Tree {
    root: ActorCell,
    census: Arc<Census>,
    entropy: Arc<dyn Entropy>,
}

impl Tree {
    async fn supervise(&self, nursery: Arc<dyn Nursery>, children: &Arc<Children>) -> Result<ActorCell, StoreError> {
        let supervisor = Supervisor {
            nursery,
            children: Arc::clone(children),
            census: Arc::clone(&self.census),
            policy: RestartPolicy::default(),
            entropy: Arc::clone(&self.entropy),
        };
        let (supervisor, _) =
            Actor::spawn_linked(None, supervisor, (), self.root.clone()).await.map_err(cannot_start)?;
        Ok(supervisor.get_cell())
    }
}

/// The top of the tree: a supervisor that breaks takes its children down, so the process must start anew.
struct Root {
    broken: Arc<Notify>,
}

impl Actor for Root {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        _: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, error) = event {
            tracing::error!(%error, "a supervisor broke; the node ends, and its runs go on after the next start");
            self.broken.notify_one();
        }
        Ok(())
    }
}
