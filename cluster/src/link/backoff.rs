//! How long to wait before the next attempt to connect: exponential, bounded, with full jitter.
//!
//! Draws from the system's random bits, so that many nodes do not knock at the same moment. Used by the sending half
//! and by gossip.

use std::time::Duration;

/// Bounds of the pauses between attempts to connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// Longest pause before the second attempt; it doubles from there.
    pub first: Duration,
    /// Longest pause of all.
    pub most: Duration,
}

impl Backoff {
    /// The pause before an attempt; the first one, which has number 0, has none.
    pub(crate) fn pause(self, attempt: u32) -> Duration {
        if attempt == 0 {
            return Duration::ZERO;
        }
        let doubled = self.first.saturating_mul(1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
        jittered(doubled.min(self.most))
    }
}

/// Something from nothing up to `most`.
pub(crate) fn jittered(most: Duration) -> Duration {
    // Half where the system has no random bits: any pause is better than none.
    let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
    most.mul_f64(f64::from(bits) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_bound() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };
        for (attempt, most) in [(0, 0), (1, 100), (2, 200), (4, 800), (7, 5_000), (33, 5_000), (u32::MAX, 5_000)] {
            for _ in 0..100 {
                assert!(backoff.pause(attempt) <= Duration::from_millis(most), "attempt {attempt}");
            }
        }
    }
}
