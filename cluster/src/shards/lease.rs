//! This node's own lease: when to register and renew, and when to stop by itself.
//!
//! Pure. Times count from before a request was sent, so the store's idea of the lease always lasts longer than this
//! one. A node that could not renew in time stops before anybody may fence it, and comes back with a new incarnation.
//! Used by the machine.

use std::time::Duration;

use motet_store::port::Incarnation;

use super::contender::mix;
use super::settings::ShardSettings;
use crate::clock::Moment;

/// Longest pause between two attempts to register, in units of the first one.
const LONGEST_PAUSE: u32 = 10;

enum State {
    /// There is no lease.
    Out { try_at: Moment, tries: u32 },
    /// There is one, as far as this node may rely on it.
    In { incarnation: Incarnation, until: Moment, renew_at: Moment },
}

/// What the lease needs of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LeaseCall {
    Register,
    Renew(Incarnation),
}

/// This node's lease.
pub(super) struct Lease {
    state: State,
    /// Whether a request is under way.
    asking: bool,
    /// Sets this node's pauses apart from those of others.
    salt: u64,
}

impl Lease {
    pub(super) fn new(now: Moment, salt: u64) -> Self {
        Self { state: State::Out { try_at: now, tries: 0 }, asking: false, salt }
    }

    /// The life under which this node may work, and until when unless it is renewed.
    pub(super) fn held(&self) -> Option<(Incarnation, Moment)> {
        match self.state {
            State::In { incarnation, until, .. } => Some((incarnation, until)),
            State::Out { .. } => None,
        }
    }

    /// Gives the lease up when its time has come. Returns the life that ended so.
    pub(super) fn expire(&mut self, now: Moment) -> Option<Incarnation> {
        match self.state {
            State::In { incarnation, until, .. } if now >= until => {
                self.state = State::Out { try_at: now, tries: 0 };
                Some(incarnation)
            }
            _ => None,
        }
    }

    /// What to ask the store for now.
    pub(super) fn due(&mut self, now: Moment) -> Option<LeaseCall> {
        let call = match self.state {
            State::Out { try_at, .. } if now >= try_at => LeaseCall::Register,
            State::In { incarnation, renew_at, .. } if now >= renew_at => LeaseCall::Renew(incarnation),
            _ => return None,
        };
        if std::mem::replace(&mut self.asking, true) { None } else { Some(call) }
    }

    /// Whether the store is asked at this moment.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        let (next, end) = match self.state {
            State::Out { try_at, .. } => (try_at, None),
            State::In { until, renew_at, .. } => (renew_at, Some(until)),
        };
        let next = (!self.asking).then_some(next);
        next.into_iter().chain(end).min()
    }

    /// The store gave this node a life.
    pub(super) fn registered(&mut self, incarnation: Incarnation, sent_at: Moment, settings: &ShardSettings) {
        self.asking = false;
        self.hold(incarnation, sent_at, settings);
    }

    /// The store prolonged a life, or refused to. Returns whether this node's life ended by it.
    pub(super) fn renewed(&mut self, of: Incarnation, lives: bool, sent_at: Moment, settings: &ShardSettings) -> bool {
        self.asking = false;
        match self.state {
            State::In { incarnation, .. } if incarnation == of && lives => {
                self.hold(incarnation, sent_at, settings);
                false
            }
            State::In { incarnation, .. } if incarnation == of => {
                self.state = State::Out { try_at: sent_at, tries: 0 };
                true
            }
            _ => false,
        }
    }

    fn hold(&mut self, incarnation: Incarnation, sent_at: Moment, settings: &ShardSettings) {
        let (until, renew_at) = (sent_at + settings.stop_after, sent_at + settings.renew_every);
        self.state = State::In { incarnation, until, renew_at };
    }

    /// The store did not answer, or failed.
    pub(super) fn failed(&mut self, now: Moment, settings: &ShardSettings) {
        self.asking = false;
        self.salt = mix(self.salt);
        let pause = jittered(settings.retry_after, self.salt);
        match &mut self.state {
            State::In { renew_at, .. } => *renew_at = now + pause,
            State::Out { try_at, tries } => {
                *try_at = now + pause * 2u32.saturating_pow(*tries).min(LONGEST_PAUSE);
                *tries = tries.saturating_add(1);
            }
        }
    }

    /// Somebody doubts that the life lasts: the store is asked at once.
    pub(super) fn doubt(&mut self, now: Moment) {
        if let State::In { renew_at, .. } = &mut self.state {
            *renew_at = now.min(*renew_at);
        }
    }
}

/// From half to all of a pause, by some bits.
pub(super) fn jittered(pause: Duration, bits: u64) -> Duration {
    pause.mul_f64(0.5 + (bits % 512) as f64 / 1022.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::new(Duration::from_millis(millis))
    }

    const LIFE: Incarnation = Incarnation(7);

    #[test]
    fn a_lease_is_renewed_and_ends_in_time() {
        let settings = ShardSettings::new(8);
        let mut lease = Lease::new(at(0), 1);
        assert_eq!((lease.due(at(0)), lease.due(at(1))), (Some(LeaseCall::Register), None));
        // The answer took 300 ms: the lease counts from when it was asked for.
        lease.registered(LIFE, at(0), &settings);
        assert_eq!(lease.held(), Some((LIFE, at(2_400))));
        assert_eq!((lease.due(at(999)), lease.wake_at()), (None, Some(at(1_000))));
        assert_eq!(lease.due(at(1_000)), Some(LeaseCall::Renew(LIFE)));
        assert_eq!(lease.wake_at(), Some(at(2_400)), "while the store is asked only the end is waited for");
        assert!(!lease.renewed(LIFE, true, at(1_000), &settings));
        assert_eq!(lease.held(), Some((LIFE, at(3_400))));
        assert_eq!(lease.expire(at(3_399)), None);
        assert_eq!(lease.expire(at(3_400)), Some(LIFE));
        assert_eq!((lease.expire(at(3_400)), lease.held()), (None, None));
        assert_eq!(lease.due(at(3_400)), Some(LeaseCall::Register));
    }

    #[test]
    fn late_and_wrong_answers_revive_nothing() {
        let settings = ShardSettings::new(8);
        let mut lease = Lease::new(at(0), 1);
        lease.registered(LIFE, at(0), &settings);
        assert_eq!(lease.expire(at(9_000)), Some(LIFE));
        assert!(!lease.renewed(LIFE, true, at(8_999), &settings));
        assert_eq!(lease.held(), None, "it had stopped already");
        lease.registered(Incarnation(8), at(9_000), &settings);
        assert!(!lease.renewed(LIFE, false, at(9_001), &settings), "that was an earlier life");
        assert!(lease.renewed(Incarnation(8), false, at(9_500), &settings));
        assert_eq!(lease.due(at(9_500)), Some(LeaseCall::Register));
    }

    #[test]
    fn failures_are_tried_again_with_growing_pauses() {
        let settings = ShardSettings::new(8);
        let mut lease = Lease::new(at(0), 1);
        let (mut now, mut pauses) = (at(0), vec![]);
        for _ in 0..8 {
            assert_eq!(lease.due(now), Some(LeaseCall::Register));
            lease.failed(now, &settings);
            let next = lease.wake_at().unwrap();
            pauses.push(next.since(now));
            now = next;
        }
        let millis = |from, to| (Duration::from_millis(from), Duration::from_millis(to));
        for (pause, (from, to)) in pauses.iter().zip([
            millis(50, 100),
            millis(100, 200),
            millis(200, 400),
            millis(400, 800),
            millis(500, 1_000),
            millis(500, 1_000),
            millis(500, 1_000),
            millis(500, 1_000),
        ]) {
            assert!((from..=to).contains(pause), "{pauses:?}");
        }
        lease.registered(LIFE, now, &settings);
        lease.doubt(now);
        assert_eq!(lease.due(now), Some(LeaseCall::Renew(LIFE)));
    }
}
