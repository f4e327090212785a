//! What is known of a model beyond one load: how it is called, what it took, who is about to call it.
//!
//! Outlives the loaded model, so that one that was ended is not a stranger when it is called again. Used by
//! `residency` and `models`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::stats::ModelStats;

/// Calls of the past count half after this time.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// What is known of one version of a model.
#[derive(Debug)]
pub(crate) struct History {
    /// What it did.
    pub(crate) stats: Arc<ModelStats>,
    /// What it took when it was loaded last; 0 while that is not known.
    bytes: AtomicU64,
    load_micros: AtomicU64,
    /// Callers that wait for it to be loaded.
    callers: AtomicU32,
    /// Runs under way with a step that is still to call it.
    foreseen: AtomicU32,
    calls: AtomicU64,
    pace: Mutex<Pace>,
}

/// How often it is called.
#[derive(Debug)]
struct Pace {
    per_second: f64,
    calls: u64,
    at: Instant,
}

/// Somebody's interest in a model; ends when dropped.
#[derive(Debug)]
pub(crate) struct Interest {
    history: Arc<History>,
    counter: fn(&History) -> &AtomicU32,
}

impl Drop for Interest {
    fn drop(&mut self) {
        (self.counter)(&self.history).fetch_sub(1, Ordering::Relaxed);
    }
}

impl History {
    pub(crate) fn new(stats: ModelStats) -> Self {
        Self {
            stats: Arc::new(stats),
            bytes: AtomicU64::new(0),
            load_micros: AtomicU64::new(0),
            callers: AtomicU32::new(0),
            foreseen: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            pace: Mutex::new(Pace { per_second: 0.0, calls: 0, at: Instant::now() }),
        }
    }

    /// A caller waits for it.
    pub(crate) fn called_for(self: &Arc<Self>) -> Interest {
        self.callers.fetch_add(1, Ordering::Relaxed);
        Interest { history: Arc::clone(self), counter: |history| &history.callers }
    }

    /// A run is going to call it.
    pub(crate) fn foresee(self: &Arc<Self>) -> Interest {
        self.foreseen.fetch_add(1, Ordering::Relaxed);
        Interest { history: Arc::clone(self), counter: |history| &history.foreseen }
    }

    /// Counts a call.
    pub(crate) fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a call waits for it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.callers.load(Ordering::Relaxed) > 0
    }

    /// Whether a run under way is going to call it.
    pub(crate) fn is_foreseen(&self) -> bool {
        self.foreseen.load(Ordering::Relaxed) > 0
    }

    /// Calls that wait; 0 when it is only put.
    pub(crate) fn demand(&self) -> u64 {
        u64::from(self.callers.load(Ordering::Relaxed))
    }

    /// Runs that are going to call it.
    pub(crate) fn foreseen(&self) -> u64 {
        u64::from(self.foreseen.load(Ordering::Relaxed))
    }

    /// Calls per second, recent ones counting more.
    pub(crate) fn per_second(&self, now: Instant) -> f64 {
        let calls = self.calls.load(Ordering::Relaxed);
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(pace.at).as_secs_f64();
        if passed > 0.0 {
            let kept = 0.5f64.powf(passed / HALF_LIFE.as_secs_f64());
            let new = calls.saturating_sub(pace.calls) as f64 / passed;
            *pace = Pace { per_second: pace.per_second * kept + new * (1.0 - kept), calls, at: now };
        }
        pace.per_second
    }

    /// Notes what a load took.
    pub(crate) fn loaded(&self, bytes: u64, took: Duration) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.load_micros.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes that it took last, if it was ever loaded.
    pub(crate) fn bytes(&self) -> Option<u64> {
        Some(self.bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// How long it took to load; nothing while that is not known.
    pub(crate) fn load_time(&self) -> Duration {
        Duration::from_micros(self.load_micros.load(Ordering::Relaxed))
    }
}
