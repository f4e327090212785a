//! Reads `kind: Schedule`: when runs of a workflow begin by themselves.
//!
//! The times are computed by `schedule`, beside which there is no other notion of a time zone. Never checks the
//! workflow's name or the input: the workflow may be defined later or elsewhere. Used by the document reader.

use std::time::Duration;

use super::diagnostic::Diagnostics;
use super::fields::Fields;
use super::node::Node;
use crate::expression::wording::shorten;
use crate::id::Name;
use crate::schedule::{self, Calendar};
use crate::time::{Timestamp, span};
use crate::value::Value;

pub(super) const KEYS: [&str; 14] = [
    "apiVersion",
    "kind",
    "name",
    "description",
    "workflow",
    "version",
    "cron",
    "time_zone",
    "input",
    "overlap",
    "catch_up",
    "priority",
    "tags",
    "paused",
];
pub(super) const CATCH_UP_KEYS: [&str; 1] = ["window"];
pub(super) const OVERLAPS: [(&str, Overlap); 3] =
    [("skip", Overlap::Skip), ("queue", Overlap::Queue), ("allow", Overlap::Allow)];
/// How old the newest missed time may be where nothing is said about catching up.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

/// What happens at a time at which the run of an earlier one has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing: the time is dropped.
    Skip,
    /// The run begins as soon as the earlier one has ended.
    Queue,
    /// Another run begins beside it.
    Allow,
}

/// What happens to times that came while no node was there to see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// Only the newest of them begins a run, and only when it is at most this old.
    Newest(Duration),
    /// Each of them that is at most this old begins a run.
    Within(Duration),
}

impl CatchUp {
    /// How old a missed time may be.
    #[must_use]
    pub fn window(self) -> Duration {
        match self {
            Self::Newest(window) | Self::Within(window) => window,
        }
    }
}

/// When runs of a workflow begin by themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleDefinition {
    /// Name of the schedule.
    pub name: Name,
    /// Workflow by name.
    pub workflow: Name,
    /// Version; the newest at each time where none is named.
    pub version: Option<String>,
    /// The times.
    pub calendar: Calendar,
    /// The input of each run.
    pub input: Value,
    /// What happens while an earlier run goes on.
    pub overlap: Overlap,
    /// What happens to missed times.
    pub catch_up: CatchUp,
    /// Higher goes first where calls wait for a model; 0 is normal.
    pub priority: i8,
    /// Labels of each run.
    pub tags: Vec<String>,
    /// Whether it stands still. Times that come meanwhile are not missed: they never count.
    pub paused: bool,
    /// The document as JSON.
    pub document: serde_json::Value,
}

impl ScheduleDefinition {
    /// The first time after this one at which a run begins; none when there is none any more.
    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.calendar.next_after(at)
    }
}

pub(super) fn read(node: &Node, out: &mut Diagnostics<'_>) -> Option<ScheduleDefinition> {
    let hint = |key: &str| match key {
        "schedule" | "crontab" | "every" => Some("did you mean 'cron'?".to_owned()),
        "timezone" | "tz" | "zone" => Some("did you mean 'time_zone'?".to_owned()),
        "with" => Some("did you mean 'input'?".to_owned()),
        _ => None,
    };
    let fields = Fields::open(node, "a schedule", node.place, &KEYS, hint, out)?;
    fields.required("name", "a schedule", "such as 'name: nightly'", out);
    fields.required("workflow", "a schedule", "the name of the workflow to run", out);
    fields.required("cron", "a schedule", "such as 'cron: \"0 3 * * *\"' for every day at three", out);
    fields.text("description", out);
    let (name, workflow) = (fields.name("name", out), fields.name("workflow", out));
    let version = fields.get("version").map(|_| fields.version(out));
    let calendar = calendar(&fields, out);
    let overlap = fields.choice("overlap", &OVERLAPS, out).unwrap_or(Overlap::Skip);
    let catch_up = catch_up(&fields, out);
    let priority = fields.integer("priority", -100..=100, out).unwrap_or(0);
    let tags: Vec<String> = fields.texts("tags", out).into_iter().map(|(tag, _)| tag.to_owned()).collect();
    let paused = fields.boolean("paused", out).unwrap_or(false);
    let input = fields.get("input").map_or_else(Value::empty_map, |node| Value::from(node.to_json()));
    Some(ScheduleDefinition {
        name: name?,
        workflow: workflow?,
        version,
        calendar: calendar?,
        input,
        overlap,
        catch_up,
        priority: i8::try_from(priority).ok()?,
        tags,
        paused,
        document: node.to_json(),
    })
}

fn calendar(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> Option<Calendar> {
    let zone = fields.text("time_zone", out).unwrap_or(schedule::UTC);
    let known = schedule::is_zone(zone);
    if let (Some(node), false) = (fields.get("time_zone"), known) {
        let advice = match schedule::nearest_zone(zone) {
            Some(near) => format!("did you mean '{near}'?"),
            None => "write a name of the IANA time zone database, such as Europe/Berlin".to_owned(),
        };
        let message = format!("there is no time zone '{}'", shorten(zone, 60));
        out.advise(node.place, "unknown-name", message, advice);
    }
    let node = fields.get("cron")?;
    let cron = fields.text("cron", out)?;
    match Calendar::new(cron, if known { zone } else { schedule::UTC }) {
        Ok(calendar) => Some(calendar).filter(|_| known),
        Err(error) => {
            out.advise(node.place, "bad-cron", error.message, error.advice);
            None
        }
    }
}

fn catch_up(fields: &Fields<'_>, out: &mut Diagnostics<'_>) -> CatchUp {
    let default = CatchUp::Newest(DEFAULT_WINDOW);
    let Some(entry) = fields.entry("catch_up") else { return default };
    let Some(fields) = Fields::open(&entry.value, "'catch_up'", entry.key_place, &CATCH_UP_KEYS, |_| None, out) else {
        return default;
    };
    fields.required("window", "'catch_up'", "how old a missed time may be, such as {window: 10m}", out);
    fields.duration("window", Duration::ZERO..=span::LONGEST, out).map_or(default, CatchUp::Within)
}
