//! Whose turn it is where things wait: higher priorities first, but whoever waits long enough comes before them.
//!
//! Each level of priority counts as much as having waited [`LEVEL`] longer. A place in a queue is therefore a fixed
//! number, nothing is sorted again as time passes, and nothing starves. Used by the batcher and by the limits of runs.

use std::time::Duration;

/// How much longer a thing of the next lower priority must have waited to go first.
const LEVEL: Duration = Duration::from_secs(10);

/// A place in a queue: lower goes first, equal ones in order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Turn {
    /// Arrival as if it had the priority 0, in microseconds after some fixed moment.
    arrived: i64,
    /// Counts arrivals.
    number: u64,
}

impl Turn {
    /// The place of what arrived `after` some fixed moment as the `number`-th.
    #[must_use]
    pub(crate) fn new(after: Duration, priority: i8, number: u64) -> Self {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self { arrived: micros(after).saturating_sub(i64::from(priority) * micros(LEVEL)), number }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Turn;

    #[test]
    fn priority_goes_first_until_the_other_has_waited_long_enough() {
        let turn = |seconds, priority, number| Turn::new(Duration::from_secs(seconds), priority, number);
        for (first, second) in [
            (turn(0, 0, 1), turn(0, 0, 2)),
            (turn(0, 0, 1), turn(1, 0, 2)),
            (turn(5, 1, 2), turn(0, 0, 1)),
            (turn(0, 0, 1), turn(11, 1, 2)),
            (turn(0, -128, 1), turn(2_600, 127, 2)),
            (turn(0, 0, 1), turn(0, -1, 2)),
        ] {
            assert!(first < second, "{first:?} {second:?}");
        }
    }
}
