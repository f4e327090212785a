//! Leaves a server alone that does not answer, so that nobody waits for it.
//!
//! Knows neither Redis nor a clock: time comes in with every call. Used for each of the connections of `redis`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When requests are let through.
#[derive(Debug)]
pub(super) struct Breaker {
    limits: Limits,
    state: Mutex<State>,
}

/// When to leave a server alone, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Failures in a row.
    pub(super) failures: u32,
    /// The first rest.
    pub(super) at_first: Duration,
    /// The longest rest.
    pub(super) at_most: Duration,
    /// How long one that tries may take before the next one may.
    pub(super) trial: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Everything goes through; so many failed in a row.
    Closed { failures: u32 },
    /// Nothing goes through until then. The last rest took so long.
    Open { until: Instant, rest: Duration },
    /// One tries; if it is never heard of again, the next one may from then on.
    Trial { until: Instant, rest: Duration },
}

/// What changed with the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// The server is left alone from now on.
    Opened,
    /// The server answers again.
    Closed,
}

impl Breaker {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may be sent now; otherwise the time until one may.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until, rest } | State::Trial { until, rest } if until <= now => {
                *state = State::Trial { until: now + self.limits.trial, rest };
                Ok(())
            }
            State::Open { until, .. } | State::Trial { until, .. } => Err(until - now),
        }
    }

    /// A request that was let through was answered, if only by an error.
    pub(super) fn answered(&self) -> Change {
        let mut state = self.state();
        let was = std::mem::replace(&mut *state, State::Closed { failures: 0 });
        if matches!(was, State::Closed { .. }) { Change::None } else { Change::Closed }
    }

    /// A request that was let through was not answered.
    pub(super) fn failed(&self, now: Instant) -> Change {
        let mut state = self.state();
        let (rest, change) = match *state {
            State::Closed { failures } if failures + 1 < self.limits.failures => {
                *state = State::Closed { failures: failures + 1 };
                return Change::None;
            }
            State::Closed { .. } => (self.limits.at_first, Change::Opened),
            State::Trial { rest, .. } => ((rest * 2).min(self.limits.at_most), Change::None),
            // Sent before the rest began: it tells nothing new.
            State::Open { .. } => return Change::None,
        };
        *state = State::Open { until: now + jittered(rest), rest };
        change
    }
}

/// Three quarters to all of a time, so that many nodes do not come back at once.
fn jittered(rest: Duration) -> Duration {
    let draw = RandomState::new().build_hasher().finish() % 1024;
    rest.mul_f64(0.75 + draw as f64 / 4096.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        failures: 3,
        at_first: Duration::from_millis(200),
        at_most: Duration::from_secs(1),
        trial: Duration::from_millis(100),
    };

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// So many milliseconds later.
        Later(u64),
        Pass,
        Refuse,
        Answer(Change),
        Fail(Change),
    }

    #[test]
    fn leaves_a_server_alone_and_tries_it_again() {
        use Step::*;
        let broken = [Pass, Fail(Change::None), Pass, Fail(Change::None), Pass, Fail(Change::Opened)];
        let cases: &[(&str, &[Step])] = &[
            (
                "an answer in between starts the count anew",
                &[
                    Fail(Change::None),
                    Fail(Change::None),
                    Answer(Change::None),
                    Fail(Change::None),
                    Fail(Change::None),
                    Pass,
                    Pass,
                ],
            ),
            ("nothing passes for three quarters of the rest at least", &[Refuse, Later(149), Refuse]),
            ("one tries, the others do not wait for it", &[Later(200), Pass, Refuse, Refuse]),
            ("an answer to the trial lets all through", &[Later(200), Pass, Answer(Change::Closed), Pass, Pass]),
            (
                "a failed trial rests longer",
                &[Later(200), Pass, Fail(Change::None), Later(299), Refuse, Later(101), Pass],
            ),
            ("a trial that is never heard of does not block", &[Later(200), Pass, Later(99), Refuse, Later(1), Pass]),
            ("a late failure of before changes nothing", &[Fail(Change::None), Later(200), Pass]),
            ("a late answer of before counts", &[Answer(Change::Closed), Pass, Pass]),
        ];
        for (number, (what, steps)) in cases.iter().enumerate() {
            let (breaker, mut now) = (Breaker::new(LIMITS), Instant::now());
            let before: &[Step] = if number == 0 { &[] } else { &broken };
            for step in before.iter().chain(*steps) {
                match step {
                    Later(millis) => now += Duration::from_millis(*millis),
                    Pass => assert!(breaker.admit(now).is_ok(), "{what}"),
                    Refuse => assert!(breaker.admit(now).is_err(), "{what}"),
                    Answer(change) => assert_eq!(breaker.answered(), *change, "{what}"),
                    Fail(change) => assert_eq!(breaker.failed(now), *change, "{what}"),
                }
            }
        }
    }

    #[test]
    fn rests_have_a_bound() {
        let (breaker, mut now) = (Breaker::new(LIMITS), Instant::now());
        for _ in 0..50 {
            breaker.failed(now);
            let left = breaker.admit(now).err().unwrap_or_default();
            assert!(left <= LIMITS.at_most, "{left:?}");
            now += left;
            assert!(breaker.admit(now).is_ok());
        }
    }
}
