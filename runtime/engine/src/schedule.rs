//! Times by the calendar: a cron expression in a time zone, and the next time after a given one.
//!
//! Pure: the zones come with the binary, so every node computes the same times, a bare container among them. A time
//! of day that a change of the clock leaves out comes at the first moment after the gap, one that is repeated comes
//! once; patterns for every hour go on by the real passing of time. Used by definitions and by the actor that begins
//! scheduled runs.

mod due;

use std::fmt;
use std::sync::LazyLock;

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::ToSpan;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

pub use due::{Due, LastRun, run_id};

use crate::expression::wording::{nearest, shorten};
use crate::time::Timestamp;

/// The zone where none is named.
pub const UTC: &str = "UTC";

/// Longest cron expression in bytes.
const MAX_SOURCE: usize = 256;

/// An expression that has no time after this one, 2026-01-01, never had one: every date there is comes again.
const SOME_DAY: Timestamp = Timestamp::from_millis(1_767_225_600_000);

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Whether there is such a time zone.
#[must_use]
pub fn is_zone(name: &str) -> bool {
    ZONES.get(name).is_ok()
}

/// The zone whose name is most like this one.
#[must_use]
pub fn nearest_zone(name: &str) -> Option<String> {
    let names: Vec<String> = ZONES.available().map(|zone| zone.as_str().to_owned()).collect();
    nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

/// Why a text is no cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CalendarError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub advice: String,
}

/// A cron expression in a time zone.
#[derive(Clone)]
pub struct Calendar {
    source: String,
    cron: Cron,
    every_hour: bool,
    zone: TimeZone,
}

impl Calendar {
    /// Compiles an expression of five fields, or six with seconds first, or one of `@hourly @daily @weekly @monthly
    /// @yearly`, in a time zone by its IANA name.
    ///
    /// # Errors
    /// When either is not understood, or there is no such time at all.
    pub fn new(source: &str, zone: &str) -> Result<Self, CalendarError> {
        let zone = ZONES.get(zone).map_err(|_| CalendarError {
            message: format!("there is no time zone '{}'", shorten(zone, 60)),
            advice: "write a name of the IANA time zone database, such as Europe/Berlin".into(),
        })?;
        let shown = shorten(source, 60);
        if source.len() > MAX_SOURCE {
            let message = format!("the cron expression has {} bytes; at most {MAX_SOURCE} are allowed", source.len());
            return Err(CalendarError { message, advice: "use several schedules".into() });
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(source).map_err(|error| explain(&shown, source, &error))?;
        let every_hour = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
        let calendar = Self { source: source.to_owned(), cron, every_hour, zone };
        if calendar.next_after(SOME_DAY).is_none() {
            return Err(CalendarError {
                message: format!("the cron expression '{shown}' names a day that never comes"),
                advice: "check the day of the month against the month".into(),
            });
        }
        Ok(calendar)
    }

    /// The expression as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The IANA name of the time zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or(UTC)
    }

    /// The first time after this one; none when there is none any more. Whole seconds.
    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?;
        let next = if self.every_hour { self.next_by_time_passed(after) } else { self.next_by_wall(after) };
        next.map(|next| Timestamp::from_millis(next.as_millisecond()))
    }

    /// The next time of patterns that name hours: each time of day counts once, whatever the clock does.
    fn next_by_wall(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut wall = self.zone.to_datetime(after);
        loop {
            wall = self.next_wall(wall)?;
            let ambiguous = self.zone.to_ambiguous_timestamp(wall);
            let next = match ambiguous.offset() {
                AmbiguousOffset::Gap { after, .. } => {
                    let before_the_gap = after.to_timestamp(wall).ok()?;
                    self.zone.following(before_the_gap).next()?.timestamp()
                }
                AmbiguousOffset::Fold { .. } | AmbiguousOffset::Unambiguous { .. } => ambiguous.earlier().ok()?,
            };
            // In the second half of a repeated hour the times of day that follow have been already.
            if next > after {
                return Some(next);
            }
        }
    }

    /// The next time of patterns that name no hour: whenever the clock shows it, so that what comes every ten minutes
    /// neither stops for a repeated hour nor comes once more for one that was left out.
    fn next_by_time_passed(&self, after: jiff::Timestamp) -> Option<jiff::Timestamp> {
        let mut from = after;
        loop {
            let change = self.zone.following(from).next().map(|change| change.timestamp());
            let offset = self.zone.to_offset(from);
            let next = self.next_wall(offset.to_datetime(from)).and_then(|wall| offset.to_timestamp(wall).ok());
            match (next, change) {
                (Some(next), Some(change)) if next >= change => {
                    // The change itself may be a time, seen by the new offset.
                    let offset = self.zone.to_offset(change);
                    let just_before = offset.to_datetime(change).checked_sub(1.second()).ok()?;
                    let first = self.next_wall(just_before)?;
                    if first == offset.to_datetime(change) {
                        return Some(change);
                    }
                    from = change;
                }
                (next, _) => return next,
            }
        }
    }

    /// The next time of day after this one that fits the pattern, on a clock that never changes.
    fn next_wall(&self, wall: DateTime) -> Option<DateTime> {
        let from = wall.to_zoned(TimeZone::UTC).ok()?;
        self.cron.find_next_occurrence(&from, false).ok().map(|next| next.datetime())
    }
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Calendar").field(&self.source).field(&self.zone()).finish()
    }
}

impl PartialEq for Calendar {
    /// The same expression in the same zone.
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.zone() == other.zone()
    }
}

fn explain(shown: &str, source: &str, error: &CronError) -> CalendarError {
    let fields = source.split_whitespace().count();
    let nickname = source.trim_start().starts_with('@');
    let (what, advice) = match error {
        CronError::EmptyPattern => ("it is empty".to_owned(), FIVE),
        _ if nickname => ("there is no such name".to_owned(), "one of @hourly, @daily, @weekly, @monthly, @yearly"),
        _ if !(5..=6).contains(&fields) => (format!("it has {fields} fields"), FIVE),
        CronError::InvalidPattern(words) | CronError::IllegalCharacters(words) | CronError::ComponentError(words) => {
            (shorten(words, 120).trim_end_matches('.').to_owned(), FIVE)
        }
        other => (other.to_string(), FIVE),
    };
    CalendarError { message: format!("'{shown}' is no cron expression: {what}"), advice: advice.into() }
}

const FIVE: &str = "write minute, hour, day of month, month and day of week, such as \"0 3 * * *\"";

#[cfg(test)]
mod tests {
    use super::*;

    fn times(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let calendar = Calendar::new(cron, zone).unwrap();
        let mut at = Timestamp::from_rfc3339(after).unwrap();
        let mut times = vec![];
        for _ in 0..count {
            at = calendar.next_after(at).unwrap();
            times.push(at.to_rfc3339().unwrap().replace(":00Z", "Z"));
        }
        times
    }

    #[test]
    fn times_follow_the_clock_on_the_wall() {
        // In Berlin the clock goes from 2:00 to 3:00 on 2026-03-29 and from 3:00 to 2:00 on 2026-10-25; in Lord Howe
        // it moves by half an hour; in Sao Paulo midnight itself was left out until 2018.
        for (cron, zone, after, expected) in [
            ("0 3 * * *", "UTC", "2026-01-01T03:00:00Z", ["2026-01-02T03:00Z", "2026-01-03T03:00Z"]),
            ("0 3 * * *", "UTC", "2026-01-01T02:59:59.999Z", ["2026-01-01T03:00Z", "2026-01-02T03:00Z"]),
            ("@hourly", "UTC", "2026-01-01T00:00:00Z", ["2026-01-01T01:00Z", "2026-01-01T02:00Z"]),
            ("@daily", "Asia/Tokyo", "2026-01-01T00:00:00Z", ["2026-01-01T15:00Z", "2026-01-02T15:00Z"]),
            ("0 12 29 2 *", "UTC", "2026-01-01T00:00:00Z", ["2028-02-29T12:00Z", "2032-02-29T12:00Z"]),
            ("0 9 * * MON-FRI", "UTC", "2026-11-20T10:00:00Z", ["2026-11-23T09:00Z", "2026-11-24T09:00Z"]),
            ("*/20 * * * * *", "UTC", "2026-01-01T00:00:50Z", ["2026-01-01T00:01Z", "2026-01-01T00:01:20Z"]),
            ("0 8 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", ["2026-03-28T07:00Z", "2026-03-29T06:00Z"]),
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
            ("15,30,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:15Z"]),
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
            ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", ["2026-10-25T01:00Z", "2026-10-25T01:30Z"]),
            ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", ["2026-03-29T01:00Z", "2026-03-29T01:30Z"]),
            ("0 */2 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", ["2026-03-29T01:00Z", "2026-03-29T02:00Z"]),
            ("0 2,14 * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", ["2026-10-25T13:00Z", "2026-10-26T01:00Z"]),
            ("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", ["2026-03-29T00:30Z", "2026-03-29T01:30Z"]),
            ("59 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", ["2026-10-25T00:59Z", "2026-10-25T01:59Z"]),
            ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", ["2026-10-03T15:30Z", "2026-10-04T15:15Z"]),
            ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", ["2018-11-04T03:00Z", "2018-11-05T02:00Z"]),
        ] {
            assert_eq!(times(cron, zone, after, 2), expected, "{cron} in {zone}");
        }
    }

    #[test]
    fn a_year_of_times_only_moves_forward_and_misses_no_day() {
        for zone in ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"] {
            for cron in ["30 2 * * *", "0 0 * * *", "59 23 * * *"] {
                let calendar = Calendar::new(cron, zone).unwrap();
                let mut at = Timestamp::from_rfc3339("2025-12-31T23:59:59Z").unwrap();
                let end = Timestamp::from_rfc3339("2027-01-01T00:00:00Z").unwrap();
                let mut days = 0;
                while let Some(next) = calendar.next_after(at).filter(|next| *next < end) {
                    assert!(next > at && next.since(at).as_secs() <= 25 * 3600, "{cron} in {zone} after {at:?}");
                    at = next;
                    days += 1;
                }
                assert_eq!(days, 365, "{cron} in {zone}");
            }
        }
    }

    #[test]
    fn every_zone_is_carried_by_the_binary() {
        assert!(ZONES.available().count() > 400);
        assert!(is_zone("Europe/Berlin") && is_zone("UTC") && !is_zone("Europe/Berln") && !is_zone(""));
        assert_eq!(nearest_zone("Europe/Berln").as_deref(), Some("Europe/Berlin"));
    }

    #[test]
    fn what_is_no_cron_expression_is_told() {
        for (cron, words) in [
            ("", "empty"),
            ("* * * *", "4 fields"),
            ("* * * * * * *", "7 fields"),
            ("60 * * * *", "no cron expression"),
            ("@often", "no such name"),
            ("0 0 30 2 *", "never comes"),
            ("0 0 31 4,6,9,11 *", "never comes"),
            ("a b c d e", "no cron expression"),
        ] {
            let error = Calendar::new(cron, UTC).unwrap_err();
            assert!(error.message.contains(words) && !error.advice.is_empty(), "{cron}: {error:?}");
        }
        assert!(Calendar::new(&"1,".repeat(200), UTC).is_err());
        assert!(Calendar::new("* * * * *", "Nowhere/None").is_err());
    }
}
