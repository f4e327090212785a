//! Time since the machine was booted, the time in which it was suspended included.
//!
//! A lease must be measured with such a clock: one that stands still while the machine sleeps lets it wake up in the
//! belief that its lease lasts. Never compared with the clocks of other nodes. Used by the election and by everything
//! that measures leases.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A moment, as time since the boot of the machine. Means nothing on another machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The moment that came so long after the boot.
    #[must_use]
    pub const fn new(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// The time from an earlier moment to this one; zero when it was not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The time since the boot.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// The moment so much later.
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}

/// Tells the time since the boot.
pub trait BootClock: Send + Sync + 'static {
    /// The present moment; never earlier than one that was told before.
    fn now(&self) -> Moment;
}

/// The machine's own clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemBootClock;

/// Elsewhere than on Linux the monotonic clock has to do: there a machine that slept learns it from its refused renewal.
#[cfg(target_os = "linux")]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

impl BootClock for SystemBootClock {
    fn now(&self) -> Moment {
        let time = rustix::time::clock_gettime(CLOCK);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Moment(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_and_moments_compare() {
        let (early, late) = (SystemBootClock.now(), SystemBootClock.now());
        assert!(late >= early && early > Moment::default());
        let later = late + Duration::from_secs(3);
        assert_eq!((later.since(late), late.since(later)), (Duration::from_secs(3), Duration::ZERO));
    }
}
