//! When calls are refused at once because the ones before failed: a circuit breaker, told the time.
//!
//! Pure. Open for a pause that doubles with every probe that fails, half open for one batch at a time. Used by the model
//! actor.

use std::time::{Duration, Instant};

use motet_engine::definition::BreakerPolicy;
use motet_engine::failure::{Failure, FailureClass};

/// Longest pause before a probe.
const LONGEST: Duration = Duration::from_secs(600);

/// Whether batches may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// They may; so many in a row have failed.
    Closed { failures: u32 },
    /// None may until then; so many probes in a row have failed.
    Open { until: Instant, probes: u32 },
    /// One is under way, to see whether they may.
    Probing { probes: u32 },
}

/// The breaker of one model.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    policy: BreakerPolicy,
    state: State,
}

impl Breaker {
    pub(crate) fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Closed { failures: 0 } }
    }

    /// Whether a failure says that the model is in trouble, and not the call.
    pub(crate) fn counts(failure: &Failure) -> bool {
        matches!(failure.class, FailureClass::Unavailable | FailureClass::Timeout | FailureClass::Internal)
    }

    /// Refuses a call that comes now, with the time until another is worth it.
    pub(crate) fn refuses(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } if now < until => Some(until - now),
            _ => None,
        }
    }

    /// Whether a batch may leave now.
    pub(crate) fn lets(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, .. } => now >= until,
            State::Probing { .. } => false,
        }
    }

    /// A batch leaves, which it may.
    pub(crate) fn left(&mut self) {
        if let State::Open { probes, .. } = self.state {
            self.state = State::Probing { probes };
        }
    }

    /// A batch came back. True when the breaker opens with it. `fraction` in `0.0..1.0` is the jitter.
    pub(crate) fn told(&mut self, well: bool, now: Instant, fraction: f64) -> bool {
        let probes = match self.state {
            _ if well => {
                self.state = State::Closed { failures: 0 };
                return false;
            }
            State::Closed { failures } if failures + 1 < self.policy.failures => {
                self.state = State::Closed { failures: failures + 1 };
                return false;
            }
            State::Closed { .. } => 0,
            State::Probing { probes } => probes + 1,
            // It left before the breaker opened.
            State::Open { .. } => return false,
        };
        let pause = self.policy.pause.saturating_mul(1 << probes.min(16)).min(LONGEST);
        self.state = State::Open { until: now + pause.mul_f64(1.0 + 0.2 * fraction), probes };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_a_probe_that_succeeds() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerPolicy { failures: 3, pause: PAUSE });
        for well in [false, false, true, false, false] {
            assert!(breaker.lets(now) && !breaker.told(well, now, 0.0), "not three in a row");
        }
        assert!(breaker.told(false, now, 0.0));
        assert_eq!(breaker.refuses(now), Some(PAUSE));
        assert!(!breaker.lets(now + PAUSE / 2));
        let later = now + PAUSE;
        assert_eq!(breaker.refuses(later), None, "calls may wait for the probe");
        assert!(breaker.lets(later), "the probe");
        breaker.left();
        assert!(!breaker.lets(later), "one at a time");
        assert!(!breaker.told(true, later, 0.0));
        breaker.left();
        assert!(breaker.lets(later), "as many as there are");
    }

    #[test]
    fn probes_that_fail_are_ever_further_apart() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(BreakerPolicy { failures: 1, pause: PAUSE });
        assert!(breaker.told(false, now, 0.0));
        for pause in [10, 20, 40] {
            now += breaker.refuses(now).unwrap();
            assert!(breaker.lets(now));
            breaker.left();
            assert!(breaker.told(false, now, 0.0));
            assert_eq!(breaker.refuses(now), Some(Duration::from_secs(pause)));
            assert!(!breaker.told(false, now, 0.0), "what left before changes nothing");
        }
        assert!(!breaker.told(true, now, 0.0) && breaker.refuses(now).is_none());
    }
}
