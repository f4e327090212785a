//! Time and randomness as ports, so that a simulation can own both.
//!
//! Everything in this crate that needs the time of day or random bits takes them from here. Used by the router, the
//! drivers, the timers and the supervisors.

use std::time::{SystemTime, UNIX_EPOCH};

use motet_engine::time::Timestamp;

/// The time of day.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Random bits.
pub trait Entropy: Send + Sync + 'static {
    /// The next 64 bits.
    fn next(&self) -> u64;

    /// A fraction in `0.0..1.0`, for jitter.
    fn fraction(&self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The operating system's random bits.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next(&self) -> u64 {
        // The system's source fails only where a process cannot run at all; the address of a stack slot keeps ids
        // apart even then, and the store refuses an id that is taken.
        getrandom::u64().unwrap_or_else(|_| std::ptr::from_ref(&()) as usize as u64)
    }
}
