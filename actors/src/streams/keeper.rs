//! Keeps what this node reads in step with the definitions, and what its partitions do with their rows.
//!
//! Holds no list of its own: definitions and rows are the truth. Spawned by the node, one for all streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use motet_engine::id::{Name, Namespace};
use motet_store::StoreError;
use motet_store::port::{HeadState, PartitionKey, PartitionRow};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use super::Streams;
use crate::partition_actor::PartitionMessage;
use crate::router::system_caller;

/// It looks at the rows of its partitions this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// It reads the definitions at least this often, whatever it was told: another node may have changed them.
const READ_EVERY: Duration = Duration::from_secs(15);

/// It counts the results that wait to be sent this often.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// Why records wait while there are too many unfinished runs.
pub(crate) const MANY_RUNS: &str = "as many unfinished runs as the nodes take (runs.max_unfinished)";

/// Why records wait while too few results go out.
const MANY_RESULTS: &str = "as many results wait to be sent as the nodes keep (runs.max_outbox): the log and the \
                            streams tell which topics take none";

/// The actor.
pub(crate) struct StreamKeeper {
    pub(crate) streams: Arc<Streams>,
}

/// It tells itself to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The rows may have changed.
    Rows,
    /// The definitions may have changed.
    Definitions,
}

/// When it looked at what, and what it saw.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// When the definitions were read last.
    definitions: Option<Instant>,
    /// When results were counted last.
    results: Option<Instant>,
    /// Whether as many results waited then as may.
    clogged: bool,
}

impl Actor for StreamKeeper {
    type Msg = Look;
    type State = Looked;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Look>, (): ()) -> Result<Looked, ActorProcessingErr> {
        if self.streams.ingests() {
            myself.cast(Look::Definitions)?;
        }
        Ok(Looked::default())
    }

    async fn handle(&self, myself: ActorRef<Look>, what: Look, last: &mut Looked) -> Result<(), ActorProcessingErr> {
        let looked = async {
            if what == Look::Definitions || last.definitions.is_none_or(|read| read.elapsed() >= READ_EVERY) {
                self.follow_definitions().await?;
                last.definitions = Some(Instant::now());
            }
            self.follow_rows(last).await
        };
        if let Err(error) = looked.await {
            tracing::warn!(%error, "streams cannot be looked at; trying again");
        }
        let streams = Arc::clone(&self.streams);
        tokio::spawn(async move {
            let next = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => Look::Rows,
                () = streams.change() => Look::Definitions,
            };
            let _ = myself.cast(next);
        });
        Ok(())
    }
}

impl StreamKeeper {
    /// Begins the streams that are to be read, ends the others; one that was changed is begun anew.
    async fn follow_definitions(&self) -> Result<(), StoreError> {
        let streams = &self.streams;
        let open = streams.router().is_some_and(|router| router.is_open());
        let mut wanted = streams.catalog.streams().await?;
        wanted.retain(|stream| open && !stream.definition.paused);
        for old in streams.read_now() {
            let same = |new: &&crate::catalog::StoredStream| {
                new.namespace == old.namespace
                    && new.definition.name == old.definition.name
                    && new.revision == old.revision
            };
            if !wanted.iter().any(|new| same(&new)) {
                streams.end(&old.namespace, &old.definition.name).await;
            }
        }
        for stream in wanted {
            let name = stream.definition.name.clone();
            if let Err(reason) = streams.begin(Arc::new(stream)).await {
                tracing::warn!(stream = %name, reason, "a stream cannot be read yet; trying again");
            }
        }
        Ok(())
    }

    /// Tells partitions how their rows stand, and notes whether more may be admitted.
    async fn follow_rows(&self, last: &mut Looked) -> Result<(), StoreError> {
        let streams = &self.streams;
        if streams.seats().is_empty() {
            return Ok(());
        }
        self.note_lag();
        let counts = streams.store.counts().await?;
        let unfinished: u64 =
            counts.into_iter().filter(|(state, _)| *state < HeadState::Waiting).map(|(_, count)| count).sum();
        if last.results.is_none_or(|counted| counted.elapsed() >= COUNT_EVERY) {
            last.clogged = self.is_clogged().await?;
            last.results = Some(Instant::now());
        }
        let crowded = streams.router().is_some_and(|router| router.is_crowded(unfinished));
        streams.set_crowded(if crowded { Some(MANY_RUNS) } else { last.clogged.then_some(MANY_RESULTS) });
        let rows = streams.store.partitions(None, None).await?;
        self.note_shares(&rows);
        for row in rows {
            let Some(mailbox) = streams.partition(&row.key) else { continue };
            let caller = system_caller(row.key.namespace.clone());
            // One whose mailbox is full hears of it the next time.
            let _ = mailbox.try_send(&caller, PartitionMessage::Row(row));
        }
        Ok(())
    }

    /// How far each partition of this node is behind: what the topic holds beyond what is durable here.
    fn note_lag(&self) {
        for (key, seat) in self.streams.seats() {
            let seen = seat.handle.lag().into_iter().find(|lag| lag.place == seat.place).and_then(|lag| lag.high);
            let next = seat.figures.next.load(Ordering::Relaxed);
            let (Some(high), true) = (seen, next >= 0) else { continue };
            show_lag(&key, (high - next).max(0));
        }
    }

    /// Of each stream, how many of the partitions that somebody has are this node's.
    fn note_shares(&self, rows: &[PartitionRow]) {
        let mut shares = BTreeMap::<(&Namespace, &Name), (u32, u32)>::new();
        for row in rows.iter().filter(|row| !row.owner.is_empty()) {
            let (own, all) = shares.entry((&row.key.namespace, &row.key.stream)).or_default();
            *own += u32::from(row.owner == self.streams.node);
            *all += 1;
        }
        for ((namespace, stream), (own, all)) in shares {
            self.streams.pacing().share(namespace, stream, own, all);
        }
    }

    /// Whether as many results wait to be sent as may.
    async fn is_clogged(&self) -> Result<bool, StoreError> {
        let Some(router) = self.streams.router() else { return Ok(false) };
        let bound = router.outbox_bound();
        // Runs that were admitted before still end, so there may be more than the bound.
        let waiting = self.streams.store.outbox_rows(bound.saturating_mul(2)).await?;
        metrics::gauge!("motet_outbox_rows").set(waiting as f64);
        Ok(waiting >= bound)
    }
}

/// Shows how far a partition is behind; 0 for one that this node has no more, so that sums over nodes are right.
pub(super) fn show_lag(key: &PartitionKey, lag: i64) {
    let (stream, topic, partition) = (key.stream.to_string(), key.topic.clone(), key.partition.to_string());
    metrics::gauge!("motet_stream_lag", "stream" => stream, "topic" => topic, "partition" => partition).set(lag as f64);
}
