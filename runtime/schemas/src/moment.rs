//! Points in time, dates and times of day of records as text, the same for every format.
//!
//! Never rounds: what a calendar of the years -9999 to 9999 cannot say is a mistake. Used by the decoders.

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::compiled::Mistake;

/// Nanoseconds of a day.
const DAY: i128 = 24 * 3_600 * 1_000_000_000;

/// A point in time by its nanoseconds since 1970, as RFC 3339; without a zone where it is a local one.
pub(crate) fn timestamp(nanoseconds: i128, local: bool) -> Result<String, Mistake> {
    let moment = Timestamp::from_nanosecond(nanoseconds).map_err(|_| outside("a timestamp"))?;
    Ok(if local { moment.to_zoned(TimeZone::UTC).datetime().to_string() } else { moment.to_string() })
}

/// A date by its days since 1970, such as `2026-02-28`.
pub(crate) fn date(days: i32) -> Result<String, Mistake> {
    let midnight = Timestamp::from_second(i64::from(days) * 86_400).map_err(|_| outside("a date"))?;
    Ok(midnight.to_zoned(TimeZone::UTC).date().to_string())
}

/// A time of day by its nanoseconds since midnight, such as `12:30:00.5`.
pub(crate) fn time(nanoseconds: i128) -> Result<String, Mistake> {
    if !(0..DAY).contains(&nanoseconds) {
        return Err(outside("a time of day"));
    }
    let part = |size: i128, count: i128| i8::try_from(nanoseconds / size % count).unwrap_or_default();
    let (hour, minute, second) = (part(3_600_000_000_000, 24), part(60_000_000_000, 60), part(1_000_000_000, 60));
    let rest = i32::try_from(nanoseconds % 1_000_000_000).unwrap_or_default();
    Time::new(hour, minute, second, rest).map(|time| time.to_string()).map_err(|_| outside("a time of day"))
}

/// A span of time as Protobuf writes it in JSON: `-1.5s`.
pub(crate) fn duration(seconds: i64, nanoseconds: i32) -> Result<String, Mistake> {
    let mixed = (seconds < 0 && nanoseconds > 0) || (seconds > 0 && nanoseconds < 0);
    if mixed || nanoseconds.unsigned_abs() >= 1_000_000_000 {
        return Err(outside("a duration"));
    }
    let sign = if seconds < 0 || nanoseconds < 0 { "-" } else { "" };
    let fraction = format!("{:09}", nanoseconds.unsigned_abs());
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!("{sign}{}{point}{fraction}s", seconds.unsigned_abs()))
}

fn outside(what: &str) -> Mistake {
    Mistake::new("out_of_range", format!("{what} in it is outside of what a calendar can say"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_texts() {
        let check =
            |found: Result<String, Mistake>, expected: Option<&str>| assert_eq!(found.ok().as_deref(), expected);
        check(timestamp(1_700_000_000_123_000_000, false), Some("2023-11-14T22:13:20.123Z"));
        check(timestamp(-1, true), Some("1969-12-31T23:59:59.999999999"));
        check(timestamp(i128::from(i64::MAX) * 1_000_000, false), None);
        check(date(20_000), Some("2024-10-04"));
        check(date(-1), Some("1969-12-31"));
        check(date(i32::MAX), None);
        check(time(0), Some("00:00:00"));
        check(time(DAY - 1), Some("23:59:59.999999999"));
        check(time(45_000_500_000_000), Some("12:30:00.5"));
        check(time(DAY), None);
        check(time(-1), None);
        check(duration(1, 500_000_000), Some("1.5s"));
        check(duration(0, -1), Some("-0.000000001s"));
        check(duration(-3, 0), Some("-3s"));
        check(duration(1, -1), None);
        check(duration(i64::MIN, 0), Some("-9223372036854775808s"));
    }
}
