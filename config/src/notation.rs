//! Times and sizes as people write them.
//!
//! Never guesses a unit of time. Used by the table of keys.

use std::time::Duration;

const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// Reads `30s`, `1m30s` or `0`; none for anything else.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut millis, mut last_unit) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, unit) = TIMES.iter().find(|(name, _)| *name == &after[..letters])?;
        // 30s1m is more likely a slip than a wish.
        if *unit >= last_unit {
            return None;
        }
        last_unit = *unit;
        millis = millis.checked_add(number.checked_mul(*unit)?)?;
        rest = &after[letters..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// Writes a time so that [`duration`] reads it again; parts below a millisecond are left out.
pub(crate) fn show_duration(time: Duration) -> String {
    let mut millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit) in TIMES {
        if millis >= unit {
            text.push_str(&format!("{}{name}", millis / unit));
            millis %= unit;
        }
    }
    text
}

/// Reads `8MiB`, `8 MiB`, `10MB` or plain bytes; none for anything else.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = leading_number(text)?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// Writes a size in the largest unit that it is a whole number of.
pub(crate) fn show_size(bytes: u64) -> String {
    let whole = SIZES[..4].iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    whole.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

/// The whole number at the start of a text, and what follows it.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_by_table() {
        for (text, millis, shown) in [
            ("500ms", 500, "500ms"),
            ("30s", 30_000, "30s"),
            ("90s", 90_000, "1m30s"),
            ("1m30s", 90_000, "1m30s"),
            ("7d", 604_800_000, "7d"),
            ("1d2h3m4s5ms", 93_784_005, "1d2h3m4s5ms"),
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
        ] {
            let time = duration(text).unwrap();
            assert_eq!(time, Duration::from_millis(millis), "{text}");
            assert_eq!(show_duration(time), shown);
            assert_eq!(duration(shown), Some(time));
        }
        for bad in ["", "30", "s", "30 s", "1.5s", "-1s", "30s1m", "1s1s", "1w", "30S", "99999999999999999d", "1é"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_by_table() {
        for (text, bytes, shown) in [
            ("8MiB", 8 << 20, "8MiB"),
            ("8 mib", 8 << 20, "8MiB"),
            ("4GiB", 4 << 30, "4GiB"),
            ("1TiB", 1 << 40, "1TiB"),
            ("10MB", 10_000_000, "10000000"),
            ("2048", 2048, "2KiB"),
            ("1B", 1, "1"),
            ("0", 0, "0"),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
            assert_eq!(show_size(bytes), shown);
            assert_eq!(size(shown), Some(bytes));
        }
        for bad in ["", "MiB", "8 Mi", "1.5GiB", "-1", "99999999999TiB", "8MiBx"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
