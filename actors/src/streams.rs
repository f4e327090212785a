//! The streams of this node: which it reads, the partitions that the group has given to it, and the way to their actors.
//!
//! Decides nothing about records; the partition's actor does, by the engine's rules. Where a partition stands is in the
//! store. Used by the actors of streams and partitions, by the router and the API.

mod blocked;
mod keeper;
mod nursery;
mod origins;
mod pacing;
mod view;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use dashmap::DashMap;
use motet_broker::BrokerError;
use motet_broker::port::{Broker, Place, RecordSink, SinkSettings, SourceHandle};
use motet_engine::definition::{Format, StreamDefinition};
use motet_engine::id::{Name, Namespace};
use motet_engine::stream::{self, Decoded, Incoming, Undecoded};
use motet_schemas::port::{RecordDecoder, Undecided};
use motet_store::port::{PartitionKey, Store};
use ractor::{Actor, ActorCell};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::address::Address;
use crate::catalog::{Catalog, StoredStream};
use crate::census::Census;
use crate::mailbox::Mailbox;
use crate::partition_actor::{PartitionActor, PartitionMessage};
use crate::ports::Entropy;
use crate::router::{Router, system_caller};
use crate::stream_actor::{StreamActor, StreamMessage};
use crate::supervisor::Children;

pub use blocked::{BlockedTopic, BlockedTopics};
pub(crate) use keeper::{MANY_RUNS, StreamKeeper};
pub(crate) use nursery::StreamNursery;
use origins::Origins;
use pacing::Pacing;
pub use view::{PartitionFigures, StreamFigures, StreamState};

/// Places in a stream's mailbox: what its source tells, one after another.
const STREAM_MAILBOX: usize = 256;

/// Places in a partition's mailbox. Batches hold credit of the source, which runs out long before.
const PARTITION_MAILBOX: usize = 4096;

/// How long an actor's end is waited for.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What reads the records of streams; by default nothing.
#[derive(Default)]
pub struct StreamParts {
    /// Where records come from and results go; none where no broker is set.
    pub broker: Option<Arc<dyn Broker>>,
    /// What decodes records that need a schema; none where no registry is set.
    pub decoder: Option<Arc<dyn RecordDecoder>>,
    /// Whether this node reads (the role `ingest`).
    pub ingests: bool,
}

/// A stream that this node reads.
pub(crate) struct Reading {
    pub(crate) stream: Arc<StoredStream>,
    pub(crate) mailbox: Mailbox<StreamMessage>,
}

/// A partition that the group has given to this node.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) stream: Arc<StoredStream>,
    pub(crate) place: Place,
    pub(crate) handle: Arc<dyn SourceHandle>,
    /// None while its actor is being revived.
    pub(crate) mailbox: Option<Mailbox<PartitionMessage>>,
    pub(crate) figures: Arc<PartitionFigures>,
}

/// The streams of this node.
pub struct Streams {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) census: Arc<Census>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// The name under which partitions are claimed.
    pub(crate) node: String,
    parts: StreamParts,
    children: Arc<Children>,
    supervisor: OnceLock<ActorCell>,
    router: OnceLock<Weak<Router>>,
    reading: DashMap<(Namespace, Name), Reading>,
    seats: DashMap<PartitionKey, Seat>,
    figures: DashMap<(Namespace, Name), StreamFigures>,
    sink: AsyncMutex<Option<Arc<dyn RecordSink>>>,
    origins: Origins,
    pacing: Pacing,
    /// Why nothing is admitted now, in words for people.
    crowded: Mutex<Option<&'static str>>,
    blocked: BlockedTopics,
    changed: Notify,
}

impl Streams {
    pub(crate) fn new(
        parts: StreamParts,
        node: String,
        store: Arc<dyn Store>,
        catalog: Arc<Catalog>,
        census: Arc<Census>,
        entropy: Arc<dyn Entropy>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            catalog,
            census,
            entropy,
            node,
            parts,
            children: Arc::default(),
            supervisor: OnceLock::new(),
            router: OnceLock::new(),
            reading: DashMap::new(),
            seats: DashMap::new(),
            figures: DashMap::new(),
            sink: AsyncMutex::default(),
            origins: Origins::default(),
            pacing: Pacing::default(),
            crowded: Mutex::default(),
            blocked: BlockedTopics::default(),
            changed: Notify::new(),
        })
    }

    pub(crate) fn wire(&self, supervisor: ActorCell, router: Weak<Router>) {
        // Wired once, by the node, before anything can arrive.
        let _ = self.supervisor.set(supervisor);
        let _ = self.router.set(router);
    }

    pub(crate) fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// The router; none once the node has stopped.
    pub(crate) fn router(&self) -> Option<Arc<Router>> {
        self.router.get().and_then(Weak::upgrade)
    }

    /// Where records come from; none where no broker is set.
    #[must_use]
    pub fn broker(&self) -> Option<&Arc<dyn Broker>> {
        self.parts.broker.as_ref()
    }

    /// Whether records of this stream can be decoded here.
    pub(crate) fn decodes(&self, definition: &StreamDefinition) -> bool {
        let formats = [definition.format.key, definition.format.value];
        self.parts.decoder.is_some() || !formats.into_iter().flatten().any(Format::needs_registry)
    }

    /// Decodes what of a record needs a schema; none where nothing does.
    pub(crate) async fn decode(
        &self,
        definition: &StreamDefinition,
        incoming: &Incoming,
    ) -> Result<Option<Decoded>, Undecided> {
        let undecoded = stream::undecoded(definition, incoming);
        if undecoded == Undecoded::default() {
            return Ok(None);
        }
        // A stream that was put when there was one: its records are not to blame.
        let unset = || Undecided::Later("its format needs a schema registry: set registry.url".to_owned());
        self.parts.decoder.as_ref().ok_or_else(unset)?.decode(undecoded, incoming).await.map(Some)
    }

    /// Whether this node reads streams.
    #[must_use]
    pub fn ingests(&self) -> bool {
        self.parts.ingests && self.parts.broker.is_some()
    }

    /// A stream was put, deleted or steered.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    pub(crate) async fn change(&self) {
        self.changed.notified().await;
    }

    /// Why nothing may be admitted now; none when it may.
    pub(crate) fn crowded(&self) -> Option<&'static str> {
        *self.crowded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_crowded(&self, why: Option<&'static str>) {
        *self.crowded.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The topics that take no results of this node now.
    #[must_use]
    pub fn blocked(&self) -> &BlockedTopics {
        &self.blocked
    }

    /// What sends records, begun when it is first needed.
    ///
    /// # Errors
    /// When there is no broker, or none can be reached with these settings.
    pub(crate) async fn sink(&self) -> Result<Arc<dyn RecordSink>, BrokerError> {
        let mut sink = self.sink.lock().await;
        if let Some(sink) = &*sink {
            return Ok(Arc::clone(sink));
        }
        let unset = || BrokerError::Setting("no broker is set: set kafka.brokers".to_owned());
        let broker = self.broker().ok_or_else(unset)?;
        let begun = broker.sink(SinkSettings::default()).await?;
        *sink = Some(Arc::clone(&begun));
        Ok(begun)
    }

    /// The cluster and the topic that a name stands for now: as the broker says it after this was asked.
    ///
    /// # Errors
    /// When there is no broker, it does not answer, or there is no such topic.
    pub(crate) async fn origin(&self, topic: &str) -> Result<Arc<str>, BrokerError> {
        let unset = || BrokerError::Setting("no broker is set: set kafka.brokers".to_owned());
        self.origins.ask(&**self.broker().ok_or_else(unset)?, topic).await
    }

    /// How fast records may begin runs.
    pub(crate) fn pacing(&self) -> &Pacing {
        &self.pacing
    }

    /// The streams that this node reads.
    pub(crate) fn read_now(&self) -> Vec<Arc<StoredStream>> {
        self.reading.iter().map(|reading| Arc::clone(&reading.stream)).collect()
    }

    /// Begins to read a stream, unless this node reads it.
    pub(crate) async fn begin(self: &Arc<Self>, stream: Arc<StoredStream>) -> Result<(), String> {
        let key = (stream.namespace.clone(), stream.definition.name.clone());
        if self.reading.get(&key).is_some_and(|reading| !reading.mailbox.is_gone()) {
            return Ok(());
        }
        let Some(supervisor) = self.supervisor.get() else { return Err("not wired".to_owned()) };
        let address = Address::Stream(key.0.clone(), key.1.clone());
        let vitals = self.census.enter(address.clone(), STREAM_MAILBOX);
        let actor = StreamActor { streams: Arc::clone(self), stream: Arc::clone(&stream), vitals: Arc::clone(&vitals) };
        let (actor, _) = Actor::spawn_linked(None, actor, (), supervisor.clone()).await.map_err(|error| {
            let words = error.to_string();
            self.note(&stream, StreamState::Failed(words.clone()));
            words
        })?;
        self.children.enter(&actor.get_cell(), address);
        self.reading.insert(key, Reading { stream, mailbox: Mailbox::new(actor, vitals) });
        Ok(())
    }

    /// Reads a stream no longer: its partitions finish what they have in hand and are released, and the group is left.
    pub(crate) async fn end(&self, namespace: &Namespace, name: &Name) {
        let key = (namespace.clone(), name.clone());
        let Some((_, reading)) = self.reading.remove(&key) else { return };
        let caller = system_caller(namespace.clone());
        let told = reading.mailbox.send(&caller, StreamMessage::End, END_PATIENCE).await;
        if told.is_err() || reading.mailbox.actor().wait(Some(END_PATIENCE)).await.is_err() {
            tracing::warn!(stream = %name, "a stream did not end in time and is dropped");
            reading.mailbox.actor().kill();
        }
        self.figures.remove(&key);
    }

    /// Ends all of them, together.
    pub(crate) async fn end_all(&self) {
        let streams = self.read_now();
        let ends = streams.iter().map(|stream| self.end(&stream.namespace, &stream.definition.name));
        futures::future::join_all(ends).await;
        let sink = self.sink.lock().await.take();
        if let Some(sink) = sink {
            sink.close(END_PATIENCE).await;
        }
    }

    /// The group has given a partition to this node: its actor begins.
    pub(crate) async fn seat(
        self: &Arc<Self>,
        stream: &Arc<StoredStream>,
        place: Place,
        handle: Arc<dyn SourceHandle>,
    ) {
        let key = partition_key(stream, &place);
        // One that is still there belongs to an earlier membership, whose claim is about to be fenced.
        self.unseat(&key, true).await;
        let figures = Arc::new(PartitionFigures::default());
        let seat = Seat { stream: Arc::clone(stream), place, handle, mailbox: None, figures };
        self.seats.insert(key.clone(), seat);
        if let Err(reason) = self.occupy(&key).await {
            tracing::error!(partition = %Address::from(&key), reason, "a partition's actor cannot start");
        }
    }

    /// Starts the actor of a seat.
    pub(crate) async fn occupy(self: &Arc<Self>, key: &PartitionKey) -> Result<(), String> {
        let Some(seat) = self.seats.get(key).map(|seat| seat.clone()) else { return Ok(()) };
        let Some(supervisor) = self.supervisor.get() else { return Err("not wired".to_owned()) };
        let address = Address::from(key);
        let vitals = self.census.enter(address.clone(), PARTITION_MAILBOX);
        let actor = PartitionActor {
            streams: Arc::clone(self),
            key: key.clone(),
            seat,
            vitals: Arc::clone(&vitals),
            caller: system_caller(key.namespace.clone()),
        };
        let spawned = Actor::spawn_linked(None, actor, (), supervisor.clone()).await;
        let (actor, _) = spawned.map_err(|error| error.to_string())?;
        self.children.enter(&actor.get_cell(), address);
        let mailbox = Mailbox::new(actor, vitals);
        match self.seats.get_mut(key) {
            Some(mut seat) => seat.mailbox = Some(mailbox),
            // The seat was given up meanwhile.
            None => mailbox.actor().stop(None),
        }
        Ok(())
    }

    /// The mailbox of a partition; none while its actor is being revived, or when this node has no seat there.
    pub(crate) fn partition(&self, key: &PartitionKey) -> Option<Mailbox<PartitionMessage>> {
        self.seats.get(key).and_then(|seat| seat.mailbox.clone()).filter(|mailbox| !mailbox.is_gone())
    }

    /// The partitions that this node has.
    pub(crate) fn seats(&self) -> Vec<(PartitionKey, Seat)> {
        self.seats.iter().map(|seat| (seat.key().clone(), seat.value().clone())).collect()
    }

    /// A partition is this node's no longer: its actor finishes what it has in hand and releases it.
    pub(crate) async fn unseat(&self, key: &PartitionKey, lost: bool) {
        let Some((_, seat)) = self.seats.remove(key) else { return };
        keeper::show_lag(key, 0);
        let Some(mailbox) = seat.mailbox else { return };
        let caller = system_caller(key.namespace.clone());
        if mailbox.send(&caller, PartitionMessage::Revoked { lost }, END_PATIENCE).await.is_err() {
            mailbox.actor().stop(None);
        }
    }

    /// Resolves when the partitions of a stream have been released here.
    pub(crate) async fn released(&self, mailboxes: Vec<Mailbox<PartitionMessage>>) {
        let ends = mailboxes.iter().map(|mailbox| mailbox.actor().wait(Some(END_PATIENCE)));
        futures::future::join_all(ends).await;
    }

    pub(crate) fn note(&self, stream: &StoredStream, state: StreamState) {
        let key = (stream.namespace.clone(), stream.definition.name.clone());
        self.figures.entry(key).or_default().state = state;
    }

    /// What the broker complains of, or that it does no longer.
    pub(crate) fn trouble(&self, stream: &StoredStream, trouble: Option<String>) {
        let key = (stream.namespace.clone(), stream.definition.name.clone());
        self.figures.entry(key).or_default().trouble = trouble;
    }

    /// How this node does with a stream; none where it does not read it.
    #[must_use]
    pub fn figures(&self, namespace: &Namespace, name: &Name) -> Option<StreamFigures> {
        self.figures.get(&(namespace.clone(), name.clone())).map(|figures| figures.clone())
    }

    /// How this node does with a partition; none where it has no seat.
    #[must_use]
    pub fn partition_figures(&self, key: &PartitionKey) -> Option<Arc<PartitionFigures>> {
        self.seats.get(key).map(|seat| Arc::clone(&seat.figures))
    }
}

/// The row of a partition.
pub(crate) fn partition_key(stream: &StoredStream, place: &Place) -> PartitionKey {
    PartitionKey {
        namespace: stream.namespace.clone(),
        stream: stream.definition.name.clone(),
        topic: place.topic.to_string(),
        partition: place.partition,
    }
}

impl From<&PartitionKey> for Address {
    fn from(key: &PartitionKey) -> Self {
        Self::Partition(key.namespace.clone(), key.stream.clone(), key.topic.as_str().into(), key.partition)
    }
}
