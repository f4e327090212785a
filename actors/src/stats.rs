//! What a model did since the node started: batches, rows, time. Shown by the API, the demo and metrics.
//!
//! Never decides anything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::batcher::Departure;

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
    answered_calls: AtomicU64,
    failed_calls: AtomicU64,
    waited_micros: AtomicU64,
    computed_micros: AtomicU64,
    refusing: AtomicBool,
    begun: Instant,
    /// Microseconds after `begun` of the last batch's end.
    last_micros: AtomicU64,
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
    /// Calls that had their answer.
    pub answered_calls: u64,
    /// Calls that had none: their batch failed, or their time was over before it began.
    pub failed_calls: u64,
    /// Time that calls waited for their batch, of all together, in microseconds.
    pub waited_us: u64,
    /// Time that batches took, counted once for each call in them, in microseconds.
    pub computed_us: u64,
    /// Whether calls are refused because the ones before failed.
    pub refusing: bool,
    /// Time since the end of the last batch in milliseconds; none before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
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
            answered_calls: AtomicU64::new(0),
            failed_calls: AtomicU64::new(0),
            waited_micros: AtomicU64::new(0),
            computed_micros: AtomicU64::new(0),
            refusing: AtomicBool::new(false),
            begun: Instant::now(),
            last_micros: AtomicU64::new(0),
        }
    }

    pub(crate) fn batch(&self, calls: usize, rows: usize, took: Duration, ok: bool) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(calls as u64, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.largest.fetch_max(rows as u64, Ordering::Relaxed);
        self.busy_micros.fetch_add(micros(took), Ordering::Relaxed);
        self.computed_micros.fetch_add(micros(took).saturating_mul(calls as u64), Ordering::Relaxed);
        self.last_micros.fetch_max(micros(self.begun.elapsed()), Ordering::Relaxed);
        if ok {
            self.answered_calls.fetch_add(calls as u64, Ordering::Relaxed);
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        metrics::histogram!("motet_model_batch_rows", "model" => self.name.clone()).record(rows as f64);
        metrics::histogram!("motet_model_batch_seconds", "model" => self.name.clone()).record(took.as_secs_f64());
    }

    /// Counts a batch by why it left the queue.
    pub(crate) fn left(&self, why: Departure) {
        let (model, why) = (self.name.clone(), why.as_str());
        metrics::counter!("motet_model_batches_total", "model" => model, "left" => why).increment(1);
    }

    pub(crate) fn queued(&self, calls: usize) {
        self.queued.store(calls as u64, Ordering::Relaxed);
    }

    /// Calls that begin to be computed have waited so long together.
    pub(crate) fn waited(&self, together: Duration) {
        self.waited_micros.fetch_add(micros(together), Ordering::Relaxed);
    }

    /// Whether its breaker refuses calls.
    pub(crate) fn refuses(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::Relaxed);
        let open = if refusing { 1.0 } else { 0.0 };
        metrics::gauge!("motet_model_breaker_open", "model" => self.name.clone()).set(open);
    }

    pub(crate) fn failed(&self, calls: usize) {
        self.failed_calls.fetch_add(calls as u64, Ordering::Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn figures(&self) -> ModelFigures {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (batches, rows) = (get(&self.batches), get(&self.rows));
        let idle = || micros(self.begun.elapsed()).saturating_sub(get(&self.last_micros)) / 1000;
        ModelFigures {
            batches,
            calls: get(&self.calls),
            rows,
            failed_batches: get(&self.failed),
            largest_batch: get(&self.largest),
            mean_batch: if batches == 0 { 0.0 } else { rows as f64 / batches as f64 },
            busy_ms: get(&self.busy_micros) / 1000,
            queued: get(&self.queued),
            answered_calls: get(&self.answered_calls),
            failed_calls: get(&self.failed_calls),
            waited_us: get(&self.waited_micros),
            computed_us: get(&self.computed_micros),
            refusing: self.refusing.load(Ordering::Relaxed),
            idle_ms: (batches > 0).then(idle),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
