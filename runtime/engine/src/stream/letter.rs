//! The headers that tell what was wrong with a record, for the tools that people have: Kafka Connect's, Spring's.
//!
//! The record's own key, value and headers stay as they are. A record that failed before keeps where it first came
//! from, and is told anew why it failed. Never sends. Used by the actors that own partitions.
//! Source: Kafka Connect's and Spring Kafka's dead letter headers.

use bytes::Bytes;

use super::{Headers, Stage};
use crate::definition::LetterHeaders;

/// Longest message in a header, in bytes.
pub const MAX_LETTER_MESSAGE: usize = 4_096;

/// Stands for a class of a program, where others name one.
const COMPONENT: &str = "io.motet.Stream";

/// A record with a mistake, as far as headers tell of it.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// The stream.
    pub stream: &'a str,
    /// Its consumer group.
    pub group: &'a str,
    /// Topic that the record lies in.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Place in the partition.
    pub offset: i64,
    /// The record's time in milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// Where on its way, as [`Stage::as_str`] says it.
    pub stage: &'a str,
    /// Stable name of what was wrong.
    pub class: &'a str,
    /// What was wrong.
    pub message: &'a str,
    /// The record's own headers.
    pub headers: &'a [(String, Option<Bytes>)],
}

/// What becomes of a header that the record has already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Earlier {
    /// It stays: where a record first came from.
    Stays,
    /// It goes: why a record failed before.
    Goes,
}

type Added = (&'static str, Bytes, Earlier);

/// The headers of a dead letter: the record's own, and those that tell what was wrong.
#[must_use]
pub fn letter_headers(letter: &Letter<'_>, family: LetterHeaders) -> Headers {
    let mut added = vec![];
    if matches!(family, LetterHeaders::Connect | LetterHeaders::Both) {
        added.extend(connect(letter));
    }
    if matches!(family, LetterHeaders::Spring | LetterHeaders::Both) {
        added.extend(spring(letter));
    }
    let gone = |name: &str| added.iter().any(|(added, _, earlier)| *added == name && *earlier == Earlier::Goes);
    let mut headers: Headers = letter.headers.iter().filter(|(name, _)| !gone(name)).cloned().collect();
    let own = headers.len();
    for (name, value, _) in added {
        if !headers[..own].iter().any(|(found, _)| found == name) {
            headers.push((name.to_owned(), Some(value)));
        }
    }
    headers
}

fn connect(letter: &Letter<'_>) -> Vec<Added> {
    let message = cut(letter.message);
    vec![
        ("__connect.errors.topic", said(letter.topic), Earlier::Stays),
        ("__connect.errors.partition", said(&letter.partition.to_string()), Earlier::Stays),
        ("__connect.errors.offset", said(&letter.offset.to_string()), Earlier::Stays),
        ("__connect.errors.connector.name", said(letter.stream), Earlier::Goes),
        ("__connect.errors.task.id", said(&letter.partition.to_string()), Earlier::Goes),
        ("__connect.errors.stage", said(letter.stage), Earlier::Goes),
        ("__connect.errors.class.name", said(COMPONENT), Earlier::Goes),
        ("__connect.errors.exception.class.name", said(letter.class), Earlier::Goes),
        ("__connect.errors.exception.message", said(message), Earlier::Goes),
        ("__connect.errors.exception.stacktrace", trace(letter), Earlier::Goes),
    ]
}

/// Spring tells failures of keys under names of their own.
fn spring(letter: &Letter<'_>) -> Vec<Added> {
    let message = cut(letter.message);
    let mut added = vec![
        ("kafka_dlt-original-topic", said(letter.topic), Earlier::Stays),
        ("kafka_dlt-original-partition", big_endian(&letter.partition.to_be_bytes()), Earlier::Stays),
        ("kafka_dlt-original-offset", big_endian(&letter.offset.to_be_bytes()), Earlier::Stays),
        ("kafka_dlt-original-consumer-group", said(letter.group), Earlier::Stays),
    ];
    if let Some(timestamp) = letter.timestamp {
        added.push(("kafka_dlt-original-timestamp", big_endian(&timestamp.to_be_bytes()), Earlier::Stays));
        added.push(("kafka_dlt-original-timestamp-type", said("CreateTime"), Earlier::Stays));
    }
    let names = if letter.stage == Stage::KeyConverter.as_str() {
        ["kafka_dlt-key-exception-fqcn", "kafka_dlt-key-exception-message", "kafka_dlt-key-exception-stacktrace"]
    } else {
        ["kafka_dlt-exception-fqcn", "kafka_dlt-exception-message", "kafka_dlt-exception-stacktrace"]
    };
    let values = [said(letter.class), said(message), trace(letter)];
    added.extend(names.into_iter().zip(values).map(|(name, value)| (name, value, Earlier::Goes)));
    added.push(("kafka_dlt-exception-cause-fqcn", said(letter.class), Earlier::Goes));
    added
}

fn said(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn big_endian(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// What stands where others write the trace of a stack.
fn trace(letter: &Letter<'_>) -> Bytes {
    said(cut(&format!("{}: {}: {}", letter.class, letter.stage, letter.message)))
}

/// At most [`MAX_LETTER_MESSAGE`] bytes of a text, without a broken character at the end.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LETTER_MESSAGE)]
}
