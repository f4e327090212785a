//! So many within a span of time: a bucket of tokens that fills evenly, told the time.
//!
//! Never waits: it says how long until there is a token again. Used by the limits of runs, of models and of HTTP.

use std::time::Duration;

/// A bucket that is full after one span and holds as many tokens as the span allows, kept as the moment at which it
/// would be full again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    interval: Duration,
    span: Duration,
    full_at: Duration,
}

impl Pace {
    /// At most `count` within `span`; all of them may go at once.
    #[must_use]
    pub fn new(count: u32, span: Duration) -> Self {
        Self { interval: span / count.max(1), span, full_at: Duration::ZERO }
    }

    /// Takes `tokens` at a moment `now` after some fixed one, or says how long until there are so many. What is more
    /// than the bucket holds goes when it is full, and then longer than a span goes by without a token.
    ///
    /// # Errors
    /// How long until they are there.
    pub fn take(&mut self, now: Duration, tokens: u32) -> Result<(), Duration> {
        let wanted = self.interval.saturating_mul(tokens);
        let next = self.full_at.max(now).saturating_add(wanted);
        let late = next.saturating_sub(now).saturating_sub(self.span.max(wanted));
        if late.is_zero() {
            self.full_at = next;
            Ok(())
        } else {
            Err(late)
        }
    }

    /// How many tokens there are.
    #[must_use]
    pub fn available(&self, now: Duration) -> u32 {
        let missing = self.full_at.saturating_sub(now);
        let there = self.span.saturating_sub(missing).as_nanos() / self.interval.as_nanos().max(1);
        u32::try_from(there).unwrap_or(u32::MAX)
    }

    /// How long until there is a token.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Duration {
        let mut tried = *self;
        tried.take(now, 1).err().unwrap_or_default()
    }

    /// Whether every token is there.
    #[must_use]
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pace;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_span_of_tokens_may_go_at_once_and_comes_back_evenly() {
        let mut pace = Pace::new(10, at(1000));
        for left in (0..10).rev() {
            assert_eq!(pace.take(at(0), 1), Ok(()));
            assert_eq!(pace.available(at(0)), left);
        }
        assert_eq!((pace.available(at(250)), pace.wait(at(250)), pace.wait(at(30))), (2, at(0), at(70)));
        assert_eq!(pace.take(at(0), 1), Err(at(100)));
        assert_eq!(pace.take(at(99), 1), Err(at(1)));
        assert_eq!(pace.take(at(100), 1), Ok(()));
        assert!(pace.take(at(100), 1).is_err());
        assert_eq!(pace.take(at(5000), 10), Ok(()));
        assert_eq!(pace.take(at(5000), 5), Err(at(500)));
    }

    #[test]
    fn more_than_the_bucket_holds_goes_when_it_is_full() {
        let mut pace = Pace::new(10, at(1000));
        assert_eq!(pace.take(at(0), 20), Ok(()));
        assert_eq!(pace.take(at(0), 1), Err(at(1100)));
        assert_eq!(pace.take(at(1100), 20), Err(at(900)));
        assert_eq!(pace.take(at(2000), 20), Ok(()));
    }
}
