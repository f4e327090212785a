//! Reading structure out of text: JSON inside prose, lines, patterns, numbers.
//!
//! Works in time proportional to the text and says where it failed. Never guesses beyond its rules: JSON that is
//! broken stays an error. Used by `parse` steps.

use std::fmt;

use crate::definition::ParseFormat;
use crate::expression::wording::shorten;
use crate::failure::{Failure, FailureClass};
use crate::value::{Map, Value};

/// Longest text that is read, in bytes.
pub const MAX_TEXT: usize = 8 * 1024 * 1024;
/// Longest pattern in bytes.
pub const MAX_PATTERN: usize = 4 * 1024;
/// Largest compiled form of a pattern in bytes.
const MAX_COMPILED: usize = 1024 * 1024;
/// Places in prose at which JSON is tried.
const MAX_TRIES: usize = 64;

/// A compiled pattern with named groups.
#[derive(Clone)]
pub struct Pattern(regex::Regex);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

impl Pattern {
    /// Compiles a regular expression (linear time: no look-around, no back-references).
    ///
    /// # Errors
    /// When it is too long or too large, is no regular expression, or names no group.
    pub fn parse(source: &str) -> Result<Self, PatternError> {
        if source.len() > MAX_PATTERN {
            return Err(PatternError(format!("the pattern has more than {MAX_PATTERN} bytes")));
        }
        let built = regex::RegexBuilder::new(source).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
        let regex = built.map_err(|error| {
            let text = error.to_string();
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it does not compile");
            PatternError(format!("the pattern is wrong: {}", last.trim_start_matches("error: ")))
        })?;
        if regex.capture_names().flatten().next().is_none() {
            return Err(PatternError("the pattern names no group; write one as (?<name>..)".into()));
        }
        Ok(Self(regex))
    }

    /// The text that was compiled.
    #[must_use]
    pub fn source(&self) -> &str {
        self.0.as_str()
    }

    /// Names of the groups, which are the keys of the result.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        self.0.capture_names().flatten().collect()
    }

    fn read(&self, text: &str) -> Result<Value, Failure> {
        let captures = self.0.captures(text).ok_or_else(|| {
            let pattern = shorten(self.source(), 80);
            unreadable(format!("the pattern '{pattern}' matches nowhere in {}", quoted(text)))
        })?;
        let groups = self.groups();
        let value = |name: &str| captures.name(name).map_or(Value::Null, |found| found.as_str().into());
        Ok(groups.into_iter().map(|name| (name.into(), value(name))).collect::<Map>().into())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.source()).finish()
    }
}

impl ParseFormat {
    /// Reads the structure out of a text.
    ///
    /// # Errors
    /// `Invalid` when the text does not hold what the format asks for, with the place where reading failed.
    pub fn read(&self, text: &str) -> Result<Value, Failure> {
        if text.len() > MAX_TEXT {
            return Err(unreadable(format!("the text has {} bytes; at most {MAX_TEXT} are read", text.len())));
        }
        match self {
            Self::Json => json(text),
            Self::JsonLines => json_lines(text),
            Self::Lines => Ok(lines(text).map(|(_, line)| Value::from(line)).collect::<Vec<_>>().into()),
            Self::Regex(pattern) => pattern.read(text),
            Self::Number => number(text).ok_or_else(|| unreadable(format!("there is no number in {}", quoted(text)))),
        }
    }
}

fn unreadable(message: String) -> Failure {
    Failure::new(FailureClass::Invalid, message)
}

fn quoted(text: &str) -> String {
    if text.trim().is_empty() { "an empty text".into() } else { format!("'{}'", shorten(text.trim(), 80)) }
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.is_empty())
}

/// The whole text, else the first code fence that is JSON, else the first list or map between other text.
fn json(text: &str) -> Result<Value, Failure> {
    let whole = match serde_json::from_str(text.trim()) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    for fenced in fences(text).take(MAX_TRIES) {
        if let Ok(value) = serde_json::from_str(fenced.trim()) {
            return Ok(value);
        }
    }
    let mut first: Option<(usize, serde_json::Error)> = None;
    let starts = text.char_indices().filter(|(_, c)| matches!(c, '{' | '[')).map(|(at, _)| at);
    for start in starts.take(MAX_TRIES) {
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => return Ok(value),
            Some(Err(error)) => first = first.or(Some((start, error))),
            None => {}
        }
    }
    let (start, error) = first.unwrap_or((text.len() - text.trim_start().len(), whole));
    let line = text[..start].matches('\n').count() + error.line().max(1);
    let column = if error.line() <= 1 {
        text[..start].chars().rev().take_while(|c| *c != '\n').count() + error.column()
    } else {
        error.column()
    };
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default();
    Err(unreadable(format!("no JSON value could be read: line {line}, column {column}: {reason}; in {}", quoted(text))))
}

/// The contents of Markdown code fences.
fn fences(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").skip(1).step_by(2).map(|fenced| {
        // The rest of the opening line names the language.
        let word = fenced.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let (language, rest) = fenced.split_at(word);
        if matches!(language, "true" | "false" | "null") || language.bytes().all(|b| b.is_ascii_digit()) {
            fenced
        } else {
            rest
        }
    })
}

fn json_lines(text: &str) -> Result<Value, Failure> {
    let values: Result<Vec<Value>, Failure> = lines(text)
        .filter(|(_, line)| !line.starts_with("```"))
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| {
                let reason = error.to_string();
                let reason = reason.split(" at line ").next().unwrap_or_default();
                unreadable(format!("line {at}, column {}: {reason}; in {}", error.column(), quoted(line)))
            })
        })
        .collect();
    values.map(Value::from)
}

/// The first number: digits with a fraction or exponent; a sign counts unless it follows a word, as in `gpt-4`.
fn number(text: &str) -> Option<Value> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut start = (0..bytes.len()).find(|&at| digit(at))?;
    let mut end = start;
    while digit(end) {
        end += 1;
    }
    if start > 0 && bytes[start - 1] == b'.' && !(start > 1 && digit(start - 2)) {
        start -= 1;
    } else if bytes.get(end) == Some(&b'.') && digit(end + 1) {
        end += 1;
        while digit(end) {
            end += 1;
        }
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if digit(end + 1 + sign) {
            end += 2 + sign;
            while digit(end) {
                end += 1;
            }
        }
    }
    let negative = start > 0
        && bytes[start - 1] == b'-'
        && !text[..start - 1].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    let digits = text.get(if negative { start - 1 } else { start }..end)?;
    match digits.parse::<i64>() {
        Ok(whole) => Some(Value::Int(whole)),
        Err(_) => digits.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_found_where_models_put_it() {
        for (text, expected) in [
            (r#"{"a": 1}"#, json!({"a": 1})),
            ("```json\n{\"a\": 1}\n```", json!({"a": 1})),
            ("Sure!\n```\n[1, 2]\n```\nDone.", json!([1, 2])),
            ("The answer is {\"a\": {\"b\": []}} as you see", json!({"a": {"b": []}})),
            ("set {x} and then {\"y\": 2}", json!({"y": 2})),
            (" 42 ", json!(42)),
            ("```\ntrue\n```", json!(true)),
        ] {
            assert_eq!(ParseFormat::Json.read(text).unwrap().to_json(), expected, "{text}");
        }
    }

    #[test]
    fn failures_say_where() {
        let error = ParseFormat::Json.read("Here:\n  {\"a\": 1,}").unwrap_err();
        assert!(error.message.contains("line 2, column 11"), "{error}");
        let error = ParseFormat::JsonLines.read("{}\n\n{\"a\":}").unwrap_err();
        assert!(error.message.contains("line 3, column 6"), "{error}");
        for text in ["", "no json here", "{".repeat(100_000).as_str()] {
            assert!(ParseFormat::Json.read(text).is_err());
        }
    }

    #[test]
    fn lines_patterns_and_numbers() {
        assert_eq!(ParseFormat::Lines.read(" a \n\n b\r\n").unwrap().to_json(), json!(["a", "b"]));
        assert_eq!(ParseFormat::JsonLines.read("1\n\n[2]\n").unwrap().to_json(), json!([1, [2]]));
        let pattern = Pattern::parse(r"(?<label>\w+): (?P<score>\d+)(?<rest>!)?").unwrap();
        let format = ParseFormat::Regex(Box::new(pattern));
        assert_eq!(format.read("x spam: 7").unwrap().to_json(), json!({"label": "spam", "score": "7", "rest": null}));
        assert!(format.read("nothing").unwrap_err().message.contains("matches nowhere"));
        for (text, expected) in [
            ("about 3.5%", json!(3.5)),
            ("-12 below", json!(-12)),
            ("gpt-4 says", json!(4)),
            ("x = .5", json!(0.5)),
            ("1e3 things", json!(1000.0)),
            ("99999999999999999999", json!(1e20)),
            ("v1.2.3", json!(1.2)),
            ("5. Item", json!(5)),
        ] {
            assert_eq!(ParseFormat::Number.read(text).unwrap().to_json(), expected, "{text}");
        }
        assert!(ParseFormat::Number.read("none").is_err());
    }

    #[test]
    fn patterns_are_checked() {
        for (source, words) in
            [("(?<a>", "wrong"), ("abc", "names no group"), ("(?<a>(x{500}){500})", "wrong"), ("(?<a>x)(?=y)", "wrong")]
        {
            let error = Pattern::parse(source).unwrap_err().to_string();
            assert!(error.contains(words), "{source}: {error}");
        }
    }
}
