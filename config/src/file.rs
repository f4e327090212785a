//! Reads a settings file: YAML into a tree whose every key and value knows its line and column.
//!
//! Never knows which keys exist. Used by the loader.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// Largest file in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// Where something stands; both start at 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let at = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).max(1);
        Self { line: at(location.line()), column: at(location.column()) }
    }
}

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) content: Content,
}

/// What stands there.
#[derive(Debug)]
pub(crate) enum Content {
    Nothing,
    /// Not text, but with a text of its own: true, 8080, 1.5.
    Plain(String),
    Text(String),
    List,
    Map(Vec<(String, Place, Node)>),
}

/// Reads a whole file. Of several documents and of broken YAML only the first mistake is told.
pub(crate) fn read(text: &str) -> Result<Node, (Place, String)> {
    let start = Place { line: 1, column: 1 };
    if text.len() > MAX_BYTES {
        return Err((start, format!("the file has {} bytes; at most {MAX_BYTES} are allowed", text.len())));
    }
    // Keys that stand twice are told by the loader, with both places.
    let duplicate_keys = serde_saphyr::DuplicateKeyPolicy::PassThrough;
    let options = serde_saphyr::options! { with_snippet: false, duplicate_keys: duplicate_keys };
    match serde_saphyr::from_str_with_options::<Option<Node>>(text, options) {
        Ok(node) => Ok(node.unwrap_or(Node { place: start, content: Content::Nothing })),
        Err(error) => {
            let place = error.location().map_or(start, Place::from);
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            let message = message.trim_start_matches("error: ").lines().next().unwrap_or_default();
            Err((place, format!("this is no YAML: {message}")))
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self { place: spanned.referenced.into(), content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Nothing)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Content, E> {
        Ok(Content::Plain(truth.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Content, E> {
        Ok(Content::Plain(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Content, E> {
        Ok(Content::Plain(number.to_string()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Content, E> {
        Ok(Content::Plain(number.to_string()))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Content, E> {
        Ok(Content::Plain(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Content, E> {
        Ok(Content::Plain(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(Content::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Node>()? {
            entries.push((key.value, key.referenced.into(), value));
        }
        Ok(Content::Map(entries))
    }
}
