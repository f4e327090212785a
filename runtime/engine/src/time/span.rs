//! Lengths of time as users write them: `200ms`, `2s`, `5m`, `1h`, `1d`, `1m30s`, and ISO 8601 such as `PT5S`.
//!
//! Never accepts a bare number, whose unit readers would have to guess. Used for every duration in definitions and
//! for waits, whose lengths may come out of expressions.

use std::time::Duration;

/// The longest duration that is accepted: a year.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
const ISO_DATE: [(&str, f64); 2] = [("D", 86_400.0), ("W", 604_800.0)];
const ISO_TIME: [(&str, f64); 3] = [("H", 3600.0), ("M", 60.0), ("S", 1.0)];

/// Reads a duration; none when it is written in neither form or is longer than a year.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let seconds = match text.strip_prefix('P') {
        Some(iso) => {
            let (date, time) = iso.split_once('T').map_or((iso, None), |(date, time)| (date, Some(time)));
            let has_any = !date.is_empty() || time.is_some_and(|time| !time.is_empty());
            let time = match time {
                Some("") => return None,
                Some(time) => sum(time, &ISO_TIME)?,
                None => 0.0,
            };
            if !has_any {
                return None;
            }
            sum(date, &ISO_DATE)? + time
        }
        None if text.is_empty() => return None,
        None => sum(text, &UNITS)?,
    };
    (seconds <= LONGEST.as_secs_f64()).then(|| Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// The sum of numbers with units; empty is zero.
fn sum(mut text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let mut seconds = 0.0;
    while !text.is_empty() {
        let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number: f64 = text[..digits].parse().ok().filter(|_| digits <= 18)?;
        let rest = &text[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, factor) = units.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        seconds += number * factor;
        text = &rest[letters..];
    }
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for (text, millis) in [
            ("200ms", 200),
            ("2s", 2_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1.5s", 1_500),
            ("1m30s", 90_000),
            ("0s", 0),
            ("PT5S", 5_000),
            ("PT0.2S", 200),
            ("P1DT2H", 93_600_000),
            ("P1W", 604_800_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "5", "s", "5 s", "-5s", "5x", "P", "PT", "P5", "PT5", "1e3s", "..s", "400d", "5S", "五s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
