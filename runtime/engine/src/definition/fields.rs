//! Reads the keys of a map with their types, reporting every mistake on the way.
//!
//! A key that is not known is told with the nearest known one. Never stops: what cannot be read is none, and the
//! caller goes on. Used by the readers of every kind.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::node::{Content, Entry, Node, Place};
use crate::expression::wording::{nearest, shorten};
use crate::id::Name;
use crate::time::span;

/// The keys of one map.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n> {
    entries: &'n [Entry],
    /// Where the map's owner stands, for what is missing.
    place: Place,
}

impl<'n> Fields<'n> {
    /// The keys of a map whose known keys are given; none, and reported, for what is no map. `hint` may explain an
    /// unknown key better than the nearest known one does.
    pub(super) fn open(
        node: &'n Node,
        owner: &str,
        place: Place,
        known: &[&str],
        hint: impl Fn(&str) -> Option<String>,
        out: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let Some(entries) = node.as_map() else {
            let keys = known.iter().take(6).copied().collect::<Vec<_>>().join(", ");
            out.advise(
                node.place,
                "wrong-type",
                format!("{owner} must be a map, not {}", node.kind()),
                format!("its keys are {keys}"),
            );
            return None;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            if out.is_full() {
                break;
            }
            let shown = shorten(&entry.key, 60);
            let advice = hint(&entry.key).unwrap_or_else(|| match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("known keys are {}", known.join(", ")),
            });
            out.advise(entry.key_place, "unknown-key", format!("{owner} has no key '{shown}'"), advice);
        }
        Some(Self { entries, place })
    }

    /// The entry under a key. A key that is there without a value counts as absent.
    pub(super) fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key).filter(|entry| entry.value.content != Content::Null)
    }

    /// The value under a key.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value under a key that must be there.
    pub(super) fn required(&self, key: &str, owner: &str, advice: &str, out: &mut Diagnostics<'_>) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() {
            let place = self.entries.iter().find(|entry| entry.key == key).map_or(self.place, |entry| entry.key_place);
            out.advise(place, "missing-key", format!("{owner} needs '{key}'"), advice);
        }
        found
    }

    /// A text.
    pub(super) fn text(&self, key: &str, out: &mut Diagnostics<'_>) -> Option<&'n str> {
        text(self.get(key)?, key, out)
    }

    /// A whole number within a range.
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<i64>, out: &mut Diagnostics<'_>) -> Option<i64> {
        let node = self.get(key)?;
        let number = match node.content {
            Content::Int(number) => number,
            _ => {
                out.report(node.place, "wrong-type", format!("'{key}' must be a whole number, not {}", node.kind()));
                return None;
            }
        };
        if !range.contains(&number) {
            let (least, most) = range.into_inner();
            out.report(node.place, "out-of-range", format!("'{key}' must be {least} to {most}, not {number}"));
            return None;
        }
        Some(number)
    }

    /// True or false.
    pub(super) fn boolean(&self, key: &str, out: &mut Diagnostics<'_>) -> Option<bool> {
        let node = self.get(key)?;
        match node.content {
            Content::Bool(truth) => Some(truth),
            _ => {
                out.report(node.place, "wrong-type", format!("'{key}' must be true or false, not {}", node.kind()));
                None
            }
        }
    }

    /// One of some words, each with what it stands for.
    pub(super) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)], out: &mut Diagnostics<'_>) -> Option<T> {
        choice(self.get(key)?, key, words, out)
    }

    /// A duration within a range.
    pub(super) fn duration(
        &self,
        key: &str,
        range: RangeInclusive<Duration>,
        out: &mut Diagnostics<'_>,
    ) -> Option<Duration> {
        let node = self.get(key)?;
        let advice = match &node.content {
            Content::Int(number) => format!("add a unit: {number}s, {number}ms or {number}m"),
            _ => "write it as 200ms, 2s, 5m, 1h, 1d or PT5S".into(),
        };
        let Some(span) = node.as_text().and_then(span::parse) else {
            let shown =
                node.as_text().map_or_else(|| node.kind().to_owned(), |text| format!("'{}'", shorten(text, 40)));
            out.advise(node.place, "bad-duration", format!("'{key}' must be a duration, not {shown}"), advice);
            return None;
        };
        if !range.contains(&span) {
            let (least, most) = range.into_inner();
            out.report(node.place, "out-of-range", format!("'{key}' must be {least:?} to {most:?}, not {span:?}"));
            return None;
        }
        Some(span)
    }

    /// The name of a resource.
    pub(super) fn name(&self, key: &str, out: &mut Diagnostics<'_>) -> Option<Name> {
        name(self.get(key)?, key, out)
    }

    /// A list of texts with their nodes.
    pub(super) fn texts(&self, key: &str, out: &mut Diagnostics<'_>) -> Vec<(&'n str, &'n Node)> {
        let Some(node) = self.get(key) else { return vec![] };
        let Content::List(items) = &node.content else {
            let advice = node.as_text().map_or_else(String::new, |text| format!("write [{}]", shorten(text, 40)));
            out.advise(node.place, "wrong-type", format!("'{key}' must be a list, not {}", node.kind()), advice);
            return vec![];
        };
        let owner = format!("each of '{key}'");
        items.iter().filter_map(|item| Some((text(item, &owner, out)?, item))).collect()
    }

    /// A version: a text or a whole number.
    pub(super) fn version(&self, out: &mut Diagnostics<'_>) -> String {
        let Some(node) = self.get("version") else { return "1".into() };
        let version = match &node.content {
            Content::Int(number) => number.to_string(),
            Content::Text(text) => text.clone(),
            Content::Float(_) => {
                let message = "'version' must be a text or a whole number";
                out.advise(node.place, "wrong-type", message, "quote it, so that 1.10 stays 1.10");
                return "1".into();
            }
            _ => {
                let message = format!("'version' must be a text or a whole number, not {}", node.kind());
                out.report(node.place, "wrong-type", message);
                return "1".into();
            }
        };
        let fits = (1..=64).contains(&version.len())
            && version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'));
        if !fits {
            let message = "'version' must be 1 to 64 letters, digits, '.', '-', '_' or '+'";
            out.report(node.place, "bad-name", message);
        }
        version
    }
}

/// A text, reported when it is something else.
pub(super) fn text<'n>(node: &'n Node, owner: &str, out: &mut Diagnostics<'_>) -> Option<&'n str> {
    if node.as_text().is_none() {
        let owner = if owner.contains(' ') { owner.to_owned() } else { format!("'{owner}'") };
        let advice = match node.content {
            Content::Bool(_) | Content::Int(_) | Content::Float(_) => "put it in quotes",
            _ => "",
        };
        out.advise(node.place, "wrong-type", format!("{owner} must be a text, not {}", node.kind()), advice);
    }
    node.as_text()
}

/// One of some words, reported when it is none of them.
pub(super) fn choice<T: Copy>(node: &Node, key: &str, words: &[(&str, T)], out: &mut Diagnostics<'_>) -> Option<T> {
    let text = text(node, key, out)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let advice = match nearest(text, words.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("one of {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")),
        };
        out.advise(node.place, "unknown-name", format!("there is no {key} '{}'", shorten(text, 40)), advice);
    }
    found
}

/// The name of a resource, reported when it is none.
pub(super) fn name(node: &Node, key: &str, out: &mut Diagnostics<'_>) -> Option<Name> {
    let text = text(node, key, out)?;
    let made = Name::new(text);
    if let Err(error) = &made {
        let lower: String = text
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
            .take(63)
            .collect();
        let advice = Name::new(&lower).map_or_else(|_| String::new(), |name| format!("write '{name}'"));
        out.advise(node.place, "bad-name", error.to_string(), advice);
    }
    made.ok()
}
