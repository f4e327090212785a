//! The vector indexes of this node: opening, the way to each, and what they hold.
//!
//! An index is opened when it is first called or when it is put. Queries go beside one another straight to the index;
//! writes go through its actor, which batches them. Used by the router and the API.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use dashmap::DashMap;
use motet_engine::access::Caller;
use motet_engine::definition::IndexDefinition;
use motet_engine::failure::{Failure, FailureClass};
use motet_engine::id::{Name, Namespace};
use motet_engine::value::{Map, Value};
use motet_vectors::port::{VectorBackend, VectorIndex};
use ractor::{Actor, ActorCell};
use tokio::sync::{Mutex, Semaphore, oneshot};

use crate::address::Address;
use crate::catalog::{Catalog, CatalogError};
use crate::census::Census;
use crate::index_actor::{IndexActor, IndexMessage, Write};
use crate::mailbox::{Mailbox, SendError};
use crate::message::{IndexAsk, RouteError};
use crate::supervisor::{Children, Nursery};
use crate::vector_call;

/// Writes that may wait for one index.
const WRITES: usize = 4096;

/// Places in the mailbox: the writes, and what the actor tells itself.
const MAILBOX: usize = WRITES + 64;

/// Queries that may run on one index at a time; more of them wait their turn.
const QUERIES: usize = 32;

struct Opened {
    index: Arc<dyn VectorIndex>,
    mailbox: Mailbox<IndexMessage>,
    queries: Arc<Semaphore>,
    /// Places for writes that wait or are being stored. A write waits for one as long as its caller has patience:
    /// an accepted run must not fail for want of room.
    writes: Arc<Semaphore>,
}

type Slot = Arc<Mutex<Option<Arc<Opened>>>>;

/// The vector indexes of this node.
pub struct Indexes {
    catalog: Arc<Catalog>,
    census: Arc<Census>,
    children: Arc<Children>,
    backends: BTreeMap<&'static str, Arc<dyn VectorBackend>>,
    slots: DashMap<(Namespace, Name), Slot>,
    supervisor: OnceLock<ActorCell>,
}

impl Indexes {
    pub(crate) fn new(catalog: Arc<Catalog>, census: Arc<Census>, backends: Vec<Arc<dyn VectorBackend>>) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            census,
            children: Arc::default(),
            backends: backends.into_iter().map(|backend| (backend.name(), backend)).collect(),
            slots: DashMap::new(),
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

    /// Checks that a definition's backend is known here.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, definition: &IndexDefinition) -> Result<(), Failure> {
        self.backend(definition).map(drop)
    }

    fn backend(&self, definition: &IndexDefinition) -> Result<&Arc<dyn VectorBackend>, Failure> {
        self.backends.get(definition.backend.as_str()).ok_or_else(|| {
            let known: Vec<_> = self.backends.keys().copied().collect();
            let words =
                format!("backend '{}' is not in this build; there are: {}", definition.backend, known.join(", "));
            Failure::new(FailureClass::Invalid, words)
        })
    }

    async fn opened(&self, namespace: &Namespace, name: &Name) -> Result<Arc<Opened>, RouteError> {
        let key = (namespace.clone(), name.clone());
        let slot = self.slots.get(&key).map(|slot| Arc::clone(&slot));
        if let Some(slot) = &slot
            && let Some(opened) = &*slot.lock().await
            && !opened.mailbox.is_gone()
        {
            return Ok(Arc::clone(opened));
        }
        let definition = self.catalog.index(namespace, name).await.map_err(|error| not_to_be_had(name, &error))?;
        let slot = Arc::clone(&self.slots.entry(key).or_default());
        let mut place = slot.lock().await;
        if let Some(opened) = &*place
            && !opened.mailbox.is_gone()
        {
            return Ok(Arc::clone(opened));
        }
        let opened = Arc::new(self.open(namespace, definition).await?);
        *place = Some(Arc::clone(&opened));
        Ok(opened)
    }

    async fn open(&self, namespace: &Namespace, definition: Arc<IndexDefinition>) -> Result<Opened, RouteError> {
        let backend = self.backend(&definition)?;
        let index: Arc<dyn VectorIndex> =
            Arc::from(backend.open(&format!("{namespace}@{}", definition.name), &definition).await?);
        let address = Address::Index(namespace.clone(), definition.name.clone());
        let vitals = self.census.enter(address.clone(), MAILBOX);
        let actor = IndexActor {
            definition,
            index: Arc::clone(&index),
            vitals: Arc::clone(&vitals),
            caller: crate::router::system_caller(namespace.clone()),
        };
        let Some(supervisor) = self.supervisor.get() else { return Err(RouteError::NotOwner) };
        let (actor, _) = Actor::spawn_linked(None, actor, (), supervisor.clone()).await.map_err(|error| {
            Failure::new(FailureClass::Internal, format!("the index's actor cannot start: {error}"))
        })?;
        self.children.enter(&actor.get_cell(), address);
        Ok(Opened {
            index,
            mailbox: Mailbox::new(actor, vitals),
            queries: Arc::new(Semaphore::new(QUERIES)),
            writes: Arc::new(Semaphore::new(WRITES)),
        })
    }

    pub(crate) async fn ask(&self, caller: &Caller, name: &Name, ask: IndexAsk) -> Result<Value, RouteError> {
        let opened = self.opened(&caller.namespace, name).await?;
        match ask {
            IndexAsk::Query { with, .. } => {
                let query = vector_call::query(&with)?;
                let _turn = opened.queries.acquire().await.map_err(|_| RouteError::NotOwner)?;
                Ok(vector_call::matches(opened.index.query(query).await?))
            }
            IndexAsk::Upsert { with, .. } => {
                let (namespace, records) = vector_call::upsert(&with)?;
                let count = i64::try_from(records.len()).unwrap_or(i64::MAX);
                let place = Arc::clone(&opened.writes).acquire_owned().await.map_err(|_| unavailable(name))?;
                let (reply, answer) = oneshot::channel();
                let write = IndexMessage::Write(Write { namespace, records, reply, _place: place });
                opened.mailbox.try_send(caller, write).map_err(|error| match error {
                    SendError::Full => RouteError::Overloaded(format!("the queue of index '{name}' is full")),
                    SendError::Gone => unavailable(name),
                })?;
                answer.await.map_err(|_| unavailable(name))??;
                Ok(Map::from([("upserted".into(), Value::Int(count))]).into())
            }
            IndexAsk::Stats => {
                let stats = serde_json::to_value(opened.index.stats().await?);
                let internal = |error: serde_json::Error| Failure::new(FailureClass::Internal, error.to_string());
                Ok(Value::from(stats.map_err(internal)?))
            }
        }
    }
}

/// Why a definition of an index is not there.
pub(crate) fn not_to_be_had(name: &Name, error: &CatalogError) -> RouteError {
    match error {
        CatalogError::Unknown { .. } => RouteError::Unknown(format!("index '{name}'")),
        error => Failure::new(FailureClass::Internal, error.to_string()).into(),
    }
}

fn unavailable(name: &Name) -> RouteError {
    Failure::new(FailureClass::Unavailable, format!("index '{name}' is being restarted")).into()
}

/// What the supervisor of indexes needs to know.
pub(crate) struct IndexNursery(pub(crate) Arc<Indexes>);

#[async_trait]
impl Nursery for IndexNursery {
    async fn revive(&self, child: &Address) -> Result<(), String> {
        let Address::Index(namespace, name) = child else { return Ok(()) };
        self.0.opened(namespace, name).await.map(drop).map_err(|error| error.to_string())
    }

    fn ended(&self, _: &Address) {}

    fn quarantined(&self, child: &Address, reason: &str) {
        tracing::error!(index = %child, reason, "index stays closed until it is called again");
    }
}
