//! Time and randomness as ports, so that a simulation can own both.
//!
//! Everything in this crate that needs the time of day or random bits takes them from here. Used by the router, the
//! drivers, the timers and the supervisors.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use motet_engine::time::Timestamp;

/// The time of day.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock, made safe to wait by: it never goes back, and it never stands still.
///
/// When the time of day is set forward it follows at once. When that is set back it runs a tenth slower until both
/// agree again, so that a wait of a second is not one of an hour, and events are never recorded before earlier ones.
#[derive(Debug)]
pub struct SystemClock {
    begun: Instant,
    /// What it showed last and when that was.
    shown: Mutex<(Duration, i64)>,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { begun: Instant::now(), shown: Mutex::new((Duration::ZERO, time_of_day())) }
    }
}

impl SystemClock {
    /// What the clock shows at this time after its start, when the time of day is this one.
    fn show(&self, elapsed: Duration, time_of_day: i64) -> i64 {
        // The pair is whole whatever happened to another thread.
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, millis) = *shown;
        let gained = u64::try_from((elapsed.saturating_sub(at) * 9 / 10).as_millis()).unwrap_or(u64::MAX);
        let slow = millis.saturating_add_unsigned(gained);
        // The rest of a millisecond is not lost to those who look often.
        *shown = if time_of_day > slow {
            (elapsed, time_of_day)
        } else {
            (at.saturating_add(Duration::from_millis(gained) * 10 / 9), slow)
        };
        shown.1
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.show(self.begun.elapsed(), time_of_day()))
    }
}

fn time_of_day() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_follows_forward_and_slows_down_rather_than_going_back() {
        let clock = SystemClock { begun: Instant::now(), shown: Mutex::new((Duration::ZERO, 1_000)) };
        // Milliseconds since the start, the time of day then, and what is shown.
        for (elapsed, time_of_day, expected) in [
            (0, 1_000, 1_000),
            (100, 1_100, 1_100),
            (200, 3_601_200, 3_601_200),
            (300, 3_601_300, 3_601_300),
            (300, 1_300, 3_601_300),
            (1_300, 2_300, 3_602_200),
            (2_300, 3_300, 3_603_100),
            (2_301, 3_603_000, 3_603_100),
            (2_302, 3_603_101, 3_603_101),
            (3_302, 3_604_101, 3_604_101),
        ] {
            let shown = clock.show(Duration::from_millis(elapsed), time_of_day);
            assert_eq!(shown, expected, "after {elapsed} ms at {time_of_day}");
        }
    }

    #[test]
    fn looking_often_does_not_stop_a_slow_clock() {
        let clock = SystemClock { begun: Instant::now(), shown: Mutex::new((Duration::ZERO, 10_000)) };
        let shown = (0..10_000_u64).map(|micros| clock.show(Duration::from_micros(micros * 100), 0)).last();
        assert_eq!(shown, Some(10_899));
    }
}
