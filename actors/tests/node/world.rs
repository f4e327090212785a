//! A node over stores of its own, and what tests ask of it.

use std::sync::Arc;
use std::time::Duration;

use motet_actors::egress::EgressLimits;
use motet_actors::node::{Node, NodeParts};
use motet_actors::ports::{SystemClock, SystemEntropy};
use motet_actors::router::SubmitRequest;
use motet_actors::streams::StreamParts;
use motet_broker::memory::MemoryBroker;
use motet_broker::port::Broker;
use motet_engine::access::{Caller, Principal};
use motet_engine::definition::document::parse_definitions;
use motet_engine::id::{Name, Namespace, RunId};
use motet_engine::run::Run;
use motet_engine::trace::TraceContext;
use motet_models::egress::{AllowList, ReqwestCaller};
use motet_models::fake::FakeBackend;
use motet_models::port::ModelBackend;
use motet_models::source::ArtefactCache;
use motet_schemas::port::RecordDecoder;
use motet_store::memory::MemoryStore;
use motet_store::port::Store;
use motet_store::sqlite::SqliteStore;
use motet_vectors::embedded::EmbeddedBackend;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    store: Arc<dyn Store>,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { store: Arc::new(MemoryStore::new()), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn node(&self) -> Node {
        self.node_with(1_000, 1_000).await
    }

    pub(crate) async fn node_with(&self, max_live: usize, max_unfinished: u64) -> Node {
        self.node_on(Arc::clone(&self.store), max_live, max_unfinished).await
    }

    /// A node over the database in this world's folder, which outlives the node.
    pub(crate) async fn durable_node(&self) -> Node {
        let store = SqliteStore::open(&self.folder.path().join("data")).await.unwrap();
        self.node_on(Arc::new(store), 1_000, 1_000).await
    }

    /// A node over that database which reads streams.
    pub(crate) async fn ingesting_node(&self, broker: Arc<dyn Broker>) -> Node {
        self.decoding_node(broker, None).await
    }

    /// One that also decodes what needs a schema.
    pub(crate) async fn decoding_node(&self, broker: Arc<dyn Broker>, decoder: Option<Arc<dyn RecordDecoder>>) -> Node {
        let store = SqliteStore::open(&self.folder.path().join("data")).await.unwrap();
        let streams = StreamParts { broker: Some(broker), decoder, ingests: true };
        let parts = self.parts(Arc::new(store), 1_000, 1_000);
        Node::start(NodeParts { streams, ..parts }).await.unwrap()
    }

    /// A node over a store which reads streams, and lets so many results wait.
    pub(crate) async fn ingesting_node_on(
        &self,
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        max_outbox: u64,
    ) -> Node {
        let streams = StreamParts { broker: Some(broker), ingests: true, ..StreamParts::default() };
        let parts = self.parts(store, 1_000, 1_000);
        Node::start(NodeParts { streams, max_outbox, ..parts }).await.unwrap()
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// A node among others, which is given shards.
    pub(crate) async fn member(&self, shards: u16, holds_models: bool) -> Node {
        let parts = self.parts(Arc::clone(&self.store), 1_000, 1_000);
        Node::start(NodeParts { shards, alone: false, holds_models, ..parts }).await.unwrap()
    }

    pub(crate) async fn node_on(&self, store: Arc<dyn Store>, max_live: usize, max_unfinished: u64) -> Node {
        Node::start(self.parts(store, max_live, max_unfinished)).await.unwrap()
    }

    /// A node whose models may take so much memory, and what its fakes do.
    pub(crate) async fn node_with_memory(&self, model_memory: u64) -> (Node, FakeBackend) {
        let fakes = FakeBackend::new();
        let parts = self.parts(Arc::clone(&self.store), 1_000, 1_000);
        let model_backends: Vec<Arc<dyn ModelBackend>> = vec![Arc::new(fakes.clone())];
        (Node::start(NodeParts { model_backends, model_memory, ..parts }).await.unwrap(), fakes)
    }

    fn parts(&self, store: Arc<dyn Store>, max_live: usize, max_unfinished: u64) -> NodeParts {
        NodeParts {
            name: "test".into(),
            store,
            clock: Arc::new(SystemClock::default()),
            entropy: Arc::new(SystemEntropy),
            model_backends: vec![Arc::new(FakeBackend::new())],
            vector_backends: vec![Arc::new(EmbeddedBackend::new(self.folder.path().join("indexes")))],
            http_caller: Arc::new(ReqwestCaller::new(AllowList::default(), 1 << 20)),
            egress: EgressLimits { in_flight: 6, in_flight_per_host: 4 },
            artefacts: Arc::new(ArtefactCache::new(self.folder.path().join("artefacts"))),
            model_memory: 0,
            responses: None,
            shards: 4,
            max_live,
            max_unfinished,
            max_outbox: 100_000,
            recovery_per_second: 10_000,
            alone: true,
            streams: StreamParts { broker: Some(Arc::new(MemoryBroker::new())), ..StreamParts::default() },
            holds_models: true,
        }
    }
}

pub(crate) fn caller() -> Caller {
    Caller { namespace: Namespace::default(), principal: Principal::Local, trace: TraceContext::start(1, 1) }
}

pub(crate) async fn apply(node: &Node, yaml: &str) {
    for definition in parse_definitions("test.yaml", yaml).unwrap() {
        node.router().put(&caller(), &definition).await.unwrap();
    }
}

pub(crate) fn request(workflow: &str, input: serde_json::Value) -> SubmitRequest {
    SubmitRequest {
        workflow: Name::new(workflow).unwrap(),
        version: None,
        input: input.into(),
        tags: vec![],
        priority: 0,
        idempotency: None,
    }
}

pub(crate) async fn submit(node: &Node, workflow: &str, input: serde_json::Value) -> RunId {
    node.router().submit(&caller(), request(workflow, input)).await.unwrap().run
}

pub(crate) async fn finish(node: &Node, run: RunId) -> Run {
    let run = node.router().wait_for_end(&caller(), run, PATIENCE).await.unwrap();
    assert!(run.phase().is_end(), "{:?}", run.state());
    run
}

pub(crate) fn output(run: &Run) -> serde_json::Value {
    run.output().unwrap_or_else(|| panic!("{:?}", run.state().failure)).to_json()
}

pub(crate) const ECHO: &str = "
kind: Model
name: echo
backend: fake
---
kind: Workflow
name: echo
steps:
  first: {call: model, model: echo, with: {text: '${ input.text }'}}
  second: {call: model, model: echo, with: {text: '${ steps.first.output.text }'}}
output: '${ steps.second.output.text }'
";

/// Looks again and again until the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            looks.tick().await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for {what}");
}
