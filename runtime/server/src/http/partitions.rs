//! The partitions of streams: where each stands, and steering it.
//!
//! Holds no rules; positions are the store's, so every node answers alike. Used by the routes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use motet_actors::router::{PartitionView as View, SeekTo};
use motet_engine::access::Caller;
use motet_engine::id::Name;
use motet_engine::time::Timestamp;
use motet_store::port::PartitionKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::context::Context;
use super::entry::NameEntry;
use super::problem::Problem;
use super::run_view::moment;
use super::steering::Nothing;
use super::{App, body, query};

/// A partition of a stream.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Partition)]
pub(crate) struct PartitionView {
    /// The topic.
    topic: String,
    /// Number in the topic.
    partition: i32,
    /// The node that reads it; null when nobody does.
    #[schema(required)]
    owner: Option<String>,
    /// `reading`, `paused`, `stopped` when somebody must act, or `unowned`.
    #[schema(value_type = String)]
    state: &'static str,
    /// First offset that has not become a run, a dead letter or nothing yet; null before it is known.
    #[schema(required)]
    next: Option<i64>,
    /// Oldest offset that the topic keeps; null where the broker cannot be asked.
    #[schema(required)]
    low: Option<i64>,
    /// Offset behind the newest record; null where the broker cannot be asked.
    #[schema(required)]
    high: Option<i64>,
    /// Records that are not durable here yet; null where that is not known.
    #[schema(required)]
    lag: Option<i64>,
    /// Number of the replay.
    generation: u32,
    /// Number of the claim.
    epoch: u64,
    /// Claims since the last progress.
    barren: u32,
    /// Why it stands still, with what to do; null when it does not.
    #[schema(required)]
    trouble: Option<String>,
    /// What the answering node does with it; null where another one has it.
    #[schema(required)]
    here: Option<HereView>,
    /// When the row last changed.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    changed_at: Timestamp,
}

/// What a node does with a partition that it has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HereView {
    /// Records that became runs since the partition came.
    admitted: u64,
    /// Records that were passed over.
    passed: u64,
    /// Records that became dead letters.
    dead: u64,
    /// Records that wait for the store.
    waiting: u64,
    /// What holds it up now; null when nothing does.
    #[schema(required)]
    held: Option<String>,
}

/// The partitions of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Partitions {
    /// In order.
    partitions: Vec<PartitionView>,
}

/// Where a partition is to be read on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seeking {
    /// An offset, `earliest`, `latest`, or a time in RFC 3339.
    #[schema(value_type = String)]
    to: serde_json::Value,
    /// Whether records that became runs become new ones; otherwise only what is missing becomes a run.
    #[serde(default)]
    again: bool,
}

impl From<View> for PartitionView {
    fn from(view: View) -> Self {
        let lag = view.lag();
        let View { row, bounds, figures } = view;
        let state = match (&row.trouble, row.paused, row.owner.is_empty()) {
            (Some(_), ..) => "stopped",
            (_, true, _) => "paused",
            (_, _, true) => "unowned",
            _ => "reading",
        };
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let here = figures.map(|it| HereView {
            admitted: count(&it.admitted),
            passed: count(&it.passed),
            dead: count(&it.dead),
            waiting: count(&it.waiting),
            held: it.held(),
        });
        Self {
            topic: row.key.topic,
            partition: row.key.partition,
            owner: (!row.owner.is_empty()).then_some(row.owner),
            state,
            next: row.next,
            low: bounds.map(|bounds| bounds.low),
            high: bounds.map(|bounds| bounds.high),
            lag,
            generation: row.generation,
            epoch: row.epoch.0,
            barren: row.barren,
            trouble: row.trouble,
            here,
            changed_at: row.changed_at,
        }
    }
}

/// List the partitions of a stream
///
/// Where each is read, how far, and how far behind.
#[utoipa::path(get, path = "/api/v1/streams/{name}/partitions", operation_id = "listPartitions", tag = "streams",
    params(("name" = String, Path, description = "Name of the stream.")),
    responses((status = 200, description = "The partitions that were ever read.", body = Partitions)))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    context: Context,
    NameEntry(name): NameEntry,
) -> Result<Response, Problem> {
    let views = app.router.partitions(&context.caller, &name).await?;
    body::answer(200, &Partitions { partitions: views.into_iter().map(Into::into).collect() })
}

/// A partition in a path: stream, topic and number.
type Entry = Path<(String, String, i32)>;

/// The key that a path names.
pub(super) fn key(caller: &Caller, stream: &str, topic: String, partition: i32) -> Result<PartitionKey, Problem> {
    let stream = Name::new(stream).map_err(|error| Problem::new(400, "invalid_name", error.to_string()))?;
    Ok(PartitionKey { namespace: caller.namespace.clone(), stream, topic, partition })
}

/// Stop a partition
///
/// Its records wait in the topic; other partitions go on.
#[utoipa::path(post, path = "/api/v1/streams/{name}/partitions/{topic}/{partition}/pause",
    operation_id = "pausePartition", tag = "streams",
    params(("name" = String, Path, description = "Name of the stream."),
        ("topic" = String, Path, description = "The topic."),
        ("partition" = i32, Path, description = "Number in the topic.")),
    responses((status = 202, description = "Its owner hears of it within seconds.", body = PartitionView)))]
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    context: Context,
    entry: Entry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    set_paused(&app, &context, entry, (headers, body), true).await
}

/// Let a partition go on
///
/// After a pause; what stopped because of a trouble is tried again.
#[utoipa::path(post, path = "/api/v1/streams/{name}/partitions/{topic}/{partition}/resume",
    operation_id = "resumePartition", tag = "streams",
    params(("name" = String, Path, description = "Name of the stream."),
        ("topic" = String, Path, description = "The topic."),
        ("partition" = i32, Path, description = "Number in the topic.")),
    responses((status = 202, description = "Its owner hears of it within seconds.", body = PartitionView)))]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    context: Context,
    entry: Entry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    set_paused(&app, &context, entry, (headers, body), false).await
}

async fn set_paused(
    app: &App,
    context: &Context,
    Path((name, topic, partition)): Entry,
    (headers, body): (HeaderMap, Body),
    pause: bool,
) -> Result<Response, Problem> {
    let Nothing {} = body::json(&headers, &body::read(app, &headers, body).await?)?;
    let key = key(&context.caller, &name, topic, partition)?;
    let mut row = app.router.pause_partition(&context.caller, &key, pause).await?;
    if !pause && row.trouble.is_some() {
        row = app.router.clear_partition(&context.caller, &key).await?;
    }
    body::answer(202, &PartitionView::from(View { row, bounds: None, figures: None }))
}

/// Read a partition on from elsewhere
///
/// Whoever has it is fenced at once and begins there. Without `again` a second reading admits only what is missing.
#[utoipa::path(post, path = "/api/v1/streams/{name}/partitions/{topic}/{partition}/seek",
    operation_id = "seekPartition", tag = "streams",
    params(("name" = String, Path, description = "Name of the stream."),
        ("topic" = String, Path, description = "The topic."),
        ("partition" = i32, Path, description = "Number in the topic.")),
    request_body = Seeking,
    responses((status = 202, description = "It is read from there on.", body = PartitionView)))]
pub(crate) async fn seek(
    State(app): State<Arc<App>>,
    context: Context,
    Path((name, topic, partition)): Entry,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Seeking { to, again } = body::json(&headers, &body::read(&app, &headers, body).await?)?;
    let to = target(&to)?;
    let key = key(&context.caller, &name, topic, partition)?;
    let row = app.router.seek_partition(&context.caller, &key, to, again).await?;
    body::answer(202, &PartitionView::from(View { row, bounds: None, figures: None }))
}

fn target(to: &serde_json::Value) -> Result<SeekTo, Problem> {
    if let Some(offset) = to.as_i64() {
        return Ok(SeekTo::Offset(offset));
    }
    match to.as_str() {
        Some("earliest") => Ok(SeekTo::Earliest),
        Some("latest") => Ok(SeekTo::Latest),
        Some(text) => match text.parse::<i64>() {
            Ok(offset) => Ok(SeekTo::Offset(offset)),
            Err(_) => query::time("to", text).map(SeekTo::At),
        },
        None => Err(Problem::new(422, "invalid", "'to' is an offset, 'earliest', 'latest' or a time in RFC 3339")),
    }
}
