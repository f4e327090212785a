//! The record that began a run, as users see it.
//!
//! Never shows more of the record than its place and its key: the value became the run's input. Used by the view of runs.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use motet_engine::run::Run;
use motet_engine::stream::Source;
use serde::Serialize;
use utoipa::ToSchema;

/// Where a run comes from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Source)]
pub(crate) struct SourceView<'a> {
    /// The stream that read the record.
    stream: &'a str,
    /// Revision of the stream's definition, which says what becomes of the result.
    revision: &'a str,
    /// Number of the replay.
    generation: u32,
    /// The topic.
    topic: &'a str,
    /// Number in the topic.
    partition: i32,
    /// Offset of the record.
    offset: i64,
    /// The record's time in milliseconds since 1970; null where it has none.
    #[schema(required)]
    timestamp: Option<i64>,
    /// Its key as text, or in base 64 where it is no UTF-8; null where it has none.
    #[schema(value_type = Option<String>, required)]
    key: Option<Cow<'a, str>>,
    /// Id of the event that the record carried; null where it was none.
    #[schema(required)]
    event: Option<&'a str>,
    /// Its place in an order: `none`, `waiting` for those before it, `first`, `held` after an end without success until
    /// somebody retries or skips it, or `left`.
    #[schema(value_type = String)]
    order: &'static str,
}

impl<'a> SourceView<'a> {
    /// The record that began a run; none where none did.
    pub(crate) fn of(run: &'a Run) -> Option<Self> {
        let source: &Source = run.submission().source.as_ref()?;
        let state = run.state();
        let order = match (source.order, state.in_line, state.holds_line(), run.phase().is_end()) {
            (None, ..) => "none",
            (_, true, ..) => "waiting",
            (_, _, false, _) => "left",
            (_, _, _, true) => "held",
            _ => "first",
        };
        let key = source.key.as_deref().map(|key| match std::str::from_utf8(key) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(STANDARD.encode(key)),
        });
        Some(Self {
            stream: source.stream.as_str(),
            revision: &source.revision,
            generation: source.generation,
            topic: &source.topic,
            partition: source.partition,
            offset: source.offset,
            timestamp: source.timestamp,
            key,
            event: source.event.as_ref().map(|event| &*event.id),
            order,
        })
    }
}
