//! Points in time as the rules see them: numbers that arrive inside inputs.
//!
//! Never reads a clock, and knows no time zone: those are the schedule's. Used by every crate that stamps or compares times.

pub mod span;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// As milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time moved forward; saturates at the end of time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Reads a time with its offset, such as `2026-12-24T09:00:00Z`; none for anything else, a time of day without an
    /// offset among it, since every reader would take that for another moment.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        // The offset is looked for here: what follows the day in brackets would be accepted without one.
        let bytes = text.as_bytes();
        let dated = bytes.len() >= 20 && matches!(bytes[10], b'T' | b't' | b' ') && !text.contains('[');
        if !dated {
            return None;
        }
        text.parse::<jiff::Timestamp>().ok().map(|at| Self(at.as_millisecond()))
    }

    /// The time as `2026-12-24T09:00:00Z`, with milliseconds where there are some; none before the year -9999 and
    /// after 9999.
    #[must_use]
    pub fn to_rfc3339(self) -> Option<String> {
        jiff::Timestamp::from_millisecond(self.0).ok().map(|at| at.to_string())
    }

    /// The span from `earlier` to this time; zero when this time is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_offset_only() {
        for (text, millis) in [
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T01:00:01.5+01:00", Some(1_500)),
            ("1970-01-01 00:00:01z", Some(1_000)),
            ("1970-01-01T00:00:01", None),
            ("1970-01-01", None),
            ("1970-01-01T01:00:01+01:00[Europe/Berlin]", None),
            ("1970-01-32T00:00:01Z", None),
            ("12345", None),
            ("", None),
        ] {
            assert_eq!(Timestamp::from_rfc3339(text).map(Timestamp::as_millis), millis, "{text}");
        }
        assert_eq!(Timestamp::from_millis(1_500).to_rfc3339().unwrap(), "1970-01-01T00:00:01.5Z");
        assert_eq!(Timestamp::from_millis(i64::MAX).to_rfc3339(), None);
    }
}
