//! Patterns of topic names that mean the same to the memory broker, to librdkafka and to the brokers themselves.
//!
//! Each of the three has its own regular expressions; what is allowed here is what they share. Used by every source.

use regex::Regex;

use crate::BrokerError;

/// Longest pattern, in bytes.
const LONGEST: usize = 500;

/// What topics must match as a whole: the text for Kafka, beginning with `^`, and the same compiled.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    /// For librdkafka and the brokers.
    pub(crate) text: String,
    regex: Regex,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it has signs that others would read otherwise, or is no pattern.
    pub(crate) fn new(pattern: &str) -> Result<Self, BrokerError> {
        let refuse =
            |why: &str| Err(BrokerError::Setting(format!("the pattern of topics '{}' {why}", pattern.escape_debug())));
        let inner = pattern.strip_prefix('^').unwrap_or(pattern);
        let inner = inner.strip_suffix('$').unwrap_or(inner);
        if inner.is_empty() {
            return refuse("is empty; '.*' matches every topic");
        }
        if pattern.len() > LONGEST {
            return refuse(&format!("is longer than {LONGEST} bytes"));
        }
        if let Some(problem) = problem(inner) {
            return refuse(&problem);
        }
        let text = format!("^({inner})$");
        match Regex::new(&text) {
            Ok(regex) => Ok(Self { text, regex }),
            Err(error) => {
                let reason = error.to_string();
                refuse(&format!("is none: {}", reason.lines().last().unwrap_or_default().trim()))
            }
        }
    }

    /// Whether it means this topic.
    pub(crate) fn matches(&self, topic: &str) -> bool {
        !topic.starts_with("__") && self.regex.is_match(topic)
    }
}

/// What others would read otherwise.
fn problem(pattern: &str) -> Option<String> {
    let (mut signs, mut before) = (pattern.chars().peekable(), None);
    while let Some(sign) = signs.next() {
        let next = signs.peek().copied();
        match (sign, next) {
            ('\\', Some(escaped)) if escaped.is_ascii_punctuation() => {
                signs.next();
                before = None;
                continue;
            }
            ('\\', _) => return Some("has a backslash before what is no sign; write [0-9] for \\d".to_owned()),
            ('(', Some('?')) => return Some("has a group that begins with '?'; plain groups are '('".to_owned()),
            ('?' | '+' | '*', _) if matches!(before, Some('?' | '+' | '*' | '}')) => {
                return Some(format!("has '{sign}' after another sign of repetition"));
            }
            ('^' | '$', _) if before != Some('[') => {
                return Some(format!("has '{sign}' inside; it always matches the whole name"));
            }
            (sign, _) if !sign.is_ascii_graphic() => return Some("has letters that no topic can have".to_owned()),
            ('&', Some('&')) | ('~', Some('~')) | ('-', Some('-')) => {
                return Some(format!("has '{sign}{sign}', which is read in several ways"));
            }
            _ => {}
        }
        before = Some(sign);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_whole_names() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("orders", &["orders"], &["orders-dlt", "my-orders"]),
            ("^orders$", &["orders"], &["orders2"]),
            ("orders|bills", &["orders", "bills"], &["ordersx", "xbills"]),
            (r"eu\.[a-z]+", &["eu.x"], &["eux", "eu.X", "eu."]),
            (".*", &["a", "a.b_c-d"], &["__consumer_offsets"]),
            ("a{2}(b|c)?", &["aa", "aab"], &["a", "aabc"]),
            ("[^.]+", &["plain"], &["dotted.name"]),
        ];
        for (pattern, wanted, unwanted) in cases {
            let pattern = Pattern::new(pattern).unwrap();
            assert!(wanted.iter().all(|topic| pattern.matches(topic)), "{pattern:?} {wanted:?}");
            assert!(!unwanted.iter().any(|topic| pattern.matches(topic)), "{pattern:?} {unwanted:?}");
        }
    }

    #[test]
    fn what_others_read_otherwise_is_refused() {
        for (pattern, part) in [
            ("", "is empty"),
            ("^$", "is empty"),
            (r"a\d", "write [0-9]"),
            ("(?i)a", "begins with '?'"),
            ("a*?", "after another sign"),
            ("a^b", "the whole name"),
            ("a(b", "is none"),
            ("[z-a]", "is none"),
            ("ä", "letters that no topic"),
            ("[a&&b]", "several ways"),
        ] {
            let refused = Pattern::new(pattern).unwrap_err().to_string();
            assert!(refused.contains(part), "{pattern}: {refused}");
        }
        assert!(Pattern::new(&"a".repeat(LONGEST + 1)).is_err());
    }
}
