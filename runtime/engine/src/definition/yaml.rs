//! Reads YAML (and so JSON) into trees with places, within bounds.
//!
//! One file may hold several documents; a broken one does not hide the mistakes of the others. Aliases and tags are
//! refused, which also ends every bomb made of them. Never builds more than the bounds allow. Used by the reader of
//! definition files.

use std::collections::BTreeSet;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::diagnostic::Diagnostics;
use super::node::{Content, Entry, Node, Place, Style};

/// Largest file in bytes.
pub(super) const MAX_FILE: usize = 1024 * 1024;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;
/// Most keys and values of a file.
const MAX_NODES: usize = 200_000;
/// Most documents of a file.
const MAX_DOCUMENTS: usize = 1_000;

/// Reads every document; those that are broken are reported and left out, empty ones are left out.
pub(super) fn read(text: &str, out: &mut Diagnostics<'_>) -> Vec<Node> {
    if text.len() > MAX_FILE {
        let message = format!("the file has {} bytes; at most {MAX_FILE} are allowed", text.len());
        out.report(Place { line: 1, column: 1 }, "too-large", message);
        return vec![];
    }
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        emit_unresolved_aliases: true,
        disallow_directives: false,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    let mut builder = Builder::default();
    while !builder.exhausted && !out.is_full() {
        match parser.next() {
            None => break,
            Some(Ok((event, span))) => {
                if let Some(document) = builder.event(event, span, out)
                    && document.content != Content::Null
                {
                    documents.push(document);
                    if documents.len() > MAX_DOCUMENTS {
                        let message = format!("the file has more than {MAX_DOCUMENTS} documents");
                        out.report(place(span), "too-large", message);
                        break;
                    }
                }
            }
            Some(Err(error)) => {
                let at = Place { line: error.marker().line(), column: error.marker().col() + 1 };
                let (message, advice) = explain(&error.info());
                out.advise(at, "syntax", message, advice);
                builder = Builder { nodes: builder.nodes, ..Builder::default() };
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    break;
                }
            }
        }
    }
    documents
}

/// The scanner's words, with advice for what people meet most.
fn explain(info: &str) -> (String, &'static str) {
    let lower = info.to_lowercase();
    let advice = if lower.contains("tab") {
        "indent with spaces"
    } else if lower.contains("mapping values are not allowed") || lower.contains("simple key") {
        "quote a text that contains ': '"
    } else if lower.contains("cannot start any token") {
        "quote a text that starts with this character"
    } else {
        ""
    };
    (format!("this is no YAML: {}", crate::expression::wording::shorten(info, 200)), advice)
}

fn place(span: Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

enum Frame {
    List { place: Place, items: Vec<Node> },
    Map { place: Place, entries: Vec<Entry>, key: Option<(String, Place)>, seen: BTreeSet<String> },
}

#[derive(Default)]
struct Builder {
    frames: Vec<Frame>,
    nodes: usize,
    exhausted: bool,
}

impl Builder {
    /// Takes one event in; gives the document that it completes.
    fn event(&mut self, event: Event<'_>, span: Span, out: &mut Diagnostics<'_>) -> Option<Node> {
        match event {
            Event::Scalar(text, style, _, tag) => {
                let node = self.scalar(&text, style, tag.as_deref(), span, out);
                self.add(node, out)
            }
            Event::SequenceStart(_, _, tag) => {
                self.refuse_tag(tag.as_deref(), "seq", span, out);
                self.open(Frame::List { place: place(span), items: vec![] }, span, out);
                None
            }
            Event::MappingStart(_, _, tag) => {
                self.refuse_tag(tag.as_deref(), "map", span, out);
                self.open(
                    Frame::Map { place: place(span), entries: vec![], key: None, seen: BTreeSet::new() },
                    span,
                    out,
                );
                None
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.frames.pop()? {
                    Frame::List { place, items } => node(Content::List(items), place),
                    Frame::Map { place, entries, .. } => node(Content::Map(entries), place),
                };
                self.add(node, out)
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                out.advise(place(span), "alias", "aliases are not supported", "write the value again in full");
                self.add(node(Content::Null, place(span)), out)
            }
            _ => None,
        }
    }

    fn open(&mut self, frame: Frame, span: Span, out: &mut Diagnostics<'_>) {
        if self.frames.len() >= MAX_DEPTH {
            out.report(place(span), "too-large", format!("the document is more than {MAX_DEPTH} levels deep"));
            self.exhausted = true;
        }
        if let Some(Frame::Map { key: None, .. }) = self.frames.last() {
            out.report(place(span), "syntax", "a key must be a text, not a list or a map");
            self.exhausted = true;
        }
        self.frames.push(frame);
    }

    /// Puts a finished node where it belongs; gives it back when it is a whole document.
    fn add(&mut self, node: Node, out: &mut Diagnostics<'_>) -> Option<Node> {
        self.nodes += 1;
        if self.nodes > MAX_NODES && !self.exhausted {
            out.report(node.place, "too-large", format!("the file has more than {MAX_NODES} values"));
            self.exhausted = true;
        }
        match self.frames.last_mut() {
            None => return Some(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, key, seen, .. }) => match key.take() {
                Some((name, key_place)) => entries.push(Entry { key: name, key_place, value: node }),
                None => {
                    let name = key_text(&node);
                    if !seen.insert(name.clone()) {
                        let shown = crate::expression::wording::shorten(&name, 60);
                        let message = format!("the key '{shown}' stands twice in one map");
                        out.advise(node.place, "duplicate-key", message, "remove or rename one of them");
                    }
                    *key = Some((name, node.place));
                }
            },
        }
        None
    }

    fn refuse_tag(&self, tag: Option<&Tag>, kind: &str, span: Span, out: &mut Diagnostics<'_>) {
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(kind)) {
            let shown = crate::expression::wording::shorten(&tag.original(), 40);
            out.advise(place(span), "tag", format!("the tag '{shown}' is not supported"), "write the value without it");
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span, out: &mut Diagnostics<'_>) -> Node {
        let is_text = tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
        if !is_text {
            self.refuse_tag(tag, "", span, out);
        }
        let (style, content) = match style {
            ScalarStyle::Plain if !is_text => (Style::Plain, resolve(text)),
            ScalarStyle::Plain => (Style::Plain, Content::Text(text.to_owned())),
            ScalarStyle::SingleQuoted => (Style::SingleQuoted, Content::Text(text.to_owned())),
            ScalarStyle::DoubleQuoted => (Style::DoubleQuoted, Content::Text(text.to_owned())),
            ScalarStyle::Literal => (Style::Literal, Content::Text(text.to_owned())),
            ScalarStyle::Folded => (Style::Folded, Content::Text(text.to_owned())),
        };
        if matches!(content, Content::Float(number) if !number.is_finite()) {
            out.report(place(span), "wrong-type", format!("'{text}' is no finite number"));
        }
        let bytes = span.byte_range().map_or((0, 0), |range| (range.start, range.end));
        Node { content, place: place(span), span: bytes, style }
    }
}

fn node(content: Content, place: Place) -> Node {
    Node { content, place, span: (0, 0), style: Style::Plain }
}

fn key_text(node: &Node) -> String {
    match &node.content {
        Content::Text(text) => text.clone(),
        Content::Null => "null".into(),
        Content::Bool(truth) => truth.to_string(),
        Content::Int(number) => number.to_string(),
        Content::Float(number) => number.to_string(),
        Content::List(_) | Content::Map(_) => String::new(),
    }
}

/// A plain scalar by the core schema of YAML 1.2: `yes` and `on` are texts.
fn resolve(text: &str) -> Content {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Content::Null,
        "true" | "True" | "TRUE" => return Content::Bool(true),
        "false" | "False" | "FALSE" => return Content::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Content::Float(f64::NAN),
        _ => {}
    }
    let unsigned = text.trim_start_matches(['-', '+']);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Content::Float(f64::INFINITY);
    }
    if let Some(number) = radix(text) {
        return Content::Int(number);
    }
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && text.len() - unsigned.len() <= 1;
    match text.parse::<i64>() {
        Ok(number) if numeric => Content::Int(number),
        _ => match text.parse::<f64>() {
            Ok(number) if numeric => Content::Float(number),
            _ => Content::Text(text.to_owned()),
        },
    }
}

fn radix(text: &str) -> Option<i64> {
    let (digits, radix) = match text.split_at_checked(2)? {
        ("0x", digits) => (digits, 16),
        ("0o", digits) => (digits, 8),
        _ => return None,
    };
    digits.starts_with(|c: char| c.is_ascii_alphanumeric()).then(|| i64::from_str_radix(digits, radix).ok())?
}
