//! What a model did since the node started: batches, rows, time. Shown by the API, the demo and metrics.
//!
//! Never decides anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// Counters of one model. Shared by its actor and by whoever shows them.
#[derive(Debug)]
pub struct ModelStats {
    name: String,
    batches: AtomicU64,
    calls: AtomicU64,
    rows: AtomicU64,
    failed: AtomicU64,
    largest: AtomicU64,
    busy_micros: AtomicU64,
    queued: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Serialize, PartialEq)]
pub struct ModelFigures {
    /// Batches that were run.
    pub batches: u64,
    /// Calls in them.
    pub calls: u64,
    /// Rows in them.
    pub rows: u64,
    /// Batches that failed.
    pub failed_batches: u64,
    /// Rows of the largest batch.
    pub largest_batch: u64,
    /// Rows per batch.
    pub mean_batch: f64,
    /// Time that replicas spent on batches, in milliseconds.
    pub busy_ms: u64,
    /// Calls that wait.
    pub queued: u64,
}

impl ModelStats {
    /// Zeros.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            batches: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            largest: AtomicU64::new(0),
            busy_micros: AtomicU64::new(0),
            queued: AtomicU64::new(0),
        }
    }

    pub(crate) fn batch(&self, calls: usize, rows: usize, took: Duration, ok: bool) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(calls as u64, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.largest.fetch_max(rows as u64, Ordering::Relaxed);
        self.busy_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if !ok {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        metrics::histogram!("motet_model_batch_rows", "model" => self.name.clone()).record(rows as f64);
        metrics::histogram!("motet_model_batch_seconds", "model" => self.name.clone()).record(took.as_secs_f64());
    }

    pub(crate) fn queued(&self, calls: usize) {
        self.queued.store(calls as u64, Ordering::Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn figures(&self) -> ModelFigures {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (batches, rows) = (get(&self.batches), get(&self.rows));
        ModelFigures {
            batches,
            calls: get(&self.calls),
            rows,
            failed_batches: get(&self.failed),
            largest_batch: get(&self.largest),
            mean_batch: if batches == 0 { 0.0 } else { rows as f64 / batches as f64 },
            busy_ms: get(&self.busy_micros) / 1000,
            queued: get(&self.queued),
        }
    }
}
