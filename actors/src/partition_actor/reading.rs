//! What the records of a partition become: runs, dead letters, or nothing, by the engine's rules.
//!
//! A record that breaks its reader is a dead letter like one that cannot be decoded: it must not take its neighbours
//! with it. Never writes. Used by the partition's actor for each portion.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use motet_broker::port::{Place, Record};
use motet_engine::definition::Workflow;
use motet_engine::event::Event;
use motet_engine::run::Run;
use motet_engine::stream::{self, DeadReason, Decoded, Incoming, Origin, Stage, Verdict};
use motet_engine::time::Timestamp;
use motet_schemas::port::Undecided;
use motet_store::port::{DeadLetter, DeadState, Line, PartitionKey};

use super::claiming::Claim;
use super::{POISON_AFTER, PartitionActor};
use crate::catalog::{CatalogError, StoredStream};
use crate::router::Router;
use crate::streams::Streams;

/// Records after which others get a turn on the thread.
const IN_ONE_GO: usize = 64;

/// A run that a record begins, not durable yet.
pub(super) struct Begun {
    pub(super) run: Run,
    pub(super) events: Vec<Event>,
    /// The place that it holds in an order.
    pub(super) line: Option<Line>,
    /// Which of the records it is.
    pub(super) record: usize,
}

/// What some records become.
#[derive(Default)]
pub(super) struct Read {
    pub(super) runs: Vec<Begun>,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) passed: u64,
}

/// Reads the records of one claim.
pub(super) struct Reader {
    streams: Arc<Streams>,
    key: PartitionKey,
    stream: Arc<StoredStream>,
    revision: Arc<str>,
    place: Place,
    claim: Claim,
    /// Whether the next record is held to be what ends processes.
    poisoned: bool,
}

impl Reader {
    pub(super) fn new(actor: &PartitionActor, claim: &Claim) -> Self {
        Self {
            streams: Arc::clone(&actor.streams),
            key: actor.key.clone(),
            stream: Arc::clone(&actor.seat.stream),
            revision: actor.seat.stream.revision.as_str().into(),
            place: actor.seat.place.clone(),
            claim: claim.clone(),
            poisoned: claim.barren > POISON_AFTER,
        }
    }

    /// Takes so many records from what the stream's rate allows, or says how long to wait.
    pub(super) fn pace(&self, streams: &Streams, records: u32) -> Result<(), Duration> {
        let Some(rate) = self.stream.definition.limits.rate else { return Ok(()) };
        streams.pacing().take(&self.key.namespace, &self.key.stream, rate, records)
    }

    pub(super) fn key(&self) -> &PartitionKey {
        &self.key
    }

    /// What the records become.
    ///
    /// # Errors
    /// Why that cannot be said now, in words for people: the workflow or a record's schema is not to be had.
    pub(super) async fn read(&self, router: &Router, records: &[Record]) -> Result<Read, String> {
        let definition = &self.stream.definition;
        let workflow = router
            .catalog()
            .workflow(&self.key.namespace, &definition.workflow, definition.version.as_deref())
            .await
            .map_err(|error| match error {
                CatalogError::Unknown { .. } => format!("{error}: apply it, and the stream goes on by itself"),
                error => error.to_string(),
            })?;
        let (now, shards) = (router.now(), router.runs().shards());
        let mut read = Read::default();
        for (place, record) in records.iter().enumerate() {
            if place % IN_ONE_GO == IN_ONE_GO - 1 {
                tokio::task::yield_now().await;
            }
            if self.poisoned && place == 0 {
                let words = "processes ended again and again while they had this record in hand";
                read.dead.push(self.dead(record, DeadReason::new(Stage::Crash, "poison", words), now));
                continue;
            }
            let incoming = self.incoming(record);
            let decoded = match self.streams.decode(definition, &incoming).await {
                Ok(decoded) => decoded,
                Err(Undecided::Later(words)) => return Err(words),
                Err(Undecided::Dead(reason)) => {
                    read.dead.push(self.dead(record, reason, now));
                    continue;
                }
            };
            // The reader keeps nothing between records, so a panic spoils nothing.
            let examine = || self.examine(&incoming, decoded, &workflow, now, shards);
            let examined = catch_unwind(AssertUnwindSafe(examine));
            match examined.unwrap_or_else(|panic| Err(Some(broke(&*panic)))) {
                Ok((run, events, line)) => read.runs.push(Begun { run, events, line, record: place }),
                Err(Some(reason)) => read.dead.push(self.dead(record, reason, now)),
                Err(None) => read.passed += 1,
            }
        }
        Ok(read)
    }

    fn incoming(&self, record: &Record) -> Incoming {
        Incoming {
            topic: Arc::clone(&self.place.topic),
            partition: self.place.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        }
    }

    /// The run that a record begins; else why it is a dead letter, or nothing where it is passed over.
    fn examine(
        &self,
        incoming: &Incoming,
        decoded: Option<Decoded>,
        workflow: &Arc<Workflow>,
        now: Timestamp,
        shards: u16,
    ) -> Result<(Run, Vec<Event>, Option<Line>), Option<DeadReason>> {
        let origin = Origin {
            namespace: &self.key.namespace,
            revision: &self.revision,
            generation: self.claim.generation,
            since: self.claim.since,
            cluster: &self.claim.origin,
            shards,
        };
        match stream::read(&self.stream.definition, &origin, incoming, decoded) {
            Verdict::Start(start) => {
                let line = start.order.map(|line| Line { line, place: incoming.offset });
                let (run, events) = start.begin(&self.key.namespace, workflow, now, shards).map_err(Some)?;
                Ok((run, events, line))
            }
            Verdict::Skip(_) => Err(None),
            Verdict::Dead(reason) => Err(Some(reason)),
        }
    }

    /// The dead letter of a record.
    pub(super) fn dead(&self, record: &Record, reason: DeadReason, at: Timestamp) -> DeadLetter {
        DeadLetter {
            key: self.key.clone(),
            generation: self.claim.generation,
            offset: record.offset,
            at,
            timestamp: record.timestamp,
            stage: reason.stage.as_str().to_owned(),
            class: reason.class.into_owned(),
            message: reason.message,
            record_key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
            state: DeadState::Open,
            // Without a topic for them they are only kept.
            sent: self.stream.definition.dead_letter.topic.is_none(),
        }
    }
}

/// Why a record is a dead letter whose reading panicked.
fn broke(panic: &(dyn std::any::Any + Send)) -> DeadReason {
    let words = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    DeadReason::new(Stage::Crash, "panic", &format!("reading the record failed: {words}"))
}
