//! Query strings as checked types.
//!
//! Used by handlers as arguments.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use motet_engine::time::Timestamp;
use serde::de::DeserializeOwned;

use super::problem::{Mistake, Problem};

/// The query of a request; what the type does not know is refused.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|error| Problem::new(400, "invalid_query", error.body_text()))
    }
}

/// A refusal of one query parameter.
pub(crate) fn refused(name: &str, detail: impl Into<String>) -> Problem {
    let detail = format!("{name}: {}", detail.into());
    let mistake = Mistake { pointer: None, detail: detail.clone(), ..Mistake::default() };
    Problem::new(400, "invalid_query", detail).with_errors(vec![mistake])
}

/// Reads a span such as `10s`, `500ms`, `2m` or `10`, which are seconds.
pub(crate) fn span(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

/// Reads a time in RFC 3339.
pub(crate) fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let read = text.parse::<jiff::Timestamp>();
    read.map(|time| Timestamp::from_millis(time.as_millisecond()))
        .map_err(|_| refused(name, format!("'{text}' is no time; write one such as 2026-01-31T12:00:00Z")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units_and_seconds_need_none() {
        for (text, expected) in [
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("7", Some(7_000)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1h", None),
            ("1.5s", None),
            ("99999999999999999999", None),
            ("18446744073709551615m", None),
        ] {
            assert_eq!(span(text), expected.map(Duration::from_millis), "{text}");
        }
    }
}
