//! The embedded index: vectors in memory, every batch in a checksummed log, exact search.
//!
//! Never talks to a network. One folder per index holds `index.json`, `lock` and one segment; a batch is durable before
//! the call returns and is there whole or not at all after a crash. Searches and writes run on blocking threads, a
//! bounded number at a time: many searches beside one write. After a failed write the index is read-only until it is
//! opened again; the batch that failed may then be found stored. Used by the server as one of the vector backends.

mod folder;
mod gate;
mod kernel;
mod log;
mod operation;
mod search;
mod table;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use motet_engine::definition::IndexDefinition;
use motet_engine::failure::{Failure, FailureClass};

use self::gate::Gate;
use self::kernel::Kernel;
use self::log::Frame;
use self::operation::{Operation, encode_delete, encode_upsert};
use self::table::Table;
use self::writer::{Compaction, Writer};
use crate::limits::{Shape, check_ids};
use crate::port::{IndexStats, VectorBackend, VectorIndex, VectorMatch, VectorQuery, VectorRecord};

/// Longest wait for a turn at an index.
const PATIENCE: Duration = Duration::from_secs(30);
/// Searches that may wait for a turn.
const WAITING_READS: usize = 1024;
/// Writes that may wait for a turn: each holds a whole batch.
const WAITING_WRITES: usize = 64;
/// Dead bytes below which a segment is never rewritten.
const MIN_DEAD_BYTES: u64 = 64 << 10;

/// Keeps indexes in folders of this machine.
pub struct EmbeddedBackend {
    folder: PathBuf,
    compaction: Compaction,
}

impl EmbeddedBackend {
    /// A backend that keeps each index in its own folder below `folder`.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let compaction = Compaction { min_dead_bytes: MIN_DEAD_BYTES, not_before: 0 };
        Self { folder: folder.into(), compaction }
    }
}

#[async_trait]
impl VectorBackend for EmbeddedBackend {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn open(&self, key: &str, definition: &IndexDefinition) -> Result<Box<dyn VectorIndex>, Failure> {
        let shape = Shape { dimension: definition.dimension, metric: definition.metric };
        shape.check()?;
        let (folder, key, compaction) = (self.folder.clone(), key.to_owned(), self.compaction);
        let index = blocking(move || EmbeddedIndex::open(&folder, &key, shape, compaction)).await?;
        Ok(Box::new(index))
    }
}

/// One opened index.
struct EmbeddedIndex {
    state: Arc<State>,
    reads: Gate,
    writes: Gate,
}

/// What the blocking work shares. The writer's lock is taken before the table's; both are empty once closed.
struct State {
    shape: Shape,
    kernel: Kernel,
    writer: Mutex<Option<Writer>>,
    table: RwLock<Option<Table>>,
    disk_bytes: AtomicU64,
}

impl EmbeddedIndex {
    fn open(folder: &std::path::Path, key: &str, shape: Shape, compaction: Compaction) -> Result<Self, Failure> {
        let (writer, table) = Writer::open(folder, key, shape, compaction)?;
        let state = State {
            shape,
            kernel: Kernel::detect(),
            disk_bytes: AtomicU64::new(writer.disk_bytes()),
            writer: Mutex::new(Some(writer)),
            table: RwLock::new(Some(table)),
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            state: Arc::new(state),
            reads: Gate::new(cores, WAITING_READS, PATIENCE),
            writes: Gate::new(1, WAITING_WRITES, PATIENCE),
        })
    }

    /// Runs work on a blocking thread once the gate lets it in. It is finished even when the caller goes away.
    async fn enter<T: Send + 'static>(
        &self,
        gate: &Gate,
        work: impl FnOnce(&State) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let pass = gate.enter().await?;
        let state = Arc::clone(&self.state);
        blocking(move || {
            let result = work(&state);
            drop(pass);
            result
        })
        .await
    }
}

#[async_trait]
impl VectorIndex for EmbeddedIndex {
    async fn upsert(&self, namespace: &str, records: Vec<VectorRecord>) -> Result<(), Failure> {
        let namespace = namespace.to_owned();
        self.enter(&self.writes, move |state| state.upsert(namespace, records)).await
    }

    async fn query(&self, query: VectorQuery) -> Result<Vec<VectorMatch>, Failure> {
        self.enter(&self.reads, move |state| state.query(&query)).await
    }

    async fn fetch(&self, namespace: &str, ids: &[String]) -> Result<Vec<VectorRecord>, Failure> {
        check_ids(namespace, ids)?;
        let (namespace, ids) = (namespace.to_owned(), ids.to_vec());
        self.enter(&self.reads, move |state| {
            state.read(|table| table.rows(&namespace).map(|rows| rows.fetch(&ids)).unwrap_or_default())
        })
        .await
    }

    async fn delete(&self, namespace: &str, ids: &[String]) -> Result<(), Failure> {
        check_ids(namespace, ids)?;
        let (namespace, ids) = (namespace.to_owned(), ids.to_vec());
        self.enter(&self.writes, move |state| state.delete(namespace, &ids)).await
    }

    async fn stats(&self) -> Result<IndexStats, Failure> {
        self.enter(&self.reads, |state| {
            let count = |(name, rows): (&str, &table::Rows)| (name.to_owned(), rows.len() as u64);
            let namespaces = state.read(|table| table.namespaces().map(count).collect())?;
            let Shape { dimension, metric } = state.shape;
            Ok(IndexStats { dimension, metric, namespaces, disk_bytes: state.disk_bytes.load(Ordering::Relaxed) })
        })
        .await
    }

    async fn close(&self) {
        let state = Arc::clone(&self.state);
        // Waits for the write in progress and for running searches; both end by themselves.
        let _ = blocking(move || {
            let writer = state.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(state.table.write().unwrap_or_else(PoisonError::into_inner).take());
            drop(writer);
            Ok(())
        })
        .await;
    }
}

impl State {
    fn upsert(&self, namespace: String, records: Vec<VectorRecord>) -> Result<(), Failure> {
        self.shape.check_records(&namespace, &records)?;
        let mut frame = Frame::new();
        let vectors = records.iter().map(|record| (record.id.as_str(), record.values.as_slice(), &record.metadata));
        let sizes = encode_upsert(frame.payload(), &namespace, vectors)
            .map_err(|why| Failure::new(FailureClass::Invalid, why))?;
        let mut slot = self.writer.lock().map_err(broken)?;
        let writer = slot.as_mut().ok_or_else(closed)?;
        if records.is_empty() {
            return writer.check();
        }
        let records = records.into_iter().zip(sizes).collect();
        self.commit(writer, frame, Operation::Upsert { namespace, records })
    }

    fn delete(&self, namespace: String, ids: &[String]) -> Result<(), Failure> {
        let mut slot = self.writer.lock().map_err(broken)?;
        let writer = slot.as_mut().ok_or_else(closed)?;
        let ids = self.read(|table| table.known(&namespace, ids))?;
        if ids.is_empty() {
            return writer.check();
        }
        let mut frame = Frame::new();
        encode_delete(frame.payload(), &namespace, &ids).map_err(|why| Failure::new(FailureClass::Invalid, why))?;
        self.commit(writer, frame, Operation::Delete { namespace, ids })
    }

    /// Records an operation, then does it, then tidies up.
    fn commit(&self, writer: &mut Writer, frame: Frame, operation: Operation) -> Result<(), Failure> {
        writer.append(frame)?;
        if let Some(table) = self.table.write().map_err(broken)?.as_mut() {
            table.apply(operation);
        }
        self.read(|table| writer.compact_if_due(table))?;
        self.disk_bytes.store(writer.disk_bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn query(&self, query: &VectorQuery) -> Result<Vec<VectorMatch>, Failure> {
        self.shape.check_query(query)?;
        self.read(|table| {
            let Some(rows) = table.rows(&query.namespace) else { return Vec::new() };
            search::nearest(self.kernel, table.shape().metric, rows, query)
        })
    }

    fn read<T>(&self, work: impl FnOnce(&Table) -> T) -> Result<T, Failure> {
        self.table.read().map_err(broken)?.as_ref().map(work).ok_or_else(closed)
    }
}

/// Runs work on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Failure::new(FailureClass::Internal, format!("work at the index broke off: {error}")))
    })
}

fn closed() -> Failure {
    Failure::new(FailureClass::Unavailable, "the index is closed")
}

/// A panic while the lock was held: what it guards may be half changed.
fn broken<T>(_: PoisonError<T>) -> Failure {
    Failure::new(FailureClass::Internal, "an earlier error left the index in doubt; open it again")
}

#[cfg(test)]
mod tests;
