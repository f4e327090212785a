//! Dead letters: records that could not become runs, why, and what to do about them.
//!
//! Holds no rules; reading a record again is the router's. Used by the routes.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use motet_engine::id::Name;
use motet_engine::time::Timestamp;
use motet_store::port::{DeadLetter, DeadPlace, DeadQuery, DeadState, PartitionKey};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::context::Context;
use super::entry::NameEntry;
use super::partitions::key;
use super::problem::Problem;
use super::query::{Query, refused};
use super::run_view::moment;
use super::steering::Nothing;
use super::{App, body};

/// Letters on a page where nothing is said.
const PAGE: u32 = 50;

/// A record that could not become a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct LetterView {
    /// The topic.
    topic: String,
    /// Number in the topic.
    partition: i32,
    /// Number of the replay that read it.
    generation: u32,
    /// Its offset.
    offset: i64,
    /// When it was read.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Where on its way something was wrong.
    stage: String,
    /// Stable name of what was wrong.
    class: String,
    /// What was wrong, in words.
    message: String,
    /// `open`, `redriven` or `discarded`.
    #[schema(value_type = String)]
    state: &'static str,
    /// Whether it was sent to the dead-letter topic, or need not be.
    sent: bool,
    /// The record itself; left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<RecordView>,
}

/// A record byte for byte.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecordView {
    /// Its key; null where it has none.
    #[schema(required)]
    key: Option<BytesView>,
    /// Its value; null where it has none.
    #[schema(required)]
    value: Option<BytesView>,
    /// Its headers in order; names may repeat.
    headers: Vec<HeaderView>,
    /// Its time in milliseconds since 1970; null where it has none.
    #[schema(required)]
    timestamp: Option<i64>,
}

/// Bytes: as text where they are UTF-8, else in base 64.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BytesView {
    /// UTF-8 text.
    Text(String),
    /// Base 64 of the bytes.
    Base64(String),
}

/// A header.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HeaderView {
    /// Its name.
    name: String,
    /// Its value; null where it has none.
    #[schema(required)]
    value: Option<BytesView>,
}

/// Dead letters, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Letters {
    /// The letters.
    dead_letters: Vec<LetterView>,
    /// For the next page; null on the last one.
    #[schema(required)]
    cursor: Option<String>,
}

/// Which letters to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct LetterQuery {
    /// `open`, `redriven` or `discarded`; all of them where none is named.
    state: Option<String>,
    /// Only those of partitions with this number.
    partition: Option<i32>,
    /// From the page before.
    cursor: Option<String>,
    /// 1 to 1,000; 50 where nothing is said.
    limit: Option<u32>,
}

/// Another value for the record.
#[derive(Debug, Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redriving {
    /// The value as text, instead of the record's own.
    value: Option<String>,
    /// The same in base 64.
    value_base64: Option<String>,
}

/// The run that a record began.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Redriven {
    /// Its id.
    run: String,
    /// Whether it had begun before.
    replayed: bool,
}

fn shown(bytes: Option<Bytes>) -> Option<BytesView> {
    bytes.map(|bytes| match std::str::from_utf8(&bytes) {
        Ok(text) => BytesView::Text(text.to_owned()),
        Err(_) => BytesView::Base64(STANDARD.encode(&bytes)),
    })
}

fn view(letter: DeadLetter, with_record: bool) -> LetterView {
    let state = DeadState::ALL.iter().find(|(state, _)| *state == letter.state).map_or("open", |(_, name)| name);
    let record = with_record.then(|| RecordView {
        key: shown(letter.record_key),
        value: shown(letter.value),
        headers: letter.headers.into_iter().map(|(name, value)| HeaderView { name, value: shown(value) }).collect(),
        timestamp: letter.timestamp,
    });
    LetterView {
        topic: letter.key.topic,
        partition: letter.key.partition,
        generation: letter.generation,
        offset: letter.offset,
        at: letter.at,
        stage: letter.stage,
        class: letter.class,
        message: letter.message,
        state,
        sent: letter.sent,
        record,
    }
}

/// A place in the list as text.
fn cursor(place: &DeadPlace) -> String {
    let DeadPlace { at, key, generation, offset } = place;
    format!("{}:{generation}:{offset}:{}:{}", at.as_millis(), key.partition, key.topic)
}

fn place(text: &str, context: &Context, stream: &Name) -> Option<DeadPlace> {
    let mut parts = text.splitn(5, ':');
    let at = Timestamp::from_millis(parts.next()?.parse().ok()?);
    let (generation, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let (partition, topic) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
    let (namespace, stream) = (context.caller.namespace.clone(), stream.clone());
    Some(DeadPlace { at, key: PartitionKey { namespace, stream, topic, partition }, generation, offset })
}

/// List dead letters
///
/// Records of a stream that could not become runs, newest first, without their bytes.
#[utoipa::path(get, path = "/api/v1/streams/{name}/dead-letters", operation_id = "listDeadLetters", tag = "streams",
    params(("name" = String, Path, description = "Name of the stream."), LetterQuery),
    responses((status = 200, description = "A page of them.", body = Letters)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    context: Context,
    NameEntry(name): NameEntry,
    Query(asked): Query<LetterQuery>,
) -> Result<Response, Problem> {
    let limit = asked.limit.unwrap_or(PAGE);
    if !(1..=1_000).contains(&limit) {
        return Err(refused("limit", "it must be 1 to 1000"));
    }
    let state = asked.state.as_deref().map(|text| {
        let found = DeadState::ALL.iter().find(|(_, name)| *name == text).map(|(state, _)| *state);
        found.ok_or_else(|| refused("state", format!("'{text}' is none of open, redriven and discarded")))
    });
    let after = asked.cursor.as_deref().map(|text| {
        place(text, &context, &name).ok_or_else(|| refused("cursor", "take it from the page before, unchanged"))
    });
    let query = DeadQuery {
        stream: Some(name.clone()),
        partition: asked.partition,
        state: state.transpose()?,
        after: after.transpose()?,
        ..DeadQuery::newest(context.caller.namespace.clone(), limit)
    };
    let letters = app.router.dead_letters(&context.caller, &query).await?;
    let full = letters.len() as u64 == u64::from(limit);
    let cursor = letters.last().filter(|_| full).map(|last| cursor(&last.place()));
    body::answer(200, &Letters { dead_letters: letters.into_iter().map(|it| view(it, false)).collect(), cursor })
}

/// A letter in a path: stream, topic, partition, generation, offset.
type Entry = Path<(String, String, i32, u32, i64)>;

/// Show a dead letter
///
/// With the record, byte for byte.
#[utoipa::path(get, path = "/api/v1/streams/{name}/dead-letters/{topic}/{partition}/{generation}/{offset}",
    operation_id = "showDeadLetter", tag = "streams",
    params(("name" = String, Path, description = "Name of the stream."),
        ("topic" = String, Path, description = "The topic."),
        ("partition" = i32, Path, description = "Number in the topic."),
        ("generation" = u32, Path, description = "Number of the replay."),
        ("offset" = i64, Path, description = "Offset of the record.")),
    responses((status = 200, description = "The letter.", body = LetterView)))]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    context: Context,
    Path((name, topic, partition, generation, offset)): Entry,
) -> Result<Response, Problem> {
    let key = key(&context.caller, &name, topic, partition)?;
    let letter = app.router.dead_letter(&context.caller, &key, generation, offset).await?;
    body::answer(200, &view(letter, true))
}

/// Give a dead letter up
///
/// It stays readable until it is forgotten with the ended runs of its time.
#[utoipa::path(post, path = "/api/v1/streams/{name}/dead-letters/{topic}/{partition}/{generation}/{offset}/discard",
    operation_id = "discardDeadLetter", tag = "streams",
    params(("name" = String, Path, description = "Name of the stream."),
        ("topic" = String, Path, description = "The topic."),
        ("partition" = i32, Path, description = "Number in the topic."),
        ("generation" = u32, Path, description = "Number of the replay."),
        ("offset" = i64, Path, description = "Offset of the record.")),
    responses((status = 200, description = "The letter as it is now.", body = LetterView)))]
pub(crate) async fn discard(
    State(app): State<Arc<App>>,
    context: Context,
    Path((name, topic, partition, generation, offset)): Entry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Nothing {} = body::json(&headers, &body::read(&app, &headers, body).await?)?;
    let key = key(&context.caller, &name, topic, partition)?;
    app.router.discard_dead_letter(&context.caller, &key, generation, offset).await?;
    let letter = app.router.dead_letter(&context.caller, &key, generation, offset).await?;
    body::answer(200, &view(letter, false))
}

/// Begin the run of a dead letter
///
/// The record is read once more by the stream as it is now, with another value where one is given. Doing it twice
/// begins one run.
#[utoipa::path(post, path = "/api/v1/streams/{name}/dead-letters/{topic}/{partition}/{generation}/{offset}/redrive",
    operation_id = "redriveDeadLetter", tag = "streams",
    params(("name" = String, Path, description = "Name of the stream."),
        ("topic" = String, Path, description = "The topic."),
        ("partition" = i32, Path, description = "Number in the topic."),
        ("generation" = u32, Path, description = "Number of the replay."),
        ("offset" = i64, Path, description = "Offset of the record.")),
    request_body = Redriving,
    responses((status = 202, description = "The run is durable.", body = Redriven)))]
pub(crate) async fn redrive(
    State(app): State<Arc<App>>,
    context: Context,
    Path((name, topic, partition, generation, offset)): Entry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let asked: Redriving = body::json(&headers, &body::read(&app, &headers, body).await?)?;
    let value = match (asked.value, asked.value_base64) {
        (Some(_), Some(_)) => {
            return Err(Problem::new(422, "invalid", "'value' and 'value_base64' are both given; keep one"));
        }
        (Some(text), None) => Some(Bytes::from(text)),
        (None, Some(text)) => Some(decoded(&text)?),
        (None, None) => None,
    };
    let key = key(&context.caller, &name, topic, partition)?;
    let submitted = app.router.redrive_dead_letter(&context.caller, &key, generation, offset, value).await?;
    body::answer(202, &Redriven { run: submitted.run.to_string(), replayed: submitted.replayed })
}

fn decoded(text: &str) -> Result<Bytes, Problem> {
    let wrong = |error| Problem::new(422, "invalid", Cow::Owned(format!("value_base64 is no base 64: {error}")));
    STANDARD.decode(text).map(Bytes::from).map_err(wrong)
}
