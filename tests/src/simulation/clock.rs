//! Time that passes only when the simulation says so.
//!
//! Never reads the machine's clock. Two times, as on a machine: the one that timers count, which only goes forward,
//! and the time of day, which may jump both ways. Used by the simulated nodes and by the world.

use std::sync::atomic::{AtomicI64, Ordering};

use motet_actors::ports::Clock;
use motet_engine::time::Timestamp;

/// Time of day at which every simulation begins, in milliseconds since 1970.
const BEGIN: i64 = 1_700_000_000_000;

/// The clock of a simulated world.
#[derive(Debug, Default)]
pub(super) struct VirtualClock {
    passed: AtomicI64,
    shift: AtomicI64,
}

impl VirtualClock {
    /// Milliseconds since the beginning, as timers count them.
    pub(super) fn passed(&self) -> i64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Lets time pass up to this many milliseconds after the beginning.
    pub(super) fn advance_to(&self, passed: i64) {
        self.passed.fetch_max(passed, Ordering::Relaxed);
    }

    /// Moves the time of day without any time passing.
    pub(super) fn jump(&self, millis: i64) {
        self.shift.fetch_add(millis, Ordering::Relaxed);
    }

    /// When, as timers count, the time of day will be this one.
    pub(super) fn passed_at(&self, at: Timestamp) -> i64 {
        at.as_millis() - BEGIN - self.shift.load(Ordering::Relaxed)
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(BEGIN + self.passed() + self.shift.load(Ordering::Relaxed))
    }
}
