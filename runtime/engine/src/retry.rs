//! Whether and when a failed attempt is tried again.
//!
//! Never draws randomness: jitter is a hash of run and attempt, so that a replayed decision is the same decision.
//! Used by the run.

use std::time::Duration;

use crate::definition::RetryPolicy;
use crate::failure::Failure;
use crate::id::{CallId, RunId};

/// The longest wait that the other side may ask for.
const MAX_ASKED_WAIT: Duration = Duration::from_secs(3600);

impl RetryPolicy {
    /// The wait before the attempt after `tries` attempts on one target, or none when it is not tried again.
    ///
    /// Exponential with full jitter, and never shorter than what the other side asked for.
    #[must_use]
    pub fn wait(&self, run: RunId, call: CallId, tries: u32, failure: &Failure) -> Option<Duration> {
        if tries >= self.max_attempts || !self.on.contains(&failure.class) {
            return None;
        }
        let growth = self.factor.max(1.0).powi(i32::try_from(tries.saturating_sub(1)).unwrap_or(i32::MAX));
        let bound = (self.initial.as_secs_f64() * growth).min(self.max.as_secs_f64());
        let jittered = Duration::try_from_secs_f64(bound * fraction(run, call)).unwrap_or(self.max);
        let asked = Duration::from_millis(failure.retry_after_ms.unwrap_or(0)).min(MAX_ASKED_WAIT);
        Some(jittered.max(asked))
    }
}

/// A number in `0.0..1.0` that looks random and depends on nothing but the attempt's identity.
/// The mixing steps are those of SplitMix64.
fn fraction(run: RunId, call: CallId) -> f64 {
    let id = run.as_u128();
    let mut mixed = (id >> 64) as u64 ^ id as u64;
    for part in [u64::from(call.step.0), u64::from(call.item), u64::from(call.attempt)] {
        mixed = mixed.wrapping_add(part.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
    }
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureClass;
    use crate::id::{ShardId, StepIndex};
    use crate::time::Timestamp;

    fn call(attempt: u32) -> CallId {
        CallId { step: StepIndex(1), item: 0, attempt }
    }

    fn run(entropy: u64) -> RunId {
        RunId::new(Timestamp::from_millis(1), ShardId(0), entropy)
    }

    #[test]
    fn waits_spread_below_a_growing_bound() {
        let policy = RetryPolicy { max_attempts: 10, max: Duration::from_secs(2), ..RetryPolicy::default() };
        let failure = Failure::new(FailureClass::Unavailable, "");
        for tries in 1..9u32 {
            let bound = Duration::from_millis(200 * (1 << (tries - 1))).min(Duration::from_secs(2));
            let waits: Vec<_> = (0..500).map(|n| policy.wait(run(n), call(tries), tries, &failure).unwrap()).collect();
            assert!(waits.iter().all(|w| *w <= bound), "try {tries}");
            let below_half = waits.iter().filter(|w| **w < bound / 2).count();
            assert!((200..300).contains(&below_half), "try {tries}: {below_half} of 500 below half");
        }
    }

    #[test]
    fn only_named_classes_within_the_limit_are_tried_again() {
        let policy = RetryPolicy::default();
        for (class, tries, again) in [
            (FailureClass::Timeout, 1, true),
            (FailureClass::Timeout, 3, false),
            (FailureClass::Invalid, 1, false),
            (FailureClass::Denied, 1, false),
        ] {
            assert_eq!(policy.wait(run(1), call(tries), tries, &Failure::new(class, "")).is_some(), again);
        }
        let asked = Failure { retry_after_ms: Some(5_000), ..Failure::new(FailureClass::RateLimited, "") };
        assert!(policy.wait(run(1), call(1), 1, &asked).unwrap() >= Duration::from_secs(5));
    }
}
