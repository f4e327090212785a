//! Time that goes on while the machine sleeps.
//!
//! The clock behind `std::time::Instant` stands still while a machine is suspended: a node that wakes up would believe
//! in a lease that ended long ago. Never compared with the clocks of other nodes. Used by the election.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A moment on the clock of this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(Duration);

impl Moment {
    /// So long after the clock began.
    #[must_use]
    pub const fn after(began: Duration) -> Self {
        Self(began)
    }

    /// The time from `earlier` to this moment; zero when it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}

/// A clock that never goes back.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Moment;
}

/// Time since the machine was started, sleep included.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Moment {
        #[cfg(target_os = "linux")]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let id = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(id);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Moment(Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanos))
    }
}
