//! Reads the topics of a stream: by name, or by a pattern for the whole name.
//!
//! Never asks a broker. Used by the reader of streams, and by whoever subscribes.

use std::fmt;

use crate::definition::diagnostic::Diagnostics;
use crate::definition::fields::{Fields, text};
use crate::definition::node::{Content, Node};
use crate::expression::wording::shorten;

/// What a topic's and a group's name must look like.
pub(in crate::definition) const TOPIC: &str = "^[A-Za-z0-9._-]{1,249}$";
/// Most topics of one stream by name.
const MOST: usize = 100;
/// Longest pattern in bytes.
const MAX_PATTERN: usize = 1_024;
/// Largest compiled form of a pattern in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// Where the records of a stream are.
#[derive(Debug, Clone)]
pub enum Topics {
    /// In these topics.
    Named(Vec<String>),
    /// In every topic whose name is like this.
    Pattern(TopicPattern),
}

impl Topics {
    /// Whether records of this topic belong to the stream.
    #[must_use]
    pub fn takes(&self, topic: &str) -> bool {
        match self {
            Self::Named(names) => names.iter().any(|name| name == topic),
            Self::Pattern(pattern) => pattern.regex.is_match(topic),
        }
    }
}

/// A pattern for whole names of topics.
#[derive(Clone)]
pub struct TopicPattern {
    source: String,
    regex: regex::Regex,
}

impl TopicPattern {
    /// The text that was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The pattern as brokers' clients take it: one that begins with `^`.
    #[must_use]
    pub fn subscription(&self) -> String {
        format!("^({})$", self.source)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TopicPattern").field(&self.source).finish()
    }
}

/// `topics` or `pattern`; none, and reported, when neither or both are written.
pub(super) fn read(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Option<Topics> {
    match (fields.entry("topics"), fields.entry("pattern")) {
        (Some(topics), Some(pattern)) => {
            out.advise(pattern.key_place, "misplaced-key", "'pattern' stands beside 'topics'", "give one of them");
            names(&topics.value, out).map(Topics::Named)
        }
        (Some(topics), None) => names(&topics.value, out).map(Topics::Named),
        (None, Some(pattern)) => compile(&pattern.value, out).map(Topics::Pattern),
        (None, None) => {
            let advice = "such as 'topics: [orders]' or \"pattern: 'orders-.*'\"";
            fields.required("topics", "a stream", advice, out);
            None
        }
    }
}

fn names(node: &Node, out: &mut Diagnostics<'_>) -> Option<Vec<String>> {
    let Content::List(items) = &node.content else { return name(node, "topic", out).map(|name| vec![name]) };
    if items.is_empty() || items.len() > MOST {
        let message = format!("'topics' must name 1 to {MOST} topics, not {}", items.len());
        out.advise(node.place, "out-of-range", message, "use 'pattern' for many");
        return None;
    }
    let mut names: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        let Some(name) = name(item, "topic", out) else { continue };
        if names.contains(&name) {
            out.report(item.place, "duplicate-name", format!("the topic '{name}' stands twice"));
        }
        names.push(name);
    }
    (names.len() == items.len()).then_some(names)
}

fn compile(node: &Node, out: &mut Diagnostics<'_>) -> Option<TopicPattern> {
    let source = text(node, "pattern", out)?;
    if source.is_empty() || source.len() > MAX_PATTERN {
        let message = format!("'pattern' must have 1 to {MAX_PATTERN} bytes, not {}", source.len());
        out.report(node.place, "out-of-range", message);
        return None;
    }
    let whole = format!("^(?:{source})$");
    match regex::RegexBuilder::new(&whole).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build() {
        Ok(regex) => Some(TopicPattern { source: source.to_owned(), regex }),
        Err(error) => {
            let words = error.to_string();
            let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it does not compile");
            let message = format!("the pattern is wrong: {}", shorten(last.trim_start_matches("error: "), 200));
            out.advise(node.place, "bad-pattern", message, "a regular expression for the whole name");
            None
        }
    }
}

/// The name of a topic or of a group.
pub(super) fn name(node: &Node, what: &str, out: &mut Diagnostics<'_>) -> Option<String> {
    let text = text(node, what, out)?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let fits = (1..=249).contains(&text.len()) && text.bytes().all(letter) && !matches!(text, "." | "..");
    if !fits {
        let message = format!("'{}' is no name for a {what}", shorten(text, 60));
        let advice = match text.contains(['*', '+', '^']) {
            true => "names by a regular expression go under 'pattern'",
            false => "use 1 to 249 characters of A-Z, a-z, 0-9, '.', '-' and '_'",
        };
        out.advise(node.place, "bad-name", message, advice);
    }
    fits.then(|| text.to_owned())
}

/// The name of a topic that the stream writes to, which may not be one that it reads.
pub(super) fn target(node: &Node, topics: Option<&Topics>, out: &mut Diagnostics<'_>) -> Option<String> {
    let name = name(node, "topic", out)?;
    if topics.is_some_and(|topics| topics.takes(&name)) {
        let message = format!("the stream reads the topic '{name}' itself, so what it writes there would come back");
        out.advise(node.place, "loop", message, "choose another topic");
    }
    Some(name)
}
