//! The mailbox around one vector index: writes of many runs form one batch, one after another, in order of arrival.
//!
//! While a batch is being written the next one gathers, so the write itself is the window. A batch that is refused is
//! tried member by member once, so that one bad vector fails only its own call. Spawned by `indexes`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use motet_engine::access::Caller;
use motet_engine::definition::IndexDefinition;
use motet_engine::failure::Failure;
use motet_vectors::port::{VectorIndex, VectorRecord};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::mailbox::{Letter, Mailbox, Vitals};

/// A write and where its answer goes.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) namespace: String,
    pub(crate) records: Vec<VectorRecord>,
    pub(crate) reply: oneshot::Sender<Result<(), Failure>>,
    /// Its place among the writes that the index takes at one time; free again when it is stored.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// What an index actor is told.
#[derive(Debug)]
pub(crate) enum IndexMessage {
    /// Store these vectors.
    Write(Write),
    /// The batch under way is stored.
    Written,
}

/// The actor's fixed parts.
pub(crate) struct IndexActor {
    pub(crate) definition: Arc<IndexDefinition>,
    pub(crate) index: Arc<dyn VectorIndex>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) caller: Caller,
}

/// What changes.
pub(crate) struct Gathering {
    waiting: VecDeque<Write>,
    writing: bool,
    mailbox: Mailbox<IndexMessage>,
}

impl Actor for IndexActor {
    type Msg = Letter<IndexMessage>;
    type State = Gathering;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, (): ()) -> Result<Gathering, ActorProcessingErr> {
        let mailbox = Mailbox::new(myself, Arc::clone(&self.vitals));
        Ok(Gathering { waiting: VecDeque::new(), writing: false, mailbox })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        letter: Self::Msg,
        gathering: &mut Gathering,
    ) -> Result<(), ActorProcessingErr> {
        let (_, message) = letter.open(&self.vitals);
        match message {
            IndexMessage::Write(write) => gathering.waiting.push_back(write),
            IndexMessage::Written => gathering.writing = false,
        }
        if !gathering.writing && !gathering.waiting.is_empty() {
            gathering.writing = true;
            let batch = self.next_batch(&mut gathering.waiting);
            let (index, mailbox, caller) = (Arc::clone(&self.index), gathering.mailbox.clone(), self.caller.clone());
            let name = self.definition.name.to_string();
            tokio::spawn(async move {
                store(&*index, &name, batch).await;
                // The actor has ended when this fails, and the index with it.
                let _ = mailbox.send(&caller, IndexMessage::Written, Duration::from_secs(30)).await;
            });
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, _: &mut Gathering) -> Result<(), ActorProcessingErr> {
        self.index.close().await;
        Ok(())
    }
}

impl IndexActor {
    /// The first writes of one namespace that fit the batch policy together; at least one.
    fn next_batch(&self, waiting: &mut VecDeque<Write>) -> Vec<Write> {
        let policy = &self.definition.batch;
        let (mut rows, mut bytes) = (0usize, 0u64);
        let mut batch: Vec<Write> = vec![];
        while let Some(next) = waiting.front() {
            let size: usize = next.records.iter().map(|record| record.values.len() * 4 + 64).sum();
            let fits = rows + next.records.len() <= policy.max as usize
                && bytes.saturating_add(size as u64) <= policy.max_bytes
                && batch.first().is_none_or(|first| first.namespace == next.namespace);
            if !fits && !batch.is_empty() {
                break;
            }
            rows += next.records.len();
            bytes = bytes.saturating_add(size as u64);
            batch.extend(waiting.pop_front());
        }
        batch
    }
}

async fn store(index: &dyn VectorIndex, name: &str, mut batch: Vec<Write>) {
    metrics::histogram!("motet_index_batch_vectors", "index" => name.to_owned())
        .record(batch.iter().map(|write| write.records.len()).sum::<usize>() as f64);
    let Some(namespace) = batch.first().map(|write| write.namespace.clone()) else { return };
    if batch.len() > 1 {
        let together = batch.iter().flat_map(|write| write.records.iter().cloned()).collect();
        if index.upsert(&namespace, together).await.is_ok() {
            for write in batch {
                let _ = write.reply.send(Ok(()));
            }
            return;
        }
    }
    for write in &mut batch {
        let alone = index.upsert(&namespace, std::mem::take(&mut write.records)).await;
        let (gone, _) = oneshot::channel();
        let _ = std::mem::replace(&mut write.reply, gone).send(alone);
    }
}
