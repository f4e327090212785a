//! A document as a tree whose every key and value knows its place in the file.
//!
//! Keeps the order of keys and both occurrences of a repeated key, which JSON values cannot. Never judges content.
//! Built by the YAML reader or from a stored document; read by everything in this folder.

use serde_json::Value as Json;

use crate::expression::escape;

/// A place in a file, both numbers from 1; zero where there is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) line: usize,
    /// In characters.
    pub(super) column: usize,
}

/// How a scalar is written, which decides how its text maps to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Style {
    #[default]
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
    Folded,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) value: Node,
}

/// One value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) place: Place,
    /// Bytes of the file that a scalar is written in; empty where there is no file.
    pub(super) span: (usize, usize),
    pub(super) style: Style,
}

impl Node {
    /// A stored document as a tree without places.
    pub(super) fn from_json(json: &Json) -> Self {
        let content = match json {
            Json::Null => Content::Null,
            Json::Bool(truth) => Content::Bool(*truth),
            Json::Number(number) => {
                number.as_i64().map_or_else(|| Content::Float(number.as_f64().unwrap_or_default()), Content::Int)
            }
            Json::String(text) => Content::Text(text.clone()),
            Json::Array(items) => Content::List(items.iter().map(Self::from_json).collect()),
            Json::Object(map) => Content::Map(
                map.iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        key_place: Place::default(),
                        value: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self { content, place: Place::default(), span: (0, 0), style: Style::Plain }
    }

    /// The tree as JSON; of a repeated key the first counts.
    pub(super) fn to_json(&self) -> Json {
        match &self.content {
            Content::Null => Json::Null,
            Content::Bool(truth) => Json::Bool(*truth),
            Content::Int(number) => Json::from(*number),
            Content::Float(number) => Json::from(*number),
            Content::Text(text) => Json::String(text.clone()),
            Content::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Content::Map(entries) => {
                let mut map = serde_json::Map::new();
                for entry in entries {
                    map.entry(entry.key.as_str()).or_insert_with(|| entry.value.to_json());
                }
                Json::Object(map)
            }
        }
    }

    /// The name of the node's kind, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "a boolean",
            Content::Int(_) => "an integer",
            Content::Float(_) => "a number",
            Content::Text(_) => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }

    /// The text of a text.
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entries of a map.
    pub(super) fn as_map(&self) -> Option<&[Entry]> {
        match &self.content {
            Content::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of a map under a key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.as_map()?.iter().find(|entry| entry.key == key)
    }

    /// The node that a JSON Pointer names, else the nearest one above it.
    pub(super) fn find(&self, pointer: &str) -> &Self {
        let mut node = self;
        for part in pointer.split('/').skip(1) {
            let below = match &node.content {
                Content::Map(entries) => {
                    entries.iter().find(|entry| escape(&entry.key) == part).map(|entry| &entry.value)
                }
                Content::List(items) => part.parse::<usize>().ok().and_then(|at| items.get(at)),
                _ => None,
            };
            match below {
                Some(below) => node = below,
                None => break,
            }
        }
        node
    }

    /// The place of a byte of the node's text in the file; the node's own place where that cannot be told.
    pub(super) fn inside(&self, source: &str, offset: usize) -> Place {
        let (Some(text), Some(raw)) = (self.as_text(), source.get(self.span.0..self.span.1)) else { return self.place };
        let offset = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= offset).last().unwrap_or(0);
        let raw_offset = match self.style {
            Style::Plain => (raw.get(..text.len()) == Some(text)).then_some(offset),
            Style::SingleQuoted => quoted_offset(raw, text, offset, '\''),
            Style::DoubleQuoted => quoted_offset(raw, text, offset, '"'),
            Style::Literal | Style::Folded => return self.inside_block(source, text, offset),
        };
        match raw_offset {
            Some(raw_offset) => place_of(source, self.span.0 + raw_offset),
            None => self.place,
        }
    }

    /// Every line of a block has lost the indentation of the first one that is not blank.
    fn inside_block(&self, source: &str, text: &str, offset: usize) -> Place {
        let before = &text[..offset];
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        // The span begins either at the header or at the first line of content, which may be blank.
        let blank = text.len() - text.trim_start_matches('\n').len();
        let (at, rest) = (self.span.0, &source[self.span.0..]);
        let line_start = source[..at].rfind('\n').map_or(0, |at| at + 1);
        let starts_blank = source[line_start..].lines().next().is_none_or(|line| line.trim().is_empty());
        let first = if rest.starts_with(['|', '>']) {
            place_of(source, at).line + 1
        } else {
            place_of(source, at).line.saturating_sub(if starts_blank { 0 } else { blank })
        };
        let content = source.lines().skip(first.saturating_sub(1));
        let shown = content.clone().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let leading = |line: &str| line.len() - line.trim_start_matches(' ').len();
        // A header such as `|2` leaves a part of the indentation in the text.
        let kept = text.lines().find(|line| !line.trim().is_empty()).map_or(0, leading);
        let indent = leading(shown).saturating_sub(kept);
        // A folded text has lost line breaks, so only its first line can be told exactly.
        let exact = self.style == Style::Literal || line == 0;
        Place { line: first + line, column: if exact { indent + column + 1 } else { indent + 1 } }
    }
}

/// The line and column of a byte of the file.
fn place_of(source: &str, at: usize) -> Place {
    let before = source.get(..at).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// The byte of a quoted scalar's raw form that a byte of its text stands for; none for a text over several lines.
fn quoted_offset(raw: &str, text: &str, offset: usize, quote: char) -> Option<usize> {
    let mut raw_chars = raw.char_indices().skip_while(|(_, c)| *c != quote).skip(1).peekable();
    for (at, expected) in text.char_indices() {
        let (raw_at, c) = raw_chars.next()?;
        if at == offset {
            return Some(raw_at);
        }
        if c == '\n' {
            return None;
        }
        if quote == '\'' && c == '\'' {
            raw_chars.next()?;
        } else if quote == '"' && c == '\\' {
            let digits = match raw_chars.next()?.1 {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            (0..digits).try_for_each(|_| raw_chars.next().map(drop))?;
        } else if c != expected {
            return None;
        }
    }
    raw_chars.next().map(|(raw_at, _)| raw_at)
}

#[cfg(test)]
mod tests {
    use super::super::diagnostic::Diagnostics;
    use super::super::yaml;
    use super::*;

    #[test]
    fn a_byte_of_a_text_is_found_in_the_file() {
        for (source, line, column) in [
            ("x: plain @here", 1, 10),
            ("x: 'it''s @here'", 1, 11),
            ("x: \"a\\n\\u00e9\\\"@here\"", 1, 16),
            ("x: \"ö @here\"", 1, 7),
            ("x: |\n  one\n  two @here\n", 3, 7),
            ("x: |\n\n\n    one\n      @here\n", 5, 7),
            ("x: |2-\n    one @here", 2, 9),
            ("- a\n- x: |\r\n    one\r\n    @here\r\n", 4, 5),
            ("x: >\n  folded @here\n", 2, 10),
            ("{\"x\": \"one @here\"}", 1, 12),
        ] {
            let mut out = Diagnostics::new("f", source);
            let documents = yaml::read(source, &mut out);
            let root = &documents[0];
            let node = match &root.content {
                Content::List(items) => items[1].find("/x"),
                _ => root.find("/x"),
            };
            let offset = node.as_text().unwrap().find('@').unwrap();
            assert_eq!(node.inside(source, offset), Place { line, column }, "{source:?} {node:?}");
        }
    }
}
